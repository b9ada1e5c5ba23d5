package ws

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/internal/wire"
)

const (
	// smallPacked and smallMessage are how long a compressed message, and what it
	// says, may be to be inflated on a shard: a turn of them takes no longer than
	// one of messages that came plain. All others wait for one of a few places, on
	// goroutines of their own.
	smallPacked  = 512
	smallMessage = 4 << 10

	// scratchKept is how much memory an inflater keeps for what it reads.
	scratchKept = 64 << 10
)

// DefaultInflating is how many compressed messages are inflated at the same time,
// beside short ones.
const DefaultInflating = 4

var (
	errBomb    = errors.New("ws: the message is too large, inflated")
	errCorrupt = errors.New("ws: not deflate data")
)

// deflateTail is what a message is read with: the end of its last block, which it
// comes without (RFC 7692, section 7.2.2), and a last block for the reader.
const deflateTail = "\x00\x00\xff\xff" + lastBlock

const lastBlock = "\x01\x00\x00\xff\xff"

// inflater reads deflate data. It takes about 45 KB, so that idle connections have
// none. Its reader is the standard library's: that of klauspost/compress, when it is
// used again, takes the codes of the message before for those that one lacks.
type inflater struct {
	z       io.ReadCloser
	in      bytes.Reader
	scratch []byte
}

var inflaters = sync.Pool{New: func() any { return &inflater{z: flate.NewReader(bytes.NewReader(nil))} }} //nolint:gochecknoglobals // a pool is shared by nature

// inflate returns what a compressed message says, or errBomb if that is more than
// most bytes, or errCorrupt. It keeps nothing of packed.
func inflate(packed []byte, most int) ([]byte, error) {
	if len(packed) == 0 { // strictly no deflate data, but what else could it be
		return []byte{}, nil
	}
	f := inflaters.Get().(*inflater)
	defer f.free()
	f.scratch = append(append(f.scratch[:0], packed...), deflateTail...)
	f.in.Reset(f.scratch)
	out := make([]byte, 0, min(most+1, max(256, 4*len(packed))))
	for {
		// A block may be the last of its stream; the next one begins with a new
		// byte (RFC 7692, section 7.2.3.4).
		if f.z.(flate.Resetter).Reset(&f.in, nil) != nil {
			return nil, errCorrupt
		}
		var err error
		if out, err = f.read(out, most); err != nil {
			return nil, err
		}
		switch f.in.Len() {
		case 0, len(deflateTail): // of which the last block needs none
			return out, nil
		}
	}
}

// read appends what one stream says.
func (f *inflater) read(out []byte, most int) ([]byte, error) {
	for {
		if len(out) == cap(out) {
			out = slices.Grow(out, min(len(out), most+1-len(out)))
		}
		n, err := f.z.Read(out[len(out):cap(out)])
		switch out = out[:len(out)+n]; {
		case len(out) > most:
			return nil, errBomb
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, errCorrupt
		}
	}
}

// free gives the inflater back, without what it has read.
func (f *inflater) free() {
	f.in.Reset(nil)
	if cap(f.scratch) > scratchKept {
		f.scratch = nil
	}
	inflaters.Put(f)
}

// opened is what a compressed message says. err says why it is refused.
func opened(packed []byte, binary bool, most int) (raw []byte, err error) {
	if raw, err = inflate(packed, most); err == nil && !binary && !utf8.Valid(raw) {
		err = errNotUTF8
	}
	return raw, err
}

var errNotUTF8 = errors.New("ws: " + notUTF8)

// why is how a connection is closed whose compressed message was refused.
func why(err error) (code wire.CloseCode, reason string) {
	switch {
	case errors.Is(err, errBomb):
		return wire.CloseTooBig, "the message is too large"
	case errors.Is(err, errNotUTF8):
		return wire.CloseInvalidData, notUTF8
	}
	return wire.CloseInvalidData, "not deflate data of RFC 7692"
}

// inflate is opened, counted.
func (h *handler) inflate(packed []byte, binary bool, most int) ([]byte, error) {
	raw, err := opened(packed, binary, most)
	switch {
	case err == nil, errors.Is(err, errNotUTF8):
		h.Core.Inflated(len(raw), len(packed))
	case most == h.rules.bytes, !errors.Is(err, errBomb):
		h.Core.Uninflated(errors.Is(err, errBomb))
	}
	return raw, err
}

// openSmall opens a short message. ok is false if it is none, and is to be opened
// in a place.
func (h *handler) openSmall(packed []byte, binary bool) (raw []byte, ok bool, err error) {
	if len(packed) > smallPacked {
		return nil, false, nil
	}
	most := min(smallMessage, h.rules.bytes)
	if raw, err = h.inflate(packed, binary, most); errors.Is(err, errBomb) && most < h.rules.bytes {
		return nil, false, nil
	}
	return raw, true, err
}

// place waits for one in which a message is opened and parsed; then leave gives it
// back.
func (h *handler) place() {
	select {
	case h.places <- struct{}{}:
	default:
		h.Core.Met("inflating")
		h.places <- struct{}{}
	}
}

func (h *handler) leave() { <-h.places }
