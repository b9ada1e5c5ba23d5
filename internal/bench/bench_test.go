package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHistogramQuantilesAreWithinOnePercent(t *testing.T) {
	var h, half Histogram
	rng := rand.New(rand.NewPCG(1, 2))
	var all []int64
	for i := range 100_000 {
		v := int64(math.Exp(rng.Float64() * 25))
		all = append(all, v)
		if i%2 == 0 {
			h.Record(v)
		} else {
			half.Record(v)
		}
	}
	h.Merge(&half)
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[max(0, int(math.Ceil(q*float64(len(all))))-1)]
		got := int64(h.Quantile(q))
		if got < want || float64(got) > float64(want)*1.009+1 {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	if h.Count() != 100_000 || int64(h.Max()) != all[len(all)-1] {
		t.Errorf("count %d, max %d", h.Count(), h.Max())
	}
}

func TestHistogramTakesAnything(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty histogram is not 0")
	}
	for _, v := range []int64{math.MinInt64, -1, 0, 1, 127, 128, 255, 256, math.MaxInt64} {
		h.Record(v)
	}
	if h.Quantile(1) != time.Duration(math.MaxInt64) || h.Quantile(0.01) != 0 {
		t.Errorf("quantiles %v %v", h.Quantile(1), h.Quantile(0.01))
	}
	for v := uint64(0); v < 1<<20; v += 37 {
		i := bucketOf(v)
		if v > bucketEnd(i) || i > 0 && v <= bucketEnd(i-1) {
			t.Fatalf("%d is not in bucket %d", v, i)
		}
	}
}

func TestFrameParserRefusesWhatNoServerMaySend(t *testing.T) {
	for name, frame := range map[string][]byte{
		"masked":       {0x81, 0x80, 0, 0, 0, 0},
		"reserved bit": {0xc1, 0},
		"fragment":     {0x01, 0},
		"continuation": {0x80, 0},
		"opcode 3":     {0x83, 0},
		"long ping":    {0x89, 126, 0, 200},
		"long form":    {0x81, 126, 0, 5},
		"longer form":  {0x81, 127, 0, 0, 0, 0, 0, 0, 1, 0},
		"too large":    {0x81, 127, 0, 0, 0, 0, 0x7f, 0, 0, 0},
	} {
		if _, _, size, err := parseFrame(frame); err == nil {
			t.Errorf("%s: taken, size %d", name, size)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(appendServerFrame(nil, opText, []byte(`{"type":"event"}`)))
	f.Add(appendServerFrame(nil, opText, bytes.Repeat([]byte("x"), 70_000)))
	f.Add(appendServerFrame(nil, opClose, []byte{0x0f, 0xa0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		op, payload, size, err := parseFrame(b)
		if err != nil || size == 0 {
			return
		}
		if size > len(b) || len(payload) > size {
			t.Fatalf("size %d of %d bytes, payload %d", size, len(b), len(payload))
		}
		if again := appendServerFrame(nil, op, payload); !bytes.Equal(again, b[:size]) {
			t.Fatalf("%x is not what it was read as: %x", b[:size], again)
		}
		for cut := range min(size, 200) {
			if _, _, n, err := parseFrame(b[:cut]); n != 0 || err != nil {
				t.Fatalf("the first %d bytes of %d: size %d, %v", cut, size, n, err)
			}
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"type":"event","n":7,"id":"0","event_type":"a.b","timestamp":"x","payload":{"r":"q","o":"org","l":1,"s":2,"t":3,"p":"\\\""},"subject":"s"}`))
	f.Add([]byte(` { "a" : [ {}, "]" ] , "type" : "gap" } `))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		ok := m.read(b)
		var want map[string]json.RawMessage
		if json.Unmarshal(b, &want) != nil || want == nil {
			return
		}
		if !ok {
			t.Fatalf("valid JSON was refused: %q", b)
		}
		// Keys with escapes are not ours to read; a repeated key has its last value
		// in both.
		if raw, has := want["type"]; has && !bytes.Contains(b, []byte(`\u`)) {
			if got := string(m.kind); got != string(text(raw)) {
				t.Fatalf("type %q, want %q in %q", got, text(raw), b)
			}
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, size, err := parseResponse(b, nil)
		if err == nil && (size > len(b) || len(body) > len(b)) {
			t.Fatalf("size %d, body %d of %d bytes", size, len(body), len(b))
		}
	})
}

func TestResponseIsReadWholeOrNotAtAll(t *testing.T) {
	for _, tt := range []struct{ text, body string }{
		{"HTTP/1.1 202 Accepted\r\nDate: x\r\ncontent-length: 5\r\n\r\nhello", "hello"},
		{"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "hello"},
		{"HTTP/1.1 429 Too Many Requests\r\n\r\n", ""},
	} {
		for cut := range len(tt.text) {
			if _, _, size, err := parseResponse([]byte(tt.text[:cut]), nil); size != 0 || err != nil {
				t.Fatalf("%q cut at %d: size %d, %v", tt.text, cut, size, err)
			}
		}
		h, body, size, err := parseResponse([]byte(tt.text+"HTTP"), nil)
		if err != nil || string(body) != tt.body || size != len(tt.text) || h.status/100 != 2 && h.status != 429 {
			t.Errorf("%q: %d %q %d %v", tt.text, h.status, body, size, err)
		}
	}
}

func TestHeadSaysWhenToComeBack(t *testing.T) {
	h, size, err := parseHead([]byte("HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\n\r\n"))
	if err != nil || size == 0 || h.status != 503 || h.retry != 7*time.Second {
		t.Errorf("%+v, size %d, %v", h, size, err)
	}
}

func TestChunksComeInAnyPieces(t *testing.T) {
	const text, want = "5;x=y\r\nhello\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n1\r\n!\r\n0\r\n\r\n", "helloabcdefghijklmnopqrstuvwxyz!"
	for piece := range len(text) {
		var k chunks
		var got []byte
		for rest := []byte(text); len(rest) > 0; rest = rest[min(piece+1, len(rest)):] {
			part := bytes.Clone(rest[:min(piece+1, len(rest))])
			n, _, err := k.decode(part)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, part[:n]...)
		}
		if string(got) != want || !k.over {
			t.Errorf("in pieces of %d: %q, over %t", piece+1, got, k.over)
		}
	}
	for _, bad := range []string{"g\r\n", "1\r\nab", "-1\r\n", "fffffffffff\r\n"} {
		var k chunks
		if _, _, err := k.decode([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte("hello"), uint8(2), uint8(3))
	f.Fuzz(func(t *testing.T, body []byte, chunk, piece uint8) {
		var text []byte
		for rest := body; len(rest) > 0; {
			n := min(int(chunk)+1, len(rest))
			text = fmt.Appendf(text, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		text = append(text, "0\r\n\r\n"...)
		var k chunks
		var got []byte
		for len(text) > 0 {
			n := min(int(piece)+1, len(text))
			m, _, err := k.decode(text[:n])
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, text[:m]...)
			text = text[n:]
		}
		if !bytes.Equal(got, body) || !k.over {
			t.Fatalf("%q became %q, over %t", body, got, k.over)
		}
	})
}

func TestBlocksOfAStreamAreReadWholeOrNotAtAll(t *testing.T) {
	const text = "event: carillon.gap\nid: 7\ndata: {\"type\":\"gap\"}\n\n"
	for cut := range len(text) {
		if _, size, err := parseBlock([]byte(text[:cut])); size != 0 || err != nil {
			t.Fatalf("cut at %d: size %d, %v", cut, size, err)
		}
	}
	k, size, err := parseBlock([]byte(text + "id: 8\n\n"))
	if err != nil || size != len(text) || string(k.name) != "carillon.gap" || string(k.id) != "7" || string(k.data) != `{"type":"gap"}` {
		t.Errorf("%+v, size %d, %v", k, size, err)
	}
	for _, quiet := range []string{"retry: 3000\nid: 9\n\n", ": a comment\n\n"} {
		if k, size, err := parseBlock([]byte(quiet)); err != nil || size != len(quiet) || k.data != nil || k.hasID != strings.Contains(quiet, "id") {
			t.Errorf("%q: %+v, size %d, %v", quiet, k, size, err)
		}
	}
	for _, bad := range []string{"data: a\ndata: b\n\n", "data: a\r\n\n", "nonsense\n\n", "date: 3\n\n"} {
		if _, _, err := parseBlock([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// take hands a checker the events of lane 0 with these sequence numbers.
func take(c *checker, r *receiver, seqs ...uint64) {
	for _, seq := range seqs {
		m := message{n: r.n + 1, eventType: []byte(r.stream.eventType), subject: []byte(r.stream.subject), hasMark: true}
		m.mark = mark{run: []byte(r.stream.run), org: []byte(r.stream.org), seq: seq}
		c.event(r, &m)
	}
}

func TestCheckerTellsFaultsApart(t *testing.T) {
	s := &stream{run: "run", org: "org", eventType: "a.b", subject: "s"}
	for _, tt := range []struct {
		name string
		seqs []uint64
		want Checks
	}{
		{"all", []uint64{0, 1, 2, 3}, Checks{}},
		{"a hole", []uint64{0, 2, 3}, Checks{Lost: 1}},
		{"the end missing", []uint64{0, 1}, Checks{Lost: 2}},
		{"nothing", nil, Checks{Lost: 4}},
		{"twice", []uint64{0, 1, 1, 2, 3}, Checks{Duplicated: 1}},
		{"two swapped", []uint64{0, 2, 1, 3}, Checks{Reordered: 1}},
		{"late, then again", []uint64{0, 2, 1, 3, 1}, Checks{Reordered: 1, Duplicated: 1}},
		{"all over again", []uint64{0, 1, 2, 3, 0, 1, 2, 3}, Checks{Duplicated: 4}},
	} {
		var c checker
		r := newReceiver(0, s, 1)
		take(&c, &r, tt.seqs...)
		c.finish(&r, []uint64{4})
		tt.want.Received = uint64(len(tt.seqs))
		if (c.First == "") != (tt.want.Err() == nil) && tt.want.Reordered == 0 {
			t.Errorf("%s: first problem %q", tt.name, c.First)
		}
		c.First = ""
		if c.Checks != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, c.Checks, tt.want)
		}
	}
}

func TestCheckerFindsWhatIsNotForThisReceiver(t *testing.T) {
	s := &stream{run: "run", org: "org", eventType: "a.b", subject: "s"}
	good := func(r *receiver) message {
		m := message{n: r.n + 1, eventType: []byte("a.b"), subject: []byte("s"), hasMark: true}
		m.mark = mark{run: []byte("run"), org: []byte("org")}
		return m
	}
	for name, spoil := range map[string]func(m *message){
		"type":    func(m *message) { m.eventType = []byte("a.c") },
		"subject": func(m *message) { m.subject = nil },
		"org":     func(m *message) { m.mark.org = []byte("other") },
		"run":     func(m *message) { m.mark.run = []byte("other") },
		"lane":    func(m *message) { m.mark.lane = 1 },
		"no mark": func(m *message) { m.hasMark = false },
	} {
		var c checker
		r := newReceiver(0, s, 1)
		m := good(&r)
		spoil(&m)
		c.event(&r, &m)
		if c.Misrouted != 1 {
			t.Errorf("%s: %+v", name, c.Checks)
		}
	}
	var c checker
	r := newReceiver(0, s, 1)
	r.numbered = true
	m := good(&r)
	m.n = 2
	if c.event(&r, &m); c.Misnumbered != 1 {
		t.Errorf("number: %+v", c.Checks)
	}
}

func TestCheckerComparesTheOrderAndIdsOfReceivers(t *testing.T) {
	s := &stream{run: "run", org: "org", eventType: "a.b"}
	see := func(id string, lanes ...uint64) *receiver {
		var c checker
		r := newReceiver(0, s, 2)
		next := [2]uint64{}
		for _, lane := range lanes {
			m := message{id: []byte(id), eventType: []byte("a.b"), hasMark: true}
			m.mark = mark{run: []byte("run"), org: []byte("org"), lane: lane, seq: next[lane]}
			next[lane]++
			c.event(&r, &m)
		}
		if err := c.Err(); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	var c checker
	const id, other = "0123456789ABCDEFGHJKMNPQRS", "0123456789ABCDEFGHJKMNPQRT"
	c.sameOrder(see(id, 0, 1, 0), see(id, 0, 1, 0))
	if err := c.Err(); err != nil {
		t.Error(err)
	}
	c.sameOrder(see(id, 0, 1, 0), see(id, 1, 0, 0))
	if c.Reordered != 1 {
		t.Errorf("lanes interleaved otherwise: %+v", c.Checks)
	}
	c.sameOrder(see(id, 0, 1, 0), see(other, 0, 1, 0))
	if c.Reordered != 2 {
		t.Errorf("other ids: %+v", c.Checks)
	}
}

func TestDataIsWhatAReceiverReads(t *testing.T) {
	s := &stream{run: "run", org: "org", eventType: "a.b", subject: "s"}
	for _, size := range []int{minData, 256, 5000} {
		data := appendData(nil, s.run, s.org, 3, 17, 123456789, size)
		if len(data) != size {
			t.Errorf("%d bytes, want %d", len(data), size)
		}
		if !json.Valid(appendEvent(nil, s, 3, 17, 123456789, size)) {
			t.Errorf("not JSON: %s", appendEvent(nil, s, 3, 17, 1, size))
		}
		var m message
		frame := `{"type":"event","n":5,"id":"i","event_type":"a.b","payload":` + string(data) + `,"subject":"s"}`
		if !m.read([]byte(frame)) || !m.hasMark || m.n != 5 || m.mark.lane != 3 || m.mark.seq != 17 || m.mark.at != 123456789 {
			t.Errorf("read as %+v", m)
		}
	}
}

func TestTableShowsRatiosAndGroups(t *testing.T) {
	r := Report{Scenario: "fanout", Rows: []Row{{"carillon", nil}, {"floor", nil}}}
	r.Rows[0].Values.add("deliveries", "/s", 1234567)
	r.Rows[0].Values.add("server CPU per delivery", "µs", 8.14)
	r.Rows[1].Values.add("server CPU per delivery", "µs", 7.4)
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1,234,567", "8.14", "1.10", "0 lost"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	js, err := json.Marshal(r.Rows[0])
	if err != nil || !strings.Contains(string(js), `"server_CPU_per_delivery_us":8.14`) {
		t.Errorf("%s %v", js, err)
	}
}

func TestParseCPUs(t *testing.T) {
	got, err := ParseCPUs("0,2-4")
	if err != nil || !slices.Equal(got, []int{0, 2, 3, 4}) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"x", "3-1", "-1", "0,", "5000"} {
		if _, err := ParseCPUs(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func BenchmarkReadMessage(b *testing.B) {
	s := &stream{run: "run123", org: "bench", eventType: "bench.run123.fanout0", subject: "on-fanout0"}
	frame := []byte(`{"type":"event","n":1,"id":"00000000000000000000000000","event_type":"bench.run123.fanout0","timestamp":"2006-01-02T15:04:05.000Z","payload":` +
		string(appendData(nil, s.run, s.org, 0, 1, 123456789, 256)) + `,"subject":"on-fanout0"}`)
	var m message
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		m.read(frame)
	}
}
