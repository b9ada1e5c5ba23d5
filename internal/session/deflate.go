package session

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// maxDeflaters bounds the compressors of a node: each keeps about 1 MB.
const maxDeflaters = 8

// scratchKept is how much memory one of them keeps for what it compresses.
const scratchKept = 256 << 10

// deflaters compress the events of a node, each once for all connections that
// agreed to it. A shard that wants one while another shard compresses it waits for
// that: it would take no less time by itself.
type deflaters struct {
	from int // bytes of an event's JSON
	all  []deflater

	frames, plain atomic.Uint64 // made smaller, and not
	before, after atomic.Uint64 // bytes of those made smaller
}

type deflater struct {
	mu      sync.Mutex // guards what follows; held for a compression, and nothing else
	z       wire.Deflater
	scratch []byte
}

// newDeflaters returns nil if there is to be no compression.
func newDeflaters(from int) *deflaters {
	if from <= 0 {
		return nil
	}
	return &deflaters{from: from, all: make([]deflater, min(runtime.GOMAXPROCS(0), maxDeflaters))}
}

// text is the event's text frame for a connection that agreed to compression.
func (z *deflaters) text(d *hub.Delivery, ids *wire.IDs) []byte {
	if b := d.Encoding(formDeflated); len(b) > 0 {
		return b
	} else if b != nil { // it is not smaller
		return eventText(d, ids)
	}
	if b := d.Encoding(formText); b != nil && len(wire.TextPayload(b)) < z.from {
		return b
	}
	if d.Entry.Size() < z.from { // its JSON is smaller
		return eventText(d, ids)
	}
	return z.all[d.Entry.Pos.Seq%uint64(len(z.all))].text(z, d, ids)
}

func (f *deflater) text(z *deflaters, d *hub.Delivery, ids *wire.IDs) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := d.Encoding(formDeflated); len(b) > 0 {
		return b // somebody was faster
	} else if b != nil {
		return eventText(d, ids)
	}
	var js []byte
	if b := d.Encoding(formText); b != nil {
		js = wire.TextPayload(b)
	} else { // it is not made to be kept: nobody may need it
		js = wire.AppendEvent(f.scratch[:0], ids, d.Entry)
		if f.scratch = js; cap(js) > scratchKept {
			f.scratch = nil
		}
	}
	if len(js) < z.from {
		return eventText(d, ids)
	}
	small := f.z.Text(js)
	if small == nil {
		z.plain.Add(1)
		d.Remember(formDeflated, []byte{})
		return eventText(d, ids)
	}
	z.frames.Add(1)
	z.before.Add(uint64(len(js)))
	z.after.Add(uint64(len(small)))
	return d.Remember(formDeflated, small)
}

// inflated counts the compressed messages of clients.
type inflated struct{ messages, bytes, sent, bombs, corrupt atomic.Uint64 }

// Inflated counts a client's compressed message, and its bytes as they are and as
// they were sent.
func (c *Core) Inflated(bytes, sent int) {
	n := &c.stats.inflated
	n.messages.Add(1)
	n.bytes.Add(uint64(bytes))
	n.sent.Add(uint64(sent))
}

// Uninflated counts one that was refused: it became too large (a bomb), or was no
// deflate data.
func (c *Core) Uninflated(bomb bool) {
	if bomb {
		c.stats.inflated.bombs.Add(1)
	} else {
		c.stats.inflated.corrupt.Add(1)
	}
}
