package enginetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// RunIntake tests the organizations' intakes: that they are logs as those of events
// are, and that neither knows of the other. open is as in Run; the largest delivery is
// of so many pieces, of which WholeDelivery is the most there may be.
func RunIntake(t *testing.T, pieces int, open func(t *testing.T) engine.Engine) {
	run(t, open, ofIntake, append(logTests(), []promise{
		{"IntakesPartitionsFollowThoseOfEvents", testIntakePartitions},
		{"KeyOfOneLogIsUnknownInTheOther", testIntakeKeys},
		{"PositionOfOneLogIsNotOfTheOther", testIntakePositions},
		{"PurgeOfOneLogLeavesTheOther", testIntakePurge},
		{"BoundsAndAtAreOfOneLog", testIntakeBounds},
		{"TailOfOneLogPassesNothingOfTheOther", testIntakeTails},
		{"LargeDeliveryIsOneBatch", func(t *testing.T, w *bench) { testIntakeDelivery(t, w, pieces) }},
		{"BytesComeBackAsTheyWere", testIntakeBytes},
		{"EnvelopeThatIsTooLargeRefusesItsBatch", testIntakeEnvelope},
	}...))
}

// other is an organization's log of the kind that is not tested.
func (w *bench) other(org carillon.OrgID) engine.Log {
	log := w.Intake(org)
	if log.Partition() == w.log(org).Partition() {
		log = w.Open(org)
	}
	return log
}

func testIntakePartitions(t *testing.T, w *bench) {
	first, end := w.Partitions(), w.Partitions()+w.IntakePartitions()
	for _, org := range []carillon.OrgID{orgA, "b", "c", "in", "0"} {
		if p := w.Intake(org).Partition(); p < first || p >= end {
			t.Errorf("the intake of %s is in partition %d, want one of [%d, %d)", org, p, first, end)
		}
		if p := w.Open(org).Partition(); p < 0 || p >= first {
			t.Errorf("the events of %s are in partition %d, want one of [0, %d)", org, p, first)
		}
	}
	identities := make(map[string]int)
	for p := range end {
		s := w.state(p)
		if before, known := identities[s.Identity]; known || int(s.Last.Partition) != p {
			t.Errorf("partition %d has the state %+v; %d has that identity too", p, s, before)
		}
		identities[s.Identity] = p
		if head := w.Head(p); int(head.Partition) != p || head.Seq != 0 {
			t.Errorf("partition %d has the head %v", p, head)
		}
	}
	pos := w.fill(w.a, 2)[1]
	if s := w.state(w.a.Partition()); s.Last != pos || s.Entries != 2 {
		t.Errorf("the state is %+v, want the last at %v", s, pos)
	}
	if check, found, err := w.Check(w.ctx, int(pos.Partition), pos.Seq); !found || err != nil || check != pos.Check {
		t.Errorf("the check of %v is %08x %v %v", pos, check, found, err)
	}
	if _, err := w.State(w.ctx, end); err == nil {
		t.Errorf("there is a partition %d", end)
	}
	if _, _, err := w.Check(w.ctx, end, 1); err == nil {
		t.Errorf("there is an entry in partition %d", end)
	}
	if c := w.Caps(); c.IntakeRetention <= 0 {
		t.Errorf("caps %+v", c)
	}
}

func testIntakeKeys(t *testing.T, w *bench) {
	other := w.other(orgA)
	keyed := func(n int) engine.Append { return engine.Append{Event: event(n), Key: fmt.Sprintf("k:%d", n)} }
	for n, order := range [][]engine.Log{{w.a, other}, {other, w.a}} {
		var first []carillon.Receipt
		for _, log := range order {
			first = append(first, w.append(log, keyed(n))[0])
		}
		for i, log := range order {
			again := w.append(log, keyed(n))[0]
			if first[i].Duplicate || !again.Duplicate || again.Pos != first[i].Pos {
				t.Errorf("a key in log %d of %d: first %+v, again %+v", i+1, len(order), first[i], again)
			}
		}
	}
	if mine, theirs := w.all(w.a), w.all(other); len(mine) != 2 || len(theirs) != 2 {
		t.Errorf("%d and %d entries, want two in each log", len(mine), len(theirs))
	}
}

func testIntakePositions(_ *testing.T, w *bench) {
	other := w.other(orgA)
	mine, theirs := w.fill(w.a, 3), w.fill(other, 3)
	for i := range mine {
		w.resume(w.a, mine[i], engine.OK)
		w.resume(other, theirs[i], engine.OK)
		w.resume(w.a, theirs[i], engine.Reset)
		w.resume(other, mine[i], engine.Reset)
	}
}

func testIntakePurge(t *testing.T, w *bench) {
	purge := func(log engine.Log, upTo uint64) {
		t.Helper()
		if err := log.Purge(w.ctx, upTo); err != nil {
			t.Fatal(err)
		}
	}
	for name, which := range map[string]logs{"intake": ofIntake, "events": ofEvents} {
		org := carillon.OrgID("purged-" + name)
		purged, kept, kinds := which(w, org), w.Open(org), logs(ofEvents)
		if name == "events" {
			kept, kinds = w.Intake(org), ofIntake
		}
		// One that has lost its own first entries, and an entry of somebody else's
		// between those and the rest.
		w.fill(kept, 1)
		others := w.fill(beside(w, kinds, kept.Partition()), 2)
		left := w.fill(kept, 3)
		purge(kept, others[0].Seq-1)
		w.resume(kept, others[0], engine.OK)
		gone := positionsOf(w.append(purged, events(0, 40)...))
		purge(purged, 1<<60)

		zero := func(log engine.Log) carillon.Position { return carillon.Position{Partition: uint16(log.Partition())} }
		w.positions(w.all(purged), nil)
		w.positions(w.all(kept), left)
		w.resume(purged, zero(purged), engine.Expired)
		w.resume(purged, gone[2], engine.Expired)
		for _, pos := range append(others, left...) {
			w.resume(kept, pos, engine.OK)
		}
		// Who has only one of them has lost nothing of the other.
		quiet := carillon.OrgID("quiet-" + name)
		one, none := which(w, quiet), kinds(w, quiet)
		w.fill(beside(w, kinds, none.Partition()), 2)
		purge(one, w.fill(one, 2)[1].Seq)
		w.resume(one, zero(one), engine.Expired)
		w.resume(none, zero(none), engine.OK)
	}
}

// beside is somebody else's log in a partition.
func beside(e engine.Engine, which logs, partition int) engine.Log {
	for i := 0; ; i++ {
		if log := which(e, carillon.OrgID(fmt.Sprintf("beside-%d", i))); log.Partition() == partition {
			return log
		}
	}
}

func testIntakeBounds(t *testing.T, w *bench) {
	other := w.other(orgA)
	bounds := func(log engine.Log, want ...carillon.Position) {
		t.Helper()
		oldest, newest, err := log.Bounds(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(want) == 0 {
			want = []carillon.Position{{Partition: uint16(log.Partition())}}
		}
		if oldest != want[0] || newest != want[len(want)-1] {
			t.Errorf("from %v to %v, want %v to %v", oldest, newest, want[0], want[len(want)-1])
		}
	}
	follow := func(log engine.Log, want int) {
		t.Helper()
		pos, err := log.At(w.ctx, time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		w.resume(log, pos, engine.OK)
		if got, _ := w.read(log, engine.Range{After: pos.Seq}); len(got) != want || int(pos.Partition) != log.Partition() {
			t.Errorf("%d entries follow %v, want %d", len(got), pos, want)
		}
	}
	theirs := w.fill(other, 3)
	bounds(w.a)
	follow(w.a, 0)
	mine := w.fill(w.a, 2)
	bounds(w.a, mine...)
	bounds(other, theirs...)
	follow(w.a, 2)
	follow(other, 3)
}

func testIntakeTails(t *testing.T, w *bench) {
	other := w.other(orgA)
	mine, stopMine := w.tail(w.a.Partition(), 0)
	theirs, stopTheirs := w.tail(other.Partition(), 0)
	var a, b []carillon.Position
	for range 20 {
		a = append(a, w.fill(w.a, 1)...)
		b = append(b, w.fill(other, 1)...)
	}
	w.positions(w.next(mine, 20), a)
	w.positions(w.next(theirs, 20), b)
	_, _ = stopMine(), stopTheirs()
	if len(mine)+len(theirs) > 0 {
		t.Errorf("%d and %d entries too many", len(mine), len(theirs))
	}
}

// noise makes bytes that are the same each time.
func noise(seed byte, n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(out)
	return out
}

// delivery is a body of n pieces of 768 KiB, as one batch.
func delivery(seed byte, n int) []engine.Append {
	batch := make([]engine.Append, n)
	for i := range batch {
		batch[i] = engine.Append{
			Event: &carillon.Event{
				Type: "hook.part", Time: event(i).Time, Source: "source", Data: noise(seed+byte(i), 768<<10),
			},
			Key: fmt.Sprintf("delivery:%d:%d", seed, i),
		}
	}
	return batch
}

// WholeDelivery is a body of 25 MiB, in pieces.
const WholeDelivery = 33

func testIntakeDelivery(t *testing.T, w *bench, parts int) {
	// Others append meanwhile.
	ended := make(chan struct{})
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ended:
					return
				default:
				}
				if _, err := engine.AppendWait(w.ctx, w.b, events(i, 1)); err != nil {
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	batch := delivery(1, parts)
	batch[0].Event.CE = []byte(`{"size":` + strings.Repeat(" ", 20_000) + `1}`)
	receipts, err := engine.AppendWait(w.ctx, w.a, batch)
	close(ended)
	others.Wait()
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	for i, r := range receipts {
		if r.Duplicate || r.Pos.Seq != receipts[0].Pos.Seq+uint64(i) {
			t.Fatalf("piece %d of %d at %+v, the first at %+v", i+1, parts, r, receipts[0])
		}
	}

	check := func(from string, got []*carillon.Entry) {
		t.Helper()
		w.positions(got, positionsOf(receipts))
		for i, e := range got {
			if !bytes.Equal(e.Data, batch[i].Event.Data) || !bytes.Equal(e.CE, batch[i].Event.CE) {
				t.Errorf("%s: piece %d is not as it was appended", from, i+1)
			}
		}
	}
	body := engine.Range{After: receipts[0].Pos.Seq - 1, UpTo: receipts[parts-1].Pos.Seq, Limit: parts, MaxBytes: 64 << 20}
	whole, _ := w.read(w.a, body)
	check("read at once", whole)
	check("read in parts", w.all(w.a))
	body.Leader = true
	leader, _ := w.read(w.a, body)
	check("read from the leader", leader)
	tail, stop := w.tail(w.a.Partition(), receipts[0].Pos.Seq-1)
	check("tail", w.next(tail, parts))
	_ = stop()

	for i, r := range w.append(w.a, batch...) {
		if !r.Duplicate || r.Pos != receipts[i].Pos {
			t.Errorf("piece %d again: %+v, want a duplicate of %v", i+1, r, receipts[i].Pos)
		}
	}
	// One that cannot be stored keeps all others out.
	bad := delivery(100, 4)
	bad[3].Event.Data = make([]byte, 64<<20)
	if _, err := engine.AppendWait(w.ctx, w.a, bad); err == nil {
		return // an engine may take it
	} else if carillon.AsError(err).Code != carillon.CodeTooLarge {
		t.Errorf("a piece that is too large: %v", err)
	}
	if got := w.all(w.a); len(got) != parts {
		t.Errorf("a refused delivery left %d entries", len(got)-parts)
	}
}

func testIntakeBytes(t *testing.T, w *bench) {
	var every []byte
	for c := range 256 {
		every = append(every, byte(c))
	}
	var datas [][]byte
	for i, n := range []int{0, 1, 2, 3, 100, 7_000, 65_536, 768 << 10} {
		datas = append(datas, noise(byte(i), n))
	}
	datas = append(datas, nil, []byte{0}, []byte("\x00\x00\x00"), every, []byte("\r\n\r\n"), []byte("NATS/1.0\r\n\r\n"), []byte("%00%"), []byte(" \t "))
	header := map[string][]string{
		"X-Hub-Signature": {`sha256="quoted"; \ back`}, "X-Odd": {" lead", "trail ", "100%", "tab\there", "ü雪☃\u00a0", "\u2028\u007f\u0001"},
		"X-Long": {strings.Repeat("a b%c ", 3_500)},
	}
	compact, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(header, "\r\n", "\t")
	if err != nil {
		t.Fatal(err)
	}
	ces := [][]byte{
		nil, []byte(`{}`), compact, indented, []byte(" {\n}\t "), []byte("{\"ü\":\"\u00a0\"}"), every, noise(50, 24_000),
		[]byte(`{"query":"` + strings.Repeat("%2F&", 6_000) + `"}`), []byte("%"),
		{0xff},
		{0},
	}
	var batch []engine.Append
	for i := range max(len(datas), len(ces)) {
		batch = append(batch, engine.Append{Event: &carillon.Event{
			Type: "hook.received", Time: event(i).Time, Source: "s", From: "[2001:db8::1%eth0]:1", Delivery: string(every[:i]) + "=",
			Data: datas[i%len(datas)], CE: ces[i%len(ces)],
		}})
	}
	receipts := w.append(w.a, batch...) // at once
	want := slices.Clone(batch)
	for _, a := range batch { // and one by one
		receipts = append(receipts, w.append(w.a, a)...)
		want = append(want, a)
	}
	check := func(from string, got []*carillon.Entry) {
		t.Helper()
		w.positions(got, positionsOf(receipts))
		for i, e := range got {
			if ev := want[i].Event; !bytes.Equal(e.Data, ev.Data) || !bytes.Equal(e.CE, ev.CE) || e.Delivery != ev.Delivery || e.From != ev.From {
				t.Errorf("%s: entry %d is not as it was appended: %d bytes of data, want %d; CE %.60q, want %.60q; delivery %q, want %q",
					from, i, len(e.Data), len(ev.Data), e.CE, ev.CE, e.Delivery, ev.Delivery)
			}
		}
	}
	check("read", w.all(w.a))
	leader, _ := w.read(w.a, engine.Range{Leader: true, MaxBytes: 64 << 20})
	check("leader", leader)
	tail, stop := w.tail(w.a.Partition(), 0)
	check("tail", w.next(tail, len(want)))
	_ = stop()
}

func testIntakeEnvelope(t *testing.T, w *bench) {
	for name, ce := range map[string][]byte{
		"large":                     []byte(`{"x":"` + strings.Repeat("x", 70_000) + `"}`),
		"large when it is escaped":  []byte(`{"x":"` + strings.Repeat("%", 24_000) + `"}`),
		"many times what is stored": []byte(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`),
	} {
		batch := events(0, 3)
		batch[1].Event.CE = ce
		_, err := engine.AppendWait(w.ctx, w.a, batch)
		if err == nil {
			if err := w.a.Purge(w.ctx, 1<<60); err != nil { // an engine may take it
				t.Fatal(err)
			}
			continue
		}
		if shown := carillon.AsError(err); shown.Code != carillon.CodeTooLarge || !strings.Contains(shown.Message, "event 2 of 3") {
			t.Errorf("%s: %v", name, err)
		}
		if got := w.all(w.a); len(got) != 0 {
			t.Errorf("%s: %d entries of the batch are stored", name, len(got))
		}
	}
}
