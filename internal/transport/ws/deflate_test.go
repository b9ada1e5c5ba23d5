package ws

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	kp "github.com/klauspost/compress/flate"

	"github.com/carillon-rt/carillon/internal/wire"
)

func TestTheFirstOfferThatCanBeKeptIsTaken(t *testing.T) {
	const window = deflateAnswer + windowAnswer
	for _, row := range []struct {
		offered []string
		want    string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"permessage-deflate"}, deflateAnswer},
		{[]string{"permessage-deflate; client_max_window_bits"}, deflateAnswer}, // browsers
		{[]string{"permessage-deflate; client_no_context_takeover; server_no_context_takeover"}, deflateAnswer},
		{[]string{"permessage-deflate;client_max_window_bits=8", "x"}, deflateAnswer},
		{[]string{`permessage-deflate ; client_max_window_bits = "15"`}, deflateAnswer},
		{[]string{`permessage-deflate; client_max_window_bits="1\5"`}, deflateAnswer},
		{[]string{"permessage-deflate; server_max_window_bits=15"}, window},
		{[]string{`permessage-deflate; server_max_window_bits="15"`}, window},

		// Offers that are declined, alone.
		{[]string{"permessage-deflate; server_max_window_bits=14"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits=8"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits=16"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits=015"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits=7"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits=16"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits=09"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits; client_max_window_bits"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits; client_max_window_bits=15"}, ""},
		{[]string{"permessage-deflate; server_no_context_takeover; server_no_context_takeover"}, ""},
		{[]string{"permessage-deflate; server_no_context_takeover=1"}, ""},
		{[]string{"permessage-deflate; client_no_context_takeover=true"}, ""},
		{[]string{"permessage-deflate; mux"}, ""},
		{[]string{"permessage-deflate; Server_No_Context_Takeover"}, ""},
		{[]string{"x-webkit-deflate-frame, permessage-bzip2; client_max_window_bits"}, ""},

		// And with others.
		{[]string{"permessage-deflate; server_max_window_bits=10, permessage-deflate; client_max_window_bits"}, deflateAnswer},
		{[]string{"permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=15"}, window},
		{[]string{"permessage-deflate; mux, x, permessage-deflate"}, deflateAnswer},
		{[]string{"permessage-deflate; server_max_window_bits=15, permessage-deflate"}, window},
		{[]string{" ,\t, x; a; b=c; d=\"e\" ,permessage-deflate,, "}, deflateAnswer},
	} {
		if got, err := agree(row.offered); got != row.want || err != nil {
			t.Errorf("%q: %q, %v, want %q", row.offered, got, err, row.want)
		}
	}
	for _, broken := range []string{
		";", "=", "x y", "permessage-deflate; ", "permessage-deflate;;x", "permessage-deflate, x;", "x; a=", "x; =a", "x; a=b=c",
		`x; a="b`, `x; a=""`, `x; a="b c"`, `x; a="b\`, `x; a="b"c`, "permessage-deflate/1", "\x00", "é",
	} {
		if got, err := agree([]string{"permessage-deflate", broken}); got != "" || err == nil {
			t.Errorf("%q: %q, %v, want an error", broken, got, err)
		}
	}
}

// Several headers are one list.
func FuzzOffers(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits", "permessage-deflate; server_max_window_bits=15")
	f.Add(`x; a="b\c"`, ", permessage-deflate")
	f.Add("permessage-deflate; server_max_window_bits=10", "permessage-deflate")
	f.Fuzz(func(t *testing.T, a, b string) {
		one, errOne := agree([]string{a})
		other, errOther := agree([]string{b})
		want := one
		if want == "" {
			want = other
		}
		for _, list := range [][]string{{a, b}, {"", a, " ", b}} {
			switch got, err := agree(list); {
			case (err != nil) != (errOne != nil || errOther != nil):
				t.Fatalf("%q: %v, apart %v and %v", list, err, errOne, errOther)
			case err == nil && got != want:
				t.Fatalf("%q: %q, apart %q and %q", list, got, one, other)
			}
		}
		if got, err := agree([]string{a + "," + b}); errOne == nil && errOther == nil && (got != want || err != nil) {
			t.Fatalf("%q and %q in one: %q, %v, apart %q and %q", a, b, got, err, one, other)
		}
	})
}

// packed is deflate data of a client.
func packed(says string) []byte { return pack(says, 6, false) }

// pack makes deflate data with the standard library; final sets BFINAL in its
// last block of content.
func pack(says string, level int, final bool) []byte {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, level)
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(z, says) // a buffer takes everything
	if final {
		_ = z.Close()
		return append(b.Bytes(), 0) // the header of an empty block
	}
	_ = z.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

func TestWhatIsInflated(t *testing.T) {
	const most = 1000
	long := strings.Repeat("a", most)
	streams := func(n int, more []byte) []byte { return append(bytes.Repeat([]byte{3, 0}, n), more...) }
	for name, row := range map[string]struct {
		packed []byte
		want   string
		err    error
	}{
		// RFC 7692, section 7.2.3.
		"one block":           {[]byte{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}, "Hello", nil},
		"a stored block":      {[]byte{0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00}, "Hello", nil},
		"the last of all":     {[]byte{0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00}, "Hello", nil},
		"two blocks":          {[]byte{0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00}, "Hello", nil},
		"an empty message":    {[]byte{0x00}, "", nil},
		"fixed and empty":     {[]byte{0x02, 0x00}, "", nil},
		"less than that":      {nil, "", nil},
		"the last, unended":   {[]byte{0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}, "Hello", nil},
		"the last, then more": {append(pack("Hel", 9, true)[:len(pack("Hel", 9, true))-1], packed("lo")...), "Hello", nil},
		"many streams":        {streams(100, packed("x")), "x", nil},

		"as long as it may be": {packed(long), long, nil},
		"a byte longer":        {packed(long + "a"), "", errBomb},
		"much longer":          {packed(strings.Repeat(long, 1000)), "", errBomb},
		"longer in two":        {append(pack(long, 9, true), pack("a", 9, true)...), "", errCorrupt}, // 0 ends the first
		"nothing of the kind":  {[]byte("{\"type\":\"ping\"}"), "", errCorrupt},
		"a reserved block":     {[]byte{0x06}, "", errCorrupt},
		"cut":                  {packed("Hello, hello, hello")[:5], "", errCorrupt},
		"from nowhere":         {[]byte{0x62, 0x00, 0x11}, "", errCorrupt},
	} {
		if got, err := inflate(row.packed, most); string(got) != row.want || !errors.Is(err, row.err) {
			t.Errorf("%s: %q, %v, want %q, %v", name, got, err, row.want, row.err)
		}
	}
}

// A message that repeats something, in a block without a code for how far back, is
// no deflate data, whatever was read before it: the code of another client's message
// is not taken instead.
func TestAnInflaterKeepsNothingOfAMessage(t *testing.T) {
	var w bits
	w.put(0, 1)  // not the last
	w.put(2, 2)  // dynamic
	w.put(1, 5)  // 258 literals and lengths
	w.put(0, 5)  // 1 distance
	w.put(14, 4) // 18 code lengths
	lengths := map[int]uint{18: 1, 1: 2, 0: 3, 2: 3}
	for _, sym := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1} {
		w.put(lengths[sym], 3)
	}
	zeros := func(n uint) { w.put(0, 1); w.put(n-11, 7) }
	zeros(97)
	w.put(7, 3) // 'a' has two bits,
	zeros(138)
	zeros(20)
	w.put(7, 3) // the end of the block two,
	w.put(1, 2) // a length of 3 one,
	w.put(3, 3) // a distance none
	for range 2000 {
		w.put(1, 2) // 'a'
	}
	w.put(0, 1)  // and three more of what was
	w.put(0, 15) // so far back,
	w.put(3, 2)  // and the end of the block

	for range 100 { // a pool need not give what it was given
		if _, err := inflate(packed(strings.Repeat("abc", 100)+noise(1000)), 2000); err != nil {
			t.Fatal(err)
		}
		if got, err := inflate(w.out, 2000); !errors.Is(err, errCorrupt) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
}

// noise is text that needs codes of its own.
func noise(n int) string {
	r, b := rand.New(rand.NewPCG(1, 1)), make([]byte, n)
	for i := range b {
		b[i] = "aabbbccdefghijklmnopqrst"[r.IntN(24)]
	}
	return string(b)
}

// What is inflated is what a reader inflates that has read nothing before, and what
// another implementation does.
func FuzzInflate(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 1000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for _, says := range []string{"", "Hello", strings.Repeat("ab", 40_000), string(noise), `{"type":"publish","event":{"type":"a.b","data":{"n":1}}}`} {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 9} {
			f.Add(pack(says, level, false), uint32(1<<20))
			f.Add(pack(says, level, true), uint32(len(says)))
			f.Add(pack(says, level, false), uint32(len(says)-1))
		}
	}
	f.Add(append(pack("one", 9, true), pack("two", 9, false)...), uint32(100))
	f.Add([]byte{3, 0, 3, 0, 0}, uint32(0))
	var d wire.Deflater // each frame of which stands for itself
	f.Fuzz(func(t *testing.T, packed []byte, most uint32) {
		most %= 1 << 20
		kept := bytes.Clone(packed)
		got, err := inflate(packed, int(most))
		want, wantErr := oracle(packed, int(most), flate.NewReader)
		if !bytes.Equal(packed, kept) {
			t.Fatal("it changed what it was given")
		}
		if !errors.Is(err, wantErr) || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v; a new reader inflates %d, %v", len(got), err, len(want), wantErr)
		}
		if err == nil { // what is wrong the other one does not always see
			if want, wantErr = oracle(packed, int(most), kp.NewReader); wantErr != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes; another one inflates %d, %v", len(got), len(want), wantErr)
			}
		}
		frame := d.Text(packed)
		if frame == nil {
			return
		}
		if got, err := inflate(wire.TextPayload(frame), len(packed)); err != nil || !bytes.Equal(got, packed) {
			t.Fatalf("%v for what the server compresses", err)
		}
	})
}

// oracle inflates with new readers.
func oracle(packed []byte, most int, newReader func(io.Reader) io.ReadCloser) (out []byte, err error) {
	if len(packed) == 0 {
		return nil, nil
	}
	in := bytes.NewReader(append(bytes.Clone(packed), deflateTail...))
	for {
		some, err := io.ReadAll(io.LimitReader(newReader(in), int64(most+1-len(out))))
		out = append(out, some...)
		switch {
		case len(out) > most:
			return nil, errBomb
		case err != nil:
			return nil, errCorrupt
		case in.Len() == 0 || in.Len() == len(deflateTail):
			return out, nil
		}
	}
}

// The worst that can be inflated on a shard, and in a place.
func BenchmarkInflate(b *testing.B) {
	blocks := func(n int) []byte { // dynamic ones, each with a code of its own and nothing in it
		one := emptyDynamic()
		return bytes.TrimSuffix(bytes.Repeat(one, n/len(one)), []byte("\x00\x00\xff\xff"))
	}
	for _, row := range []struct {
		name   string
		packed []byte
	}{
		{"a short message", packed(`{"type":"publish","event":{"type":"orders.paid","data":{"order":123,"amount":45.67}},"ref":1}`)},
		{"4 KiB", packed(strings.Repeat(`{"type":"ping"},`, 256))},
		{"512 B of blocks", blocks(512)},
		{"512 B of streams", bytes.Repeat([]byte{3, 0}, 256)},
		{"1 MiB of one letter", packed(strings.Repeat("a", 1<<20))},
		{"1 MiB of blocks", blocks(1 << 20)},
		{"1 MiB of streams", bytes.Repeat([]byte{3, 0}, 1<<19)},
	} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				out, err := inflate(row.packed, 1<<20)
				if err != nil {
					b.Fatal(err)
				}
				n = len(out)
			}
			b.ReportMetric(float64(n), "bytes")
		})
	}
}

// emptyDynamic is a block with dynamic codes that ends at once, followed by an
// empty stored one, so that it can be repeated.
func emptyDynamic() []byte {
	var w bits
	w.put(0, 1)  // not the last
	w.put(2, 2)  // dynamic
	w.put(0, 5)  // 257 literals
	w.put(0, 5)  // 1 distance
	w.put(14, 4) // 18 code lengths
	lengths := map[int]uint{18: 1, 1: 2, 0: 2}
	for _, sym := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1} {
		w.put(lengths[sym], 3)
	}
	// Codes: 18 is 0; 0 is 10, 1 is 11 (the first bit first).
	for _, zeros := range []uint{138, 117} { // a code for literal 255, and the end of the block
		w.put(0, 1)
		w.put(zeros-11, 7)
	}
	w.put(3, 2) // literal 255: one bit
	w.put(3, 2) // the end of the block: one bit
	w.put(1, 2) // distance 0: none
	w.put(1, 1) // the end of the block
	w.put(0, 3) // a stored block
	return append(w.bytes(), 0, 0, 0xff, 0xff)
}

type bits struct {
	out []byte
	n   int
}

func (w *bits) put(v uint, n int) {
	for i := range n {
		if w.n%8 == 0 {
			w.out = append(w.out, 0)
		}
		w.out[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
}

func (w *bits) bytes() []byte { return w.out }
