package bench

import (
	"math/bits"
	"time"
)

// A bucket is at most 1/128 of its value wide, so a quantile is right within
// 0.8 %.
const (
	histSub  = 7
	histTop  = 42 // values from 2^42 ns (73 minutes) on share the last bucket
	histSize = (histTop - histSub + 1) << histSub
)

// Histogram counts nanoseconds in logarithmic buckets. Its memory is fixed. The
// zero value is empty and ready. It is not safe for concurrent use.
type Histogram struct {
	count  uint64
	sum    uint64
	max    uint64
	bucket [histSize]uint64
}

// Record counts one value; a negative one counts as 0.
func (h *Histogram) Record(ns int64) {
	v := uint64(max(ns, 0))
	h.count++
	h.sum += v
	h.max = max(h.max, v)
	h.bucket[bucketOf(v)]++
}

// Merge adds what o counted.
func (h *Histogram) Merge(o *Histogram) {
	h.count += o.count
	h.sum += o.sum
	h.max = max(h.max, o.max)
	for i, n := range o.bucket {
		h.bucket[i] += n
	}
}

// Reset forgets everything.
func (h *Histogram) Reset() { *h = Histogram{} }

// Count is how many values were recorded.
func (h *Histogram) Count() uint64 { return h.count }

// Max is the largest value, exactly.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max) }

// Mean is the mean, exactly; 0 when empty.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return time.Duration(h.sum / h.count)
}

// Quantile is a value that a share q of all values does not exceed: the upper
// end of its bucket, never above Max. It is 0 when empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := uint64(q * float64(h.count))
	if float64(rank) < q*float64(h.count) || rank == 0 {
		rank++
	}
	var seen uint64
	for i, n := range h.bucket {
		if seen += n; seen >= rank && n > 0 {
			if i == histSize-1 {
				break
			}
			return time.Duration(min(bucketEnd(i), h.max))
		}
	}
	return time.Duration(h.max)
}

func bucketOf(v uint64) int {
	if v < 1<<histSub {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - histSub
	return min((shift<<histSub)+int(v>>shift), histSize-1)
}

// bucketEnd is the largest value of a bucket.
func bucketEnd(i int) uint64 {
	if i < 1<<histSub {
		return uint64(i)
	}
	shift := i>>histSub - 1
	return uint64(i&(1<<histSub-1)+1<<histSub+1)<<shift - 1
}
