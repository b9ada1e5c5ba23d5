package loop

import "sync"

// Owner is who a port writes for.
type Owner interface {
	// Pull appends to dst what is to be written next. The bytes stay as they
	// are until they are written. last says that nothing follows. It is called
	// on the owner's goroutine and does not block.
	Pull(dst [][]byte) (bufs [][]byte, last bool)

	// Post runs f on the owner's goroutine. It may be called from anywhere and
	// does not block.
	Post(f func())

	// Due asks for a turn: the owner calls Ready when the port's turn has come.
	// It is called on the owner's goroutine.
	Due()
}

// Writer is where the bytes of a port go. Its methods are called one at a time.
type Writer interface {
	// WriteAll writes all of bufs, or returns an error. It may change bufs, but
	// not the bytes. A reader that takes some bytes is waited for; one that
	// takes none for some time is an error.
	WriteAll(bufs [][]byte) error

	// Finish ends the connection after the last bytes were written.
	Finish()

	// Abort ends it after an error.
	Abort()
}

// Port is the sending side of a connection. Init it before use.
type Port struct {
	// Set once.
	owner  Owner
	writer Writer
	run    func(func()) // nil: a goroutine each time
	flush  func()
	done   func()

	// Owned by the owner's goroutine.
	writing bool
	over    bool

	// Owned by the writing goroutine while writing, by the owner's otherwise.
	bufs *[][]byte
	last bool
	err  error
}

// Init sets the port up. run, if not nil, runs a function on the goroutine that
// may write; it must not block, and gets one function at a time.
func (p *Port) Init(owner Owner, writer Writer, run func(func())) {
	p.owner, p.writer, p.run = owner, writer, run
	p.flush, p.done = p.write, p.written
}

// Ready says that Pull has something. It is called on the owner's goroutine.
// What a writing port is not told it asks for when it has written.
func (p *Port) Ready() {
	if !p.writing && !p.over {
		p.next()
	}
}

// Over reports whether the port has written its last, or failed. On the owner's
// goroutine.
func (p *Port) Over() bool { return p.over }

func (p *Port) next() {
	if p.bufs == nil {
		p.bufs = spare.Get().(*[][]byte)
	}
	*p.bufs, p.last = p.owner.Pull((*p.bufs)[:0])
	if len(*p.bufs) == 0 && !p.last {
		p.release()
		return
	}
	p.writing = true
	if p.run != nil {
		p.run(p.flush)
		return
	}
	go p.flush()
}

// write writes what was pulled, on the goroutine that may.
func (p *Port) write() {
	if len(*p.bufs) > 0 {
		p.err = p.writer.WriteAll(*p.bufs)
	}
	switch {
	case p.err != nil:
		p.writer.Abort()
	case p.last:
		p.writer.Finish()
	}
	p.owner.Post(p.done)
}

// written goes on, on the owner's goroutine.
func (p *Port) written() {
	p.writing = false
	if p.err != nil || p.last {
		p.over = true
		p.release()
		return
	}
	p.owner.Due()
}

// spare holds lists of buffers, so that idle ports hold none.
var spare = sync.Pool{New: func() any { return new([][]byte) }} //nolint:gochecknoglobals // a pool is shared by nature

func (p *Port) release() {
	clear((*p.bufs)[:cap(*p.bufs)])
	spare.Put(p.bufs)
	p.bufs = nil
}
