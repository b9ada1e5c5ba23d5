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
// Everything happens on the loop's goroutine.
type Link struct {
	Conn

	owner Session
	all   *Sockets
	kept  []byte // input that was not taken yet
	last  bool   // the last bytes are on their way, or out
	shut  bool   // and our direction is ended
	idle  bool   // input is not asked for
	over  bool
}

// Open takes the descriptor, which came from Adopt, into the loop, with what was
// read from it before. It is held to the deadlines of all, and not one of them.
func (k *Link) Open(l *Loop, fd int, before []byte, owner Session, all *Sockets) {
	k.owner, k.all, k.kept = owner, all, before
	if l.Add(&k.Conn, fd, k) != nil {
		k.end()
		return
	}
	if len(k.kept) > 0 {
		k.More()
	}
	k.Ready()
}

// Kept is input that the owner has not taken yet.
func (k *Link) Kept() []byte { return k.kept }

// Inherit takes the connection of another link of the same loop, with what was
// read from it before. The other link is over, and its owner hears nothing.
func (k *Link) Inherit(from *Link, before []byte, owner Session) {
	k.owner, k.all, k.kept = owner, from.all, before
	from.over, from.kept = true, nil
	from.Move(&k.Conn, k)
	k.Listen(true)
	if len(k.kept) > 0 {
		k.Again()
	}
}

// Leave gives the connection to Go, and ends the link without a word to its owner.
func (k *Link) Leave() (net.Conn, error) {
	k.over, k.kept = true, nil
	return k.Conn.Leave()
}

// Ready says that Pull has something.
func (k *Link) Ready() {
	if k.over || k.last || k.Blocked() {
		return
	}
	bufs, last := k.owner.Pull(k.Buffers())
	k.last = last
	if len(bufs) > 0 {
		if err := k.Write(bufs); err != nil {
			k.Broken()
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
	if k.Shut() != nil {
		k.end()
		return
	}
	k.kept = nil
	k.idle = false
	k.Listen(true)
	k.owner.Alarm(k.owner.Now().Add(k.all.linger()))
}

// Writable is called by the loop.
func (k *Link) Writable() {
	k.owner.Alarm(time.Time{})
	if k.last {
		k.finish()
		return
	}
	k.Ready()
}

// Progress is called by the loop.
func (k *Link) Progress() { k.await() }

// await gives the peer time to take something.
func (k *Link) await() { k.owner.Alarm(k.owner.Now().Add(k.all.writeTimeout())) }

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

// Readable is called by the loop.
func (k *Link) Readable() {
	if k.over {
		return
	}
	if len(k.kept) > 0 {
		k.More()
		return
	}
	if k.idle {
		return
	}
	b := k.Buffer()
	n, err := k.Read(b)
	if err != nil {
		k.end()
		return
	}
	k.kept = append([]byte(nil), k.give(b[:n])...) // b is the loop's
}

// More gives the owner what it did not take, and then what comes.
func (k *Link) More() {
	if k.over {
		return
	}
	b := k.kept
	k.kept = nil
	k.kept = k.give(b)
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
		k.Listen(on)
	}
}

// Broken is called by the loop.
func (k *Link) Broken() { k.end() }

// Abort ends the connection now.
func (k *Link) Abort() { k.end() }

func (k *Link) end() {
	if k.over {
		return
	}
	k.over = true
	k.kept = nil
	k.Close()
	k.owner.Alarm(time.Time{})
	k.owner.Gone()
}
