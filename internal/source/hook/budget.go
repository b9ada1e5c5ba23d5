package hook

import "sync/atomic"

// budget is how many bytes may be held at the same time.
type budget struct{ left atomic.Int64 }

// take takes n, if there are so many.
func (b *budget) take(n int64) bool {
	if b.left.Add(-n) >= 0 {
		return true
	}
	b.left.Add(n)
	return false
}

func (b *budget) give(n int64) { b.left.Add(n) }
