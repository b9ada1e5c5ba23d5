package enginetest

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

func testResumeOK(t *testing.T, w *bench) {
	pos := append(w.fill(w.a, 5), positionsOf(w.append(w.a, events(0, 5)...))...)
	for _, p := range pos {
		w.resume(w.a, p, engine.OK)
	}
	w.resume(w.a, carillon.Position{Partition: pos[0].Partition}, engine.OK)
}

func testResumeForeignEntry(t *testing.T, w *bench) {
	before := w.fill(w.b, 2)
	mine := w.fill(w.a, 2)
	after := w.fill(w.b, 2)
	for _, p := range append(before, after...) {
		w.resume(w.a, p, engine.OK)
		p.Check++
		w.resume(w.a, p, engine.Reset)
	}
	w.resume(w.a, mine[1], engine.OK)
	w.resume(w.b, mine[1], engine.OK)
	// Its entry is purged: the organization's own still decide.
	if err := w.b.Purge(w.ctx, 1<<60); err != nil {
		t.Fatal(err)
	}
	for _, p := range append(before, after...) {
		w.resume(w.a, p, engine.OK)
	}
}

func testResumeEmpty(t *testing.T, w *bench) {
	zero := carillon.Position{Partition: uint16(w.a.Partition())}
	w.resume(w.a, zero, engine.OK)
	w.resume(w.a, carillon.Position{Partition: zero.Partition, Check: 1}, engine.Reset)
	w.fill(w.b, 3)
	w.resume(w.a, zero, engine.OK)
	pos := w.fill(w.a, 3)
	w.resume(w.a, zero, engine.OK)
	// Once an entry is there, a position without a check is not of it.
	w.resume(w.a, carillon.Position{Partition: zero.Partition, Seq: pos[0].Seq}, engine.Reset)
}

func testResumeReset(t *testing.T, w *bench) {
	pos := w.fill(w.a, 3)[2]
	wrong := pos
	wrong.Check ^= 1
	beyond := carillon.Position{Partition: pos.Partition, Seq: pos.Seq + 1, Check: 7}
	elsewhere := pos
	elsewhere.Partition = uint16(w.c.Partition())
	nowhere := pos
	nowhere.Partition = 60000
	for _, p := range []carillon.Position{wrong, beyond, elsewhere, nowhere} {
		w.resume(w.a, p, engine.Reset)
	}
	w.resume(w.c, pos, engine.Reset)
}

func testResumeExpired(t *testing.T, w *bench) {
	zero := carillon.Position{Partition: uint16(w.a.Partition())}
	other := w.fill(w.b, 1)[0]
	pos := w.fill(w.a, 6)
	if err := w.a.Purge(w.ctx, pos[2].Seq); err != nil {
		t.Fatal(err)
	}
	for _, p := range []carillon.Position{zero, other, pos[0], pos[1]} {
		out := w.resume(w.a, p, engine.Expired)
		w.resume(w.a, out.From, engine.OK)
		got, _ := w.read(w.a, engine.Range{After: out.From.Seq})
		w.positions(got, pos[3:])
	}
	for _, p := range pos[2:] {
		w.resume(w.a, p, engine.OK)
	}
	w.resume(w.b, zero, engine.OK)

	// With nothing left, it goes on from the end.
	if err := w.a.Purge(w.ctx, 1<<60); err != nil {
		t.Fatal(err)
	}
	out := w.resume(w.a, pos[1], engine.Expired)
	w.resume(w.a, out.From, engine.OK)
	w.resume(w.a, pos[5], engine.OK)
	next := w.fill(w.a, 2)
	w.resume(w.a, out.From, engine.OK)
	got, _ := w.read(w.a, engine.Range{After: out.From.Seq})
	w.positions(got, next)
	w.resume(w.a, pos[3], engine.Expired)
	w.resume(w.a, pos[5], engine.OK)
}

func testResumeOthersLoss(t *testing.T, w *bench) {
	zero := carillon.Position{Partition: uint16(w.a.Partition())}
	first := w.fill(w.b, 4)
	mine := w.fill(w.a, 2)
	if err := w.b.Purge(w.ctx, 1<<60); err != nil {
		t.Fatal(err)
	}
	for _, p := range append(append([]carillon.Position{zero}, first...), mine...) {
		w.resume(w.a, p, engine.OK)
	}
	// One that never had an entry, too.
	log := w.log(w.orgBeside("quiet"))
	for _, p := range append([]carillon.Position{zero}, mine...) {
		w.resume(log, p, engine.OK)
	}
	w.resume(w.b, zero, engine.Expired)
}

// orgBeside finds an organization in a's partition that nobody else uses.
func (w *bench) orgBeside(name string) carillon.OrgID {
	for org := carillon.OrgID(name); ; org += "x" {
		if w.log(org).Partition() == w.a.Partition() {
			return org
		}
	}
}

// Faults is what an engine that can be broken on purpose offers a test.
type Faults interface {
	Truncate(partition int, last uint64)
	Recreate(partition int)
	ExpireBefore(partition int, seq uint64)
}

// RunFaults tests what an engine promises when the store under it loses
// something, of either log.
func RunFaults(t *testing.T, open func(t *testing.T) (engine.Engine, Faults)) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, *bench, Faults)
	}{
		{"TruncatedTailBreaksTailsAndResetsReaders", testTruncated},
		{"PartitionMadeAnewHasAnotherIdentity", testRecreated},
		{"RetentionExpiresReaders", testExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, which := range map[string]logs{"Events": ofEvents, "Intake": ofIntake} {
				t.Run(name, func(t *testing.T) {
					e, faults := open(t)
					closeAfter(t, e)
					tt.test(t, newBench(t, e, which), faults)
				})
			}
		})
	}
}

// broken waits for a tail that ends by itself.
func (w *bench) broken(partition int, after uint64, when func()) {
	w.t.Helper()
	ended := make(chan error, 1)
	live := make(chan struct{}, 1)
	go func() {
		ended <- w.Tail(w.ctx, partition, after, func(*carillon.Entry) {
			select {
			case live <- struct{}{}:
			default:
			}
		})
	}()
	select {
	case <-live:
	case err := <-ended:
		w.t.Fatalf("the tail ended before: %v", err)
	}
	when()
	if err := <-ended; err == nil || w.ctx.Err() != nil {
		w.t.Fatalf("the tail ended with %v", err)
	}
}

func testTruncated(t *testing.T, w *bench, faults Faults) {
	p := w.a.Partition()
	var pos []carillon.Position
	for i := range 10 {
		pos = append(pos, w.append(w.a, events(i, 2)...)[1].Pos)
	}
	before := w.state(p)
	w.broken(p, 0, func() { faults.Truncate(p, pos[4].Seq) })

	after := w.state(p)
	if after.Identity != before.Identity || after.Last != pos[4] {
		t.Fatalf("state %+v, want identity %s and last %v", after, before.Identity, pos[4])
	}
	if head := w.Head(p); head != pos[4] {
		t.Errorf("head %v, want %v", head, pos[4])
	}
	for _, at := range pos[:5] {
		w.resume(w.a, at, engine.OK)
	}
	for _, at := range pos[5:] {
		w.resume(w.a, at, engine.Reset)
	}
	again := w.fill(w.a, 10) // the sequences are used again
	if again[0].Seq != pos[4].Seq+1 {
		t.Errorf("the next entry is at %v after %v", again[0], pos[4])
	}
	for _, at := range pos[5:] {
		w.resume(w.a, at, engine.Reset)
	}
	for _, at := range again {
		w.resume(w.a, at, engine.OK)
	}
	ch, _ := w.tail(p, pos[4].Seq)
	w.positions(w.next(ch, 10), again)
	got, end := w.read(w.a, engine.Range{After: pos[4].Seq})
	w.positions(got, again)
	if end.Seen != again[9].Seq {
		t.Errorf("end %+v, want seen %d", end, again[9].Seq)
	}
}

func testRecreated(t *testing.T, w *bench, faults Faults) {
	p := w.a.Partition()
	pos := w.fill(w.a, 5)
	before := w.state(p)
	w.broken(p, 0, func() { faults.Recreate(p) })
	after := w.state(p)
	if after.Identity == before.Identity || after.Last.Seq != 0 || after.Entries != 0 {
		t.Fatalf("before %+v, after %+v", before, after)
	}
	for _, at := range pos {
		w.resume(w.a, at, engine.Reset)
	}
	again := w.fill(w.a, 3)
	if again[0].Seq != 1 {
		t.Errorf("the first entry is at %v", again[0])
	}
	for _, at := range pos {
		w.resume(w.a, at, engine.Reset)
	}
	w.positions(w.all(w.a), again)
	if head := w.Head(p); head != again[2] {
		t.Errorf("head %v, want %v", head, again[2])
	}
}

func testExpired(t *testing.T, w *bench, faults Faults) {
	p := w.a.Partition()
	zero := carillon.Position{Partition: uint16(p)}
	lost := w.fill(w.a, 3)   // all gone
	shared := w.fill(w.b, 3) // gone up to the second
	kept := w.fill(w.a, 3)
	late := w.fill(w.log(w.orgBeside("late")), 1)
	faults.ExpireBefore(p, shared[2].Seq)

	w.positions(w.all(w.a), kept)
	w.positions(w.all(w.b), shared[2:])
	for _, at := range []carillon.Position{zero, lost[0], lost[1]} {
		out := w.resume(w.a, at, engine.Expired)
		w.resume(w.a, out.From, engine.OK)
		got, _ := w.read(w.a, engine.Range{After: out.From.Seq})
		w.positions(got, kept)
	}
	for _, at := range append([]carillon.Position{shared[1], shared[2]}, kept...) {
		w.resume(w.a, at, engine.OK)
	}
	out := w.resume(w.b, zero, engine.Expired)
	w.resume(w.b, out.From, engine.OK)
	for _, at := range []carillon.Position{shared[1], shared[2], kept[0]} {
		w.resume(w.b, at, engine.OK)
	}
	// An organization that lost nothing stands anywhere.
	newcomer := w.log(w.orgBeside("late"))
	for _, at := range append([]carillon.Position{zero}, append(lost, late...)...) {
		w.resume(newcomer, at, engine.OK)
	}
	// A quiet one that stood at the end, and whose own entries are all gone.
	stood := w.fill(w.b, 1)[0]
	faults.ExpireBefore(p, stood.Seq)
	w.resume(w.a, stood, engine.OK)
	w.fill(w.a, 1)
	w.resume(w.a, stood, engine.OK)
	if s := w.state(p); s.First != stood.Seq {
		t.Errorf("state %+v, want first %d", s, stood.Seq)
	}
}
