package hub

import "hash/maphash"

// Sizes of a page of users, in places. Growing, splitting or shrinking one page is
// the most that one user more or less costs.
const (
	minUserPage = 8
	maxUserPage = 512
)

// users finds inboxes by the user's name: a directory of pages of open addressing
// (extendible hashing). It is not a map because an organization may have a million
// users, whose names are with their inboxes already: here one takes some 13 bytes
// more, in a map 40. The zero value is empty.
type users struct {
	seed  maphash.Seed
	pages []*userPage // by the first depth bits of the hash; one page may stand several times
	depth uint8
	n     int
}

type userPage struct {
	places []*node // a power of two, at most 3/4 in use; from the last bits of the hash on
	n      int
	depth  uint8 // how many first bits of the hash all its users share
}

func (u *users) hash(name string) uint64 { return maphash.String(u.seed, name) }

// find is the inbox of a user, or nil.
func (u *users) find(name string) *node {
	if u.n == 0 {
		return nil
	}
	h := u.hash(name)
	p := u.page(h)
	return p.places[p.search(h, name)]
}

func (u *users) page(hash uint64) *userPage { return u.pages[hash>>(64-u.depth)] }

// search is the place of a user, or the one where they would be. The page is not
// full.
func (p *userPage) search(hash uint64, name string) int {
	mask := len(p.places) - 1
	i := int(hash) & mask
	for p.places[i] != nil && p.places[i].user() != name {
		i = (i + 1) & mask
	}
	return i
}

// add takes in the inbox of a user who has none.
func (u *users) add(n *node) {
	if u.n == 0 {
		*u = users{seed: maphash.MakeSeed(), pages: []*userPage{{places: make([]*node, minUserPage)}}}
	}
	h := u.hash(n.user())
	p := u.page(h)
	for (p.n+1)*4 > len(p.places)*3 {
		if len(p.places) < maxUserPage {
			u.resize(p, 2*len(p.places))
		} else {
			u.split(p, h)
			p = u.page(h)
		}
	}
	p.places[p.search(h, n.user())] = n
	p.n++
	u.n++
}

// remove takes out an inbox that is there.
func (u *users) remove(n *node) {
	if u.n--; u.n == 0 {
		*u = users{}
		return
	}
	h := u.hash(n.user())
	p := u.page(h)
	mask := len(p.places) - 1
	i := p.search(h, n.user())
	for j := (i + 1) & mask; p.places[j] != nil; j = (j + 1) & mask { // moves up those that would not be found any more
		home := int(u.hash(p.places[j].user())) & mask
		if (j-home)&mask >= (j-i)&mask {
			p.places[i] = p.places[j]
			i = j
		}
	}
	p.places[i] = nil
	if p.n--; len(p.places) > minUserPage && p.n <= len(p.places)/8 {
		u.resize(p, len(p.places)/2)
	}
}

func (u *users) resize(p *userPage, places int) {
	old := p.places
	p.places, p.n = make([]*node, places), 0
	u.put(old, func(uint64) *userPage { return p })
}

// put puts users into the pages that to says.
func (u *users) put(all []*node, to func(hash uint64) *userPage) {
	for _, n := range all {
		if n != nil {
			h := u.hash(n.user())
			p := to(h)
			p.places[p.search(h, n.user())] = n
			p.n++
		}
	}
}

// split makes two pages of p, where hash is, by one bit more of the hash.
func (u *users) split(p *userPage, hash uint64) {
	if p.depth == u.depth {
		pages := make([]*userPage, 2*len(u.pages))
		for i, q := range u.pages {
			pages[2*i], pages[2*i+1] = q, q
		}
		u.pages = pages
		u.depth++
	}
	var halves [2]*userPage
	for i := range halves {
		halves[i] = &userPage{places: make([]*node, len(p.places)), depth: p.depth + 1}
	}
	u.put(p.places, func(h uint64) *userPage { return halves[h>>(63-p.depth)&1] })
	// The places of p in the directory are those that share its first bits.
	stands := 1 << (u.depth - p.depth)
	at := int(hash>>(64-p.depth)) * stands
	for i := range stands {
		u.pages[at+i] = halves[i*2/stands]
	}
}
