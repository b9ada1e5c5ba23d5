package match

import (
	"hash/maphash"
	"strings"

	"github.com/carillon-rt/carillon"
)

// The hash of a pattern is a sum of one number for each segment, which depends
// on its place, so that exchanging a word for '*' is one addition. The numbers
// of words depend on a random seed: nobody can choose patterns that collide.
// Those that do are told apart by their text.

// restSum is the number of a last '>', in whichever place.
const restSum = 0xd1342543de82ef95

// hashPattern is never 0.
func hashPattern(seed maphash.Seed, p carillon.Pattern) uint64 {
	var sum uint64
	i := 0
	for s, more := string(p), true; more; i++ {
		var segment string
		segment, s, more = strings.Cut(s, ".")
		switch segment {
		case ">":
			return finish(sum + restSum)
		case "*":
			sum += starSum(i)
		default:
			sum += wordSum(seed, i, segment)
		}
	}
	return finish(sum)
}

func wordSum(seed maphash.Seed, i int, word string) uint64 {
	return mix(maphash.String(seed, word) + placeSum(i))
}

func starSum(i int) uint64 { return mix(placeSum(i)) }

func placeSum(i int) uint64 { return uint64(i+1) * 0x9e3779b97f4a7c15 }

func finish(sum uint64) uint64 { return max(mix(sum), 1) }

// mix is the last step of SplitMix64: every bit of x changes half of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
