package hub

import (
	"sort"

	"github.com/carillon-rt/carillon"
)

// sizeClasses are the sizes in which Go's runtime allocates what has up to 32 KiB; what
// is larger takes whole pages.
var sizeClasses = [...]int{
	8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448, 480, 512,
	576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096, 4864, 5376, 6144,
	6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072, 20480, 21760, 24576, 27264,
	28672, 32768,
}

// runtimePage is what larger sizes are a multiple of.
const runtimePage = 8 << 10

// allocated is what n bytes take in memory: for 7,000 of them that is 8,192.
func allocated(n int) int {
	switch {
	case n == 0:
		return 0
	case n > sizeClasses[len(sizeClasses)-1]:
		return (n + runtimePage - 1) / runtimePage * runtimePage
	}
	return sizeClasses[sort.SearchInts(sizeClasses[:], n)]
}

// deliveryCost is what a ring holds for an entry beside it, in bytes: the Delivery, its
// slot in a chunk, and where its first encoding is.
const deliveryCost = 96

// cost is what an entry takes in a ring, without its encodings.
func cost(e *carillon.Entry) int {
	return e.Size() - len(e.Data) + allocated(len(e.Data)) + deliveryCost
}
