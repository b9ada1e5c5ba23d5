package loop

import (
	"net"
	"time"
)

// Session is who a Link carries bytes for. Its methods do not block.
type Session interface {
	// Pull appends to dst what is to be written next, as for a Port.
	Pull(dst [][]byte) (bufs [][]byte, last bool)

	// Input takes bytes that the peer sent. They are the link's: what is kept of
	// them is copied. It returns how many it has taken; with less than all it is
	// given the rest again when it asks with Link.More.
	Input(b []byte) (taken int)

	// Alarm has Link.Alarm called at a time, instead of any time before; with the
	// zero time never.
	Alarm(at time.Time)

	// Now is the time of the current turn.
	Now() time.Time

	// Gone says that the connection has ended. Nothing else is called after it.
	Gone()
}

// Link is a connection of a loop: what Port and Socket together are elsewhere.
// Everything happens on the loop's goroutine. The zero value is one not opened yet.
type Link struct {
	loop    *Loop
	owner   Session
	pending *pending // nil: nothing is under way

	fd     int32 // -1: none any more
	slot   uint32
	armed  uint16 // events
	queued bool   // it is in loop.again
	last   bool   // the last bytes are on their way, or out
	shut   bool   // and our direction is ended
	idle   bool   // input is not asked for
	over   bool
}

// pending is what a link keeps while its owner, or its peer, does not take it. An idle
// link has none.
type pending struct {
	input []byte // the owner has not taken it yet

	rest   [][]byte // what the socket did not take; it may begin in the middle of a buffer
	bytes  int      // of that
	behind int      // bytes of the socket that the peer had not taken when it was last looked at
}

// Open takes the descriptor, which came from Adopt, into the loop, with what was
// read from it before.
func (k *Link) Open(l *Loop, fd int, before []byte, owner Session) {
	k.owner = owner
	if l.add(k, fd) != nil {
		k.end()
		return
	}
	if k.keep(before); len(before) > 0 {
		k.More()
	}
	k.Ready()
}

// Kept is input that the owner has not taken yet.
func (k *Link) Kept() []byte {
	if k.pending == nil {
		return nil
	}
	return k.pending.input
}

// keep makes b, and nothing else, the input that the owner has not taken yet.
func (k *Link) keep(b []byte) {
	if len(b) > 0 {
		k.need().input = b
	} else if k.pending != nil {
		k.pending.input = nil // so that its memory can go
		k.tidy()
	}
}

// need is k.pending, made if need be.
func (k *Link) need() *pending {
	if k.pending == nil {
		k.pending = new(pending)
	}
	return k.pending
}

// tidy lets pending go when there is nothing in it.
func (k *Link) tidy() {
	if p := k.pending; p.input == nil && p.rest == nil {
		k.pending = nil
	}
}

// Inherit takes the connection of another link of the same loop, with what was
// read from it before. The other link is over, and its owner hears nothing.
func (k *Link) Inherit(from *Link, before []byte, owner Session) {
	k.owner = owner
	from.over, from.pending = true, nil
	from.move(k)
	k.keep(before)
	k.listen(true)
	if len(before) > 0 {
		k.Again()
	}
}

// Leave gives the connection to Go, and ends the link without a word to its owner.
func (k *Link) Leave() (net.Conn, error) {
	k.over = true
	k.keep(nil)
	return k.release()
}

// Blocked reports whether something is kept that the socket did not take.
func (k *Link) Blocked() bool { return k.pending != nil && k.pending.rest != nil }

// Ready says that Pull has something.
func (k *Link) Ready() {
	if k.over || k.last || k.Blocked() {
		return
	}
	bufs, last := k.owner.Pull(k.loop.bufs[:0])
	k.last = last
	if len(bufs) > 0 {
		if err := k.write(bufs); err != nil {
			k.end()
			return
		}
	}
	switch {
	case k.Blocked():
		k.await()
	case last:
		k.finish()
	}
}

// Waiting reports whether the link waits for its peer to take something, or to
// end.
func (k *Link) Waiting() bool { return k.shut || k.Blocked() }

// Over reports whether the connection has ended.
func (k *Link) Over() bool { return k.over }

// finish ends our direction once everything is out.
func (k *Link) finish() {
	if k.shut {
		return
	}
	k.shut = true
	if k.shutdown() != nil {
		k.end()
		return
	}
	k.keep(nil)
	k.idle = false
	k.listen(true)
	k.owner.Alarm(k.owner.Now().Add(k.loop.all.linger()))
}

// writable is called when everything that was kept for the socket is out.
func (k *Link) writable() {
	k.owner.Alarm(time.Time{})
	if k.last {
		k.finish()
		return
	}
	k.Ready()
}

// await gives the peer time to take something.
func (k *Link) await() { k.owner.Alarm(k.owner.Now().Add(k.loop.all.writeTimeout())) }

// Alarm is called by the owner: the peer has taken nothing for too long, or not
// ended.
func (k *Link) Alarm() {
	switch {
	case k.over:
	case k.shut:
		k.end()
	case k.Blocked() && k.Moved():
		k.await()
	case k.Blocked():
		k.end()
	}
}

// readable is called when the socket has something, or the peer's end.
func (k *Link) readable() {
	if k.over {
		return
	}
	if len(k.Kept()) > 0 {
		k.More()
		return
	}
	if k.idle {
		return
	}
	b := k.loop.buf
	n, err := k.read(b)
	if err != nil {
		k.end()
		return
	}
	k.keep(append([]byte(nil), k.give(b[:n])...)) // b is the loop's
}

// More gives the owner what it did not take, and then what comes.
func (k *Link) More() {
	if k.over {
		return
	}
	b := k.Kept()
	k.keep(nil)
	k.keep(k.give(b))
}

// give returns what the owner did not take.
func (k *Link) give(b []byte) (rest []byte) {
	if k.shut { // nobody wants it any more
		return nil
	}
	n := 0
	if len(b) > 0 {
		n = k.owner.Input(b)
	}
	if k.over {
		return nil
	}
	k.ask(n == len(b))
	if n == len(b) {
		return nil // so that its memory can go
	}
	return b[n:]
}

// ask listens to the socket, or not, as the owner takes what there is.
func (k *Link) ask(on bool) {
	if k.idle == on {
		k.idle = !on
		k.listen(on)
	}
}

// Abort ends the connection now.
func (k *Link) Abort() { k.end() }

func (k *Link) end() {
	if k.over {
		return
	}
	k.over = true
	k.keep(nil)
	k.close()
	k.owner.Alarm(time.Time{})
	k.owner.Gone()
}
