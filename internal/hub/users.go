package hub

import (
	"hash/maphash"
	"math/bits"
)

// Sizes of a page of users, in places. Growing, splitting or shrinking one page is
// the most that one user more or less costs.
const (
	minUserPage = 8
	maxUserPage = 512
)

// users finds what belongs to a user by their name: a directory of pages of open
// addressing (extendible hashing). It is not a map because an organization may have a
// million users, whose names are with what is theirs already: here one takes some 12
// bytes more, in a map 40. The zero value is empty.
type users[V named] struct {
	seed  maphash.Seed
	pages []*userPage[V] // by the first depth bits of the hash; one page may stand several times
	depth uint8
	n     int
}

// named is what belongs to the user of that name. The zero value is nobody's.
type named interface {
	comparable
	name() string
}

type userPage[V named] struct {
	places []V // at most 3/4 in use; from home on
	n      int
	depth  uint8 // how many first bits of the hash all its users share
}

func (u *users[V]) hash(name string) uint64 { return maphash.String(u.seed, name) }

// find is what belongs to a user, or the zero value.
func (u *users[V]) find(name string) (v V) {
	if u.n == 0 {
		return v
	}
	h := u.hash(name)
	p := u.page(h)
	return p.places[p.search(h, name)]
}

func (u *users[V]) page(hash uint64) *userPage[V] { return u.pages[hash>>(64-u.depth)] }

// search is the place of a user, or the one where they would be. The page is not
// full.
func (p *userPage[V]) search(hash uint64, name string) int {
	var none V
	i := p.home(hash)
	for p.places[i] != none && p.places[i].name() != name {
		i = p.next(i)
	}
	return i
}

// home is where a search for the hash begins: how far its last 32 bits are on their way
// from the first number to the last.
func (p *userPage[V]) home(hash uint64) int {
	return int(uint64(uint32(hash)) * uint64(len(p.places)) >> 32)
}

// next is the place after i, in a circle.
func (p *userPage[V]) next(i int) int {
	if i++; i < len(p.places) {
		return i
	}
	return 0
}

// far is how many places j is after i, in a circle.
func (p *userPage[V]) far(i, j int) int {
	if j < i {
		j += len(p.places)
	}
	return j - i
}

// crowded reports whether n users are too many for so many places.
func crowded(n, places int) bool { return n*4 > places*3 }

// larger is the next size of a page: between a power of two and the next there are
// three more, so that three fifths of most pages are in use, or more.
func larger(places int) int { return places + 1<<bits.Len(uint(places))>>3 }

// roomFor is the smallest size with room for n users.
func roomFor(n int) int {
	places := minUserPage
	for crowded(n, places) {
		places = larger(places)
	}
	return places
}

// add takes in what belongs to a user who has nothing there.
func (u *users[V]) add(v V) {
	if u.n == 0 {
		*u = users[V]{seed: maphash.MakeSeed(), pages: []*userPage[V]{{places: make([]V, minUserPage)}}}
	}
	h := u.hash(v.name())
	p := u.page(h)
	for crowded(p.n+1, len(p.places)) {
		if len(p.places) < maxUserPage {
			u.resize(p, larger(len(p.places)))
		} else {
			u.split(p, h)
			p = u.page(h)
		}
	}
	p.places[p.search(h, v.name())] = v
	p.n++
	u.n++
}

// remove takes out what is there.
func (u *users[V]) remove(v V) {
	if u.n--; u.n == 0 {
		*u = users[V]{}
		return
	}
	h := u.hash(v.name())
	p := u.page(h)
	var none V
	i := p.search(h, v.name())
	for j := p.next(i); p.places[j] != none; j = p.next(j) { // moves up those that would not be found any more
		if p.far(p.home(u.hash(p.places[j].name())), j) >= p.far(i, j) {
			p.places[i] = p.places[j]
			i = j
		}
	}
	p.places[i] = none
	if p.n--; len(p.places) > minUserPage && p.n <= len(p.places)/8 {
		u.resize(p, max(minUserPage, len(p.places)/2))
	}
}

func (u *users[V]) resize(p *userPage[V], places int) {
	old := p.places
	p.places, p.n = make([]V, places), 0
	u.put(old, func(uint64) *userPage[V] { return p })
}

// put puts users into the pages that to says.
func (u *users[V]) put(all []V, to func(hash uint64) *userPage[V]) {
	var none V
	for _, v := range all {
		if v != none {
			h := u.hash(v.name())
			p := to(h)
			p.places[p.search(h, v.name())] = v
			p.n++
		}
	}
}

// split makes two pages of p, where hash is, by one bit more of the hash.
func (u *users[V]) split(p *userPage[V], hash uint64) {
	if p.depth == u.depth {
		pages := make([]*userPage[V], 2*len(u.pages))
		for i, q := range u.pages {
			pages[2*i], pages[2*i+1] = q, q
		}
		u.pages = pages
		u.depth++
	}
	var halves [2]*userPage[V]
	for i := range halves {
		halves[i] = &userPage[V]{depth: p.depth + 1}
	}
	half := func(h uint64) *userPage[V] { return halves[h>>(63-p.depth)&1] }
	var none V
	for _, v := range p.places {
		if v != none {
			half(u.hash(v.name())).n++
		}
	}
	for _, h := range halves {
		h.places, h.n = make([]V, roomFor(h.n)), 0
	}
	u.put(p.places, half)
	// The places of p in the directory are those that share its first bits.
	stands := 1 << (u.depth - p.depth)
	at := int(hash>>(64-p.depth)) * stands
	for i := range stands {
		u.pages[at+i] = halves[i*2/stands]
	}
}
