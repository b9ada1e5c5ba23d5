package match

// Sizes of a page, in slots. Growing, splitting or shrinking one page is the
// most that one change costs beside itself: some tens of microseconds.
const (
	minPage = 8
	maxPage = 1024
)

// index finds patterns by hash: extendible hashing, a directory of pages of
// open addressing. It is not a map because a probe of a large map is several
// reads of cold memory, each waiting for the one before; here it is one, which
// those of other probes do not wait for, and a hit two. The zero value is empty.
//
// Hashes come from the caller, who seeds them, and are never 0.
type index[V Value] struct {
	pages []*page[V] // by the first depth bits of the hash; one page may stand several times
	depth uint8
	n     int
}

type page[V Value] struct {
	slots []slot[V] // a power of two, at most 3/4 in use; from the last bits of the hash on
	n     int
	depth uint8 // how many first bits of the hash all its patterns share
}

type slot[V Value] struct {
	hash  uint64 // 0: empty
	value V      // it knows its pattern
}

// page is the page of a hash, or nil.
func (x *index[V]) page(hash uint64) *page[V] {
	if x.pages == nil {
		return nil
	}
	return x.pages[hash>>(64-x.depth)]
}

// first is the hash in the slot where a search for hash begins. If that is 0,
// the search would find nothing.
func (x *index[V]) first(hash uint64) uint64 {
	p := x.page(hash)
	if p == nil || len(p.slots) == 0 {
		return 0
	}
	return p.slots[hash&uint64(len(p.slots)-1)].hash
}

// seek is a slot with this hash, or nil. It is good until the next change.
func (x *index[V]) seek(hash uint64) *slot[V] {
	p := x.page(hash)
	if p == nil || len(p.slots) == 0 {
		return nil
	}
	mask := uint64(len(p.slots) - 1)
	for i := hash & mask; p.slots[i].hash != 0; i = (i + 1) & mask {
		if p.slots[i].hash == hash {
			return &p.slots[i]
		}
	}
	return nil
}

// find is the slot of a pattern, or nil. It is good until the next change.
func (x *index[V]) find(hash uint64, pattern string) *slot[V] {
	p := x.page(hash)
	if p == nil {
		return nil
	}
	i := p.find(hash, pattern)
	if i < 0 {
		return nil
	}
	return &p.slots[i]
}

// insert adds a pattern that is not there.
func (x *index[V]) insert(s slot[V]) {
	if x.pages == nil {
		x.pages = []*page[V]{{}}
	}
	p := x.page(s.hash)
	for p.full() {
		if len(p.slots) < maxPage {
			p.resize(max(minPage, 2*len(p.slots)))
			break
		}
		x.split(p)
		p = x.page(s.hash)
	}
	p.put(s)
	x.n++
}

// remove reports whether the pattern was there.
func (x *index[V]) remove(hash uint64, pattern string) bool {
	p := x.page(hash)
	if p == nil {
		return false
	}
	i := p.find(hash, pattern)
	if i < 0 {
		return false
	}
	p.clear(i)
	if x.n--; x.n == 0 {
		*x = index[V]{}
	}
	return true
}

// split makes two pages of p, by one bit more of the hash.
func (x *index[V]) split(p *page[V]) {
	if p.depth == x.depth {
		pages := make([]*page[V], 2*len(x.pages))
		for i, q := range x.pages {
			pages[2*i], pages[2*i+1] = q, q
		}
		x.pages = pages
		x.depth++
	}
	var halves [2]*page[V]
	for i := range halves {
		halves[i] = &page[V]{slots: make([]slot[V], len(p.slots)), depth: p.depth + 1}
	}
	var start uint64
	for _, s := range p.slots {
		if s.hash != 0 {
			halves[s.hash>>(63-p.depth)&1].put(s)
			start = s.hash
		}
	}
	// The places of p are those that share its first bits.
	places := 1 << (x.depth - p.depth)
	at := int(start>>(64-p.depth)) * places
	for i := range places {
		x.pages[at+i] = halves[i*2/places]
	}
}

func (p *page[V]) full() bool { return (p.n+1)*4 > len(p.slots)*3 }

func (p *page[V]) find(hash uint64, pattern string) int {
	if len(p.slots) == 0 {
		return -1
	}
	mask := uint64(len(p.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &p.slots[i]
		if s.hash == 0 {
			return -1
		}
		if s.hash == hash && string(s.value.Pattern()) == pattern {
			return int(i)
		}
	}
}

func (p *page[V]) put(s slot[V]) {
	mask := uint64(len(p.slots) - 1)
	i := s.hash & mask
	for p.slots[i].hash != 0 {
		i = (i + 1) & mask
	}
	p.slots[i] = s
	p.n++
}

// clear empties slot i, moves up those after it that would no longer be found,
// and gives memory back when little of the page is in use.
func (p *page[V]) clear(i int) {
	mask := len(p.slots) - 1
	for j := (i + 1) & mask; p.slots[j].hash != 0; j = (j + 1) & mask {
		home := int(p.slots[j].hash) & mask
		if (j-home)&mask >= (j-i)&mask {
			p.slots[i] = p.slots[j]
			i = j
		}
	}
	p.slots[i] = slot[V]{}
	p.n--
	switch {
	case p.n == 0:
		p.slots = nil
	case len(p.slots) > minPage && p.n <= len(p.slots)/8:
		p.resize(len(p.slots) / 2)
	}
}

func (p *page[V]) resize(slots int) {
	old := p.slots
	p.slots, p.n = make([]slot[V], slots), 0
	for _, s := range old {
		if s.hash != 0 {
			p.put(s)
		}
	}
}
