package hub

import (
	"slices"
	"strings"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
)

// Sub is one subscription of a feed: a pattern with an optional subject.
type Sub struct {
	node     *node
	start    uint64 // entries up to this sequence are not for it
	apart    *apart // nil: it is about anything, and since is start
	place    uint32 // 1 + that in the node's list of the shard; 0: it has ended
	overflow carillon.Overflow

	Alias bool // the owner's
}

// apart is what few subscriptions have.
type apart struct {
	subject string // "": any
	since   uint64 // see Sub.since
}

// Pattern is what it wants. One that has ended knows it until another is made.
func (s *Sub) Pattern() carillon.Pattern { return carillon.Pattern(s.node.text) }

// Subject is what its entries are about, or "" for anything.
func (s *Sub) Subject() string {
	if s.apart == nil {
		return ""
	}
	return s.apart.subject
}

// since is after which sequence everything is for it, or a backfill has brought it;
// nothing of that was left out.
func (s *Sub) since() uint64 {
	if s.apart == nil {
		return s.start
	}
	return s.apart.since
}

func (s *Sub) setSince(seq uint64) {
	switch {
	case s.apart != nil:
		s.apart.since = seq
	case seq != s.start:
		s.apart = &apart{since: seq}
	}
}

// accepts is for an entry that matched the node of the subscription.
func (s *Sub) accepts(e *carillon.Entry) bool {
	return e.Pos.Seq > s.start && s.about(e)
}

// about is accepts for an ephemeral event.
func (s *Sub) about(e *carillon.Entry) bool {
	return s.apart == nil || s.apart.subject == "" || s.apart.subject == e.Subject
}

// wants is for any entry of the organization.
func (s *Sub) wants(e *carillon.Entry) bool { return s.accepts(e) && s.matches(e) }

// brought is wants for what the subscription got by a backfill, too.
func (s *Sub) brought(e *carillon.Entry) bool {
	return e.Pos.Seq > s.since() && s.about(e) && s.matches(e)
}

func (s *Sub) matches(e *carillon.Entry) bool {
	return e.To.Whole() && match.Match(s.Pattern(), e.Type)
}

// sub is the subscription with this number.
func (f *Feed) sub(n uint32) *Sub {
	if n == 0 {
		return &f.first
	}
	return (*f.more)[n-1]
}

// numbered goes through the subscriptions, which may be removed meanwhile.
func (f *Feed) numbered(yield func(uint32, *Sub) bool) {
	if f.first.place != 0 && !yield(0, &f.first) {
		return
	}
	for i := 0; f.more != nil && i < len(*f.more); i++ {
		if sub := (*f.more)[i]; sub != nil && !yield(uint32(i)+1, sub) {
			return
		}
	}
}

// Subs goes through the feed's subscriptions, which may be removed meanwhile.
func (f *Feed) Subs(yield func(*Sub) bool) {
	if f.first.place != 0 && !yield(&f.first) {
		return
	}
	for i := 0; f.more != nil && i < len(*f.more); i++ {
		if sub := (*f.more)[i]; sub != nil && !yield(sub) {
			return
		}
	}
}

// Find is the subscription to the pattern with this subject, or nil.
func (f *Feed) Find(p carillon.Pattern, subject string) *Sub {
	for sub := range f.Subs {
		if sub.Pattern() == p && sub.Subject() == subject {
			return sub
		}
	}
	return nil
}

// Count is how many subscriptions there are.
func (f *Feed) Count() (n int) {
	for range f.Subs {
		n++
	}
	return n
}

// vacant is memory for a subscription, and its number.
func (f *Feed) vacant() (*Sub, uint32) {
	if f.first.place == 0 {
		return &f.first, 0
	}
	if f.more == nil {
		f.more = new([]*Sub)
	}
	i := slices.Index(*f.more, nil)
	if i < 0 {
		i = len(*f.more)
		*f.more = append(*f.more, nil)
	}
	sub := new(Sub)
	(*f.more)[i] = sub
	return sub, uint32(i) + 1
}

// end takes a subscription out of its node.
func (f *Feed) end(sub *Sub, n uint32) {
	f.unlist(sub.node, n, sub.place)
	sub.place = 0
	f.realm().release(sub.node)
}

// list puts a subscription on the list of its node.
func (f *Feed) list(n *node, number uint32) (place uint32) {
	return uint32(f.realm().enter(n, refOf(f.number, f.shard().id, number))) + 1
}

// unlist takes it off.
func (f *Feed) unlist(n *node, number, place uint32) {
	s := f.shard()
	moved := f.realm().leave(n, s.id, int(place)-1)
	if moved == 0 || moved == refOf(f.number, s.id, number) {
		return
	}
	other := s.feeds.get(moved.feed())
	if moved.sub() == inboxSub {
		other.inboxAt = place
	} else {
		other.sub(moved.sub()).place = place
	}
}

// For says whose feed it is, once it is open; "" is nobody's.
func (f *Feed) For(user string) { f.user = user }

// User is who For said, or "".
func (f *Feed) User() string { return f.user }

// name is User, for the directory of the inboxes.
func (f *Feed) name() string { return f.user }

// inbox is what names the feed's inbox.
func (f *Feed) inbox() ref { return refOf(f.number, f.shard().id, inboxSub) }

// OpenInbox has what is sent to the user by name come too, after where the feed
// stands. It is never refused.
func (f *Feed) OpenInbox() {
	if f.user == "" || f.inboxAt != 0 {
		return
	}
	f.inboxAt = 1
	if n := f.realm().openInbox(f); n != nil {
		f.inboxAt = f.list(n, inboxSub)
	}
	f.begun(f.Seq())
}

func (f *Feed) closeInbox() {
	if n := f.realm().closeInbox(f); n != nil {
		f.unlist(n, inboxSub, f.inboxAt)
		f.realm().releaseInbox(n)
	}
	f.inboxAt = 0
}

// owns reports whether the feed, which a node of an entry's user names, is that user's.
// It may be nil, or one that has taken over the number: see nodeOf.
func (f *Feed) owns(n *node, e *carillon.Entry) bool {
	return f != nil && f.inboxAt != 0 && f.user == n.text && f.m.Org() == e.Org
}

// Add makes a subscription that begins after the sequence start. It fails when
// the organization has too many kinds of wildcard patterns.
func (f *Feed) Add(p carillon.Pattern, subject string, o carillon.Overflow, start uint64) (*Sub, error) {
	n, err := f.realm().pattern(p)
	if err != nil {
		f.shard().stats.TooManyShapes++
		return nil, err
	}
	sub, number := f.vacant()
	*sub = Sub{node: n, start: start, overflow: o}
	if subject != "" {
		sub.apart = &apart{strings.Clone(subject), start} // not all that it is part of
	}
	sub.place = f.list(n, number)
	f.lenient = f.lenient || o != carillon.OverflowReplay
	f.begun(start)
	return sub, nil
}

// begun is called when there is something more that the feed wants, after start.
func (f *Feed) begun(start uint64) {
	if f.busy != nil {
		f.busy.late = nil
	}
	f.catchUp()
	f.lookAgain(start)
}

// Remove ends a subscription: from now on nothing comes that only it wanted.
func (f *Feed) Remove(sub *Sub) {
	if sub.place == 0 {
		return
	}
	if sub == &f.first {
		f.end(sub, 0)
	} else {
		i := slices.Index(*f.more, sub)
		f.end(sub, uint32(i)+1)
		(*f.more)[i] = nil
		for len(*f.more) > 0 && (*f.more)[len(*f.more)-1] == nil {
			*f.more = (*f.more)[:len(*f.more)-1]
		}
		if len(*f.more) == 0 {
			f.more = nil
		}
	}
	f.judgeAnew()
	f.sift()
	f.siftAside(func(d *Delivery) bool { return !f.hears(d.Entry) })
}

// Restart has a subscription begin anew, after the sequence start.
func (f *Feed) Restart(sub *Sub, start uint64) {
	sub.start = start
	sub.setSince(start)
	if f.busy != nil {
		f.busy.late = nil
	}
	f.sift()
	f.lookAgain(start)
}

// lookAgain is called when a subscription begins after start: a live feed has not
// been offered what the shard has handled already and only it wants, and so reads
// the ring from where it stands.
func (f *Feed) lookAgain(start uint64) {
	if f.live && start < f.here().pos.Seq {
		f.fallBehind()
	}
}
