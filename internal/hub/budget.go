package hub

import (
	"cmp"
	"slices"
	"sync"
)

// budget is what the rings of a node hold together. Whoever holds most gives first, so
// that each may hold an equal part, and more of what the others do not need.
type budget struct {
	bytes int64
	rings []*ring // all are here before the first entry

	turn sync.Mutex // held by whoever makes room
}

// divide says how much each ring may begin with, given how much its partition has:
// equal parts, and more of what the others do not need.
func (b *budget) divide(has []int64) (may []int64) {
	order := make([]int, len(has))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(has[i], has[j]) })
	may, left := make([]int64, len(has)), b.bytes
	for k, i := range order {
		may[i] = min(has[i], left/int64(len(has)-k))
		left -= may[i]
	}
	return may
}

// held is the memory of all rings, and the ring that has most of it among those that can
// give some; nil if none can.
func (b *budget) held() (bytes int64, most *ring) {
	var highest int64
	for _, r := range b.rings {
		n := r.bytes.Load()
		bytes += n
		if n > highest && r.table.Load().evictable() {
			most, highest = r, n
		}
	}
	return bytes, most
}

// settle has the oldest entries leave while the rings are over the budget.
func (b *budget) settle() {
	if bytes, most := b.held(); bytes <= b.bytes || most == nil {
		return
	}
	b.turn.Lock()
	defer b.turn.Unlock()
	for {
		bytes, most := b.held()
		if bytes <= b.bytes || most == nil || !most.evict() {
			return
		}
	}
}
