package hub

import "hash/maphash"

// Sizes of a page of users, in places. Growing, splitting or shrinking one page is
// the most that one user more or less costs.
const (
	minUserPage = 8
	maxUserPage = 512
)

// users finds what belongs to a user by their name: a directory of pages of open
// addressing (extendible hashing). It is not a map because an organization may have a
// million users, whose names are with what is theirs already: here one takes some 13
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
	places []V // a power of two, at most 3/4 in use; from the last bits of the hash on
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
	mask := len(p.places) - 1
	i := int(hash) & mask
	for p.places[i] != none && p.places[i].name() != name {
		i = (i + 1) & mask
	}
	return i
}

// add takes in what belongs to a user who has nothing there.
func (u *users[V]) add(v V) {
	if u.n == 0 {
		*u = users[V]{seed: maphash.MakeSeed(), pages: []*userPage[V]{{places: make([]V, minUserPage)}}}
	}
	h := u.hash(v.name())
	p := u.page(h)
	for (p.n+1)*4 > len(p.places)*3 {
		if len(p.places) < maxUserPage {
			u.resize(p, 2*len(p.places))
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
	mask := len(p.places) - 1
	i := p.search(h, v.name())
	for j := (i + 1) & mask; p.places[j] != none; j = (j + 1) & mask { // moves up those that would not be found any more
		home := int(u.hash(p.places[j].name())) & mask
		if (j-home)&mask >= (j-i)&mask {
			p.places[i] = p.places[j]
			i = j
		}
	}
	p.places[i] = none
	if p.n--; len(p.places) > minUserPage && p.n <= len(p.places)/8 {
		u.resize(p, len(p.places)/2)
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
		halves[i] = &userPage[V]{places: make([]V, len(p.places)), depth: p.depth + 1}
	}
	u.put(p.places, func(h uint64) *userPage[V] { return halves[h>>(63-p.depth)&1] })
	// The places of p in the directory are those that share its first bits.
	stands := 1 << (u.depth - p.depth)
	at := int(hash>>(64-p.depth)) * stands
	for i := range stands {
		u.pages[at+i] = halves[i*2/stands]
	}
}
