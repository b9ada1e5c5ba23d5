package jetstream_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

// large is a delivery of n pieces of 768 KiB, each with the delivery's number.
func large(number, n int) []engine.Append {
	batch := make([]engine.Append, n)
	for i := range batch {
		data := bytes.Repeat([]byte{byte(number), 0, byte(i), '\n'}, 768<<10/4)
		batch[i] = engine.Append{Event: &carillon.Event{Type: "hook.part", Data: data}, Key: fmt.Sprintf("%d:%d", number, i)}
	}
	return batch
}

// The embedded server keeps an id in memory for minutes. One that was made up serves
// only an append without an answer, and the intake can do with two of the same.
func TestTheServerRemembersTheIntakesKeysOnly(t *testing.T) {
	for name, c := range map[string]jetstream.Config{
		"InADirectory":       {Dir: t.TempDir()},
		"OnAnExternalServer": {NATS: &jetstream.NATS{URL: natsServer(t, server.Options{JetStream: true, JetStreamMaxStore: 1 << 40}).ClientURL(), Replicas: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			e := openExternal(t, c)
			in := e.Intake("acme")
			var want []carillon.Receipt
			for _, a := range [][]engine.Append{{{Event: numbered(1)}}, {{Event: numbered(2), Key: "k"}}, {{Event: numbered(3)}, {Event: numbered(4), Key: "l"}}} {
				want = append(want, appendAll(t, in, a...)...)
			}
			ids, remembered, err := e.StoredIDs(t.Context(), "acme")
			external := c.NATS != nil
			if err != nil || !slices.Equal(remembered, []bool{external, true, external, true}) || slices.Contains(ids, "") {
				t.Errorf("ids %q, remembered %v: %v", ids, remembered, err)
			}
			if again := appendAll(t, in, engine.Append{Event: numbered(2), Key: "k"}); !again[0].Duplicate || again[0].Pos != want[1].Pos {
				t.Errorf("a key that came again: %+v", again)
			}
			i := 0
			if _, err := in.Read(t.Context(), engine.Range{}, func(e *carillon.Entry) error {
				if e.Pos != want[i].Pos {
					t.Errorf("entry %d is at %v, its receipt says %v", i, e.Pos, want[i].Pos)
				}
				i++
				return nil
			}); err != nil || i != len(want) {
				t.Errorf("%d entries: %v", i, err)
			}
			for _, r := range want {
				if check, found, err := e.Check(t.Context(), int(r.Pos.Partition), r.Pos.Seq); check != r.Pos.Check || !found || err != nil {
					t.Errorf("the check of %v is %d, %t, %v", r.Pos, check, found, err)
				}
			}
			closeEngine(t, e)
		})
	}
}

const wholeDelivery = 33 // pieces of a body of 25 MiB

func TestStoreOfBeforeGetsAnIntake(t *testing.T) {
	for _, tt := range []struct {
		name string
		open func(t *testing.T) (c jetstream.Config, forget func())
	}{
		{"InADirectory", func(t *testing.T) (jetstream.Config, func()) {
			dir := t.TempDir()
			return jetstream.Config{Dir: dir, Partitions: 2}, func() {
				if err := os.RemoveAll(filepath.Join(dir, "jetstream", "$G", "streams", "CAR_IN_0")); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"OnAnExternalServer", func(t *testing.T) (jetstream.Config, func()) {
			s := natsServer(t, server.Options{JetStream: true, JetStreamMaxStore: 1 << 40})
			return jetstream.Config{Partitions: 2, NATS: &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}}, func() {
				_, js := natsConn(t, s.ClientURL())
				if err := js.DeleteStream(t.Context(), "CAR_IN_0"); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, forget := tt.open(t)
			e := openExternal(t, c)
			pos := appendAll(t, e.Open("acme"), engine.Append{Event: numbered(1)})[0].Pos
			before, err := e.State(t.Context(), int(pos.Partition))
			if err != nil {
				t.Fatal(err)
			}
			closeEngine(t, e)
			forget() // and it is as the first versions left it
			for range 2 {
				e = openExternal(t, c)
				if s, err := e.State(t.Context(), int(pos.Partition)); err != nil || s != before {
					t.Errorf("the events' state is %+v (%v), want %+v", s, err, before)
				}
				appendAll(t, e.Intake("acme"), engine.Append{Event: numbered(2)})
				closeEngine(t, e)
			}
			e = openExternal(t, c)
			defer closeEngine(t, e)
			if got := readAll(t, e.Open("acme")); len(got) != 1 || got[0].Pos != pos {
				t.Errorf("%d events are kept, want the one at %v", len(got), pos)
			}
			if got := readAll(t, e.Intake("acme")); len(got) != 2 {
				t.Errorf("%d entries of the intake are kept, want 2", len(got))
			}
		})
	}
}

func TestStreamsOfBothLogsHaveTheirOwnLimits(t *testing.T) {
	s := natsServer(t, server.Options{JetStream: true, JetStreamMaxStore: 1 << 40})
	_, js := natsConn(t, s.ClientURL())
	type limits struct {
		Age      time.Duration
		PerOrg   int64
		Bytes    int64
		Subjects string
	}
	for _, tt := range []struct {
		name           string
		c              jetstream.Config
		events, intake limits
	}{
		{
			"Defaults",
			jetstream.Config{},
			limits{7 * 24 * time.Hour, 1_000_000, 5 << 30, "car.ev.0.*"},
			limits{30 * 24 * time.Hour, -1, 4 << 30, "car.in.0.*"},
		},
		{
			"Chosen",
			jetstream.Config{
				Retention: time.Hour, MaxPerOrg: 10, MaxBytes: 64 << 20,
				IntakeRetention: 2 * time.Hour, IntakeMaxPerOrg: 20, IntakeMaxBytes: 32 << 20,
			},
			limits{time.Hour, 10, 32 << 20, "car.ev.0.*"},
			limits{2 * time.Hour, 20, 32 << 20, "car.in.0.*"},
		},
		{
			"OfTheEventsChosen",
			jetstream.Config{MaxBytes: 200 << 20},
			limits{7 * 24 * time.Hour, 1_000_000, 100 << 20, "car.ev.0.*"},
			limits{30 * 24 * time.Hour, -1, 32 << 20, "car.in.0.*"}, // a default follows downwards only
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.Partitions, tt.c.NATS = 2, &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}
			e := openExternal(t, tt.c)
			defer closeEngine(t, e)
			for stream, want := range map[string]limits{"CAR_EV_0": tt.events, "CAR_IN_0": tt.intake} {
				has, err := js.Stream(t.Context(), stream)
				if err != nil {
					t.Fatal(err)
				}
				c := has.CachedInfo().Config
				if got := (limits{c.MaxAge, c.MaxMsgsPerSubject, c.MaxBytes, c.Subjects[0]}); got != want {
					t.Errorf("%s has %+v, want %+v", stream, got, want)
				}
				if c.Duplicates != 5*time.Minute || c.Discard != natsjs.DiscardOld {
					t.Errorf("%s knows keys for %v and discards %v", stream, c.Duplicates, c.Discard)
				}
			}
			if caps := e.Caps(); caps.Retention != tt.events.Age || caps.IntakeRetention != tt.intake.Age {
				t.Errorf("caps %+v", caps)
			}
		})
	}
}

func TestDiskIsDividedBetweenBothLogs(t *testing.T) {
	const mib, gib = int64(1) << 20, int64(1) << 30
	for _, tt := range []struct {
		name           string
		disk           int64
		events, intake int64 // asked for
		parts          int
		wantEvents     int64
		wantIntake     int64
		refusal        string
	}{
		{"LargeDisk", 100 * gib, 0, 0, 8, 10 * gib, 4 * gib, ""},
		{"ManyEvents", 1000 * gib, 800 * gib, 0, 8, 800 * gib, 4 * gib, ""},
		{"FewEvents", 100 * gib, gib, 0, 8, gib, gib / 5 * 2, ""},
		{"FewestEvents", 100 * gib, 16 * mib, 0, 1, 16 * mib, 32 * mib, ""},
		{"BothChosen", 20 * gib, 10 * gib, 8 * gib, 8, 10 * gib, 8 * gib, ""},
		{"EventsLeaveALittle", 12 * gib, 0, 0, 8, 10 * gib, 800 * mib, ""},
		{"EventsLeaveNothing", 5 * gib, 0, 0, 8, 4*gib + 512*mib, 256 * mib, ""},
		{"ChosenEventsLeaveNothing", 10 * gib, 9*gib - mib, 0, 8, 9*gib - mib, 512 * mib, ""},
		{"EventsMakeRoomForAChosenIntake", 10 * gib, 0, 4 * gib, 8, 5 * gib, 4 * gib, ""},
		{"SmallestDisk", 200 * mib, 0, 0, 2, 32 * mib, 32 * mib, ""},
		{"UnknownDisk", 1 << 61, 0, 0, 8, 10 * gib, 4 * gib, ""},
		{"TooFewEvents", 10 * gib, 100 * mib, 0, 8, 0, 0, "too little for 8 partitions; at least 128 MiB"},
		{"TooManyEvents", 10 * gib, 10 * gib, 0, 8, 0, 0, "of 10 GiB does not fit"},
		{"NoRoomForEvents", 100 * mib, 0, 0, 8, 0, 0, "8 partitions need at least 128 MiB"},
		{"TooSmallAnIntake", 10 * gib, 0, 31 * mib, 8, 0, 0, "too little for the intakes; at least 32 MiB"},
		{"TooLargeAnIntake", 10 * gib, 0, 10 * gib, 8, 0, 0, "of 10 GiB for the intakes does not fit"},
		{"TooLargeTogether", 10 * gib, 5 * gib, 5 * gib, 8, 0, 0, "does not fit beside one of 5120 MiB for the intakes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, intake, err := jetstream.Divide(tt.disk, tt.events, tt.intake, tt.parts)
			if tt.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refusal) {
					t.Errorf("%d and %d with %v, want %q", events, intake, err, tt.refusal)
				}
				return
			}
			if err != nil || events != tt.wantEvents || intake != tt.wantIntake {
				t.Errorf("%d MiB and %d MiB (%v), want %d and %d", events/mib, intake/mib, err, tt.wantEvents/mib, tt.wantIntake/mib)
			}
			if events+intake > tt.disk {
				t.Errorf("%d MiB and %d MiB of a disk of %d", events/mib, intake/mib, tt.disk/mib)
			}
		})
	}
}

func TestLargeDeliveriesLetOthersPass(t *testing.T) {
	e := open(t, jetstream.Config{Durability: jetstream.Relaxed})
	defer closeEngine(t, e)
	const deliveries = 5
	var all sync.WaitGroup
	var ends [deliveries]carillon.Position
	for i := range deliveries {
		all.Add(1)
		e.Intake("large").Append(large(i, wholeDelivery), func(r []carillon.Receipt, err error) {
			defer all.Done()
			if err != nil {
				t.Errorf("delivery %d: %v", i, err)
				return
			}
			ends[i] = r[wholeDelivery-1].Pos
		})
	}
	// Behind them, but not after all of them.
	small := make([]carillon.Position, 60) // twenty of each of three
	for i := range small {
		all.Add(1)
		e.Intake(carillon.OrgID(fmt.Sprintf("small-%d", i%3))).Append([]engine.Append{{Event: numbered(i)}}, func(r []carillon.Receipt, err error) {
			defer all.Done()
			if err != nil {
				t.Errorf("another's entry: %v", err)
				return
			}
			small[i] = r[0].Pos
		})
	}
	all.Wait()
	for _, pos := range small {
		if pos.Seq > ends[2].Seq {
			t.Errorf("an entry at %v; large deliveries end at %v", pos, ends)
		}
	}
	if got := readAll(t, e.Intake("large")); len(got) != deliveries*wholeDelivery {
		t.Errorf("%d entries are stored", len(got))
	}
}

func TestServerRestartLeavesLargeDeliveriesWhole(t *testing.T) {
	e := open(t, jetstream.Config{Partitions: 1})
	defer closeEngine(t, e)
	const senders, parts = 3, 8
	stop, stored := make(chan struct{}), make(chan struct{}, 1000)
	var all sync.WaitGroup
	var sent [senders]int
	for s := range senders {
		log := e.Intake(carillon.OrgID(fmt.Sprintf("org-%d", s)))
		all.Go(func() {
			for ; ; sent[s]++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := engine.AppendWait(t.Context(), log, large(sent[s], parts)); err != nil {
					t.Errorf("append: %v", err)
					return
				}
				stored <- struct{}{}
			}
		})
	}
	for range 3 {
		<-stored
		if err := e.Faults().RestartServer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range senders {
		<-stored
	}
	close(stop)
	all.Wait()
	for s, n := range sent {
		got := readAll(t, e.Intake(carillon.OrgID(fmt.Sprintf("org-%d", s))))
		if len(got) != n*parts {
			t.Fatalf("sender %d: %d entries of %d deliveries of %d", s, len(got), n, parts)
		}
		for i, entry := range got {
			if want := large(i/parts, parts)[i%parts].Event.Data; !bytes.Equal(entry.Data, want) || i%parts > 0 && entry.Pos.Seq != got[i-1].Pos.Seq+1 {
				t.Errorf("sender %d: entry %d at %v is not the one that was sent, or not behind the one before", s, i, entry.Pos)
			}
		}
	}
}

func TestSlowTailOfLargeEntriesIsSentFewAtATime(t *testing.T) {
	e, s := external(t, jetstream.Config{Durability: jetstream.Relaxed})
	defer closeEngine(t, e)
	log := e.Intake("acme")
	const deliveries = 4
	for i := range deliveries {
		appendAll(t, log, large(i, wholeDelivery)...)
	}
	gate := make(chan struct{})
	entries, ended := make(chan *carillon.Entry, deliveries*wholeDelivery), make(chan error, 1)
	go func() {
		ended <- e.Tail(t.Context(), log.Partition(), 0, func(entry *carillon.Entry) {
			<-gate
			entries <- entry
		})
	}()
	_, js := natsConn(t, s.ClientURL())
	stream, err := js.Stream(t.Context(), "CAR_IN_0")
	if err != nil {
		t.Fatal(err)
	}
	var sent, still uint64
	eventually(t, "that the tail is sent all it asked for", func() bool {
		before := sent
		for c := range stream.ListConsumers(t.Context()).Info() {
			sent = c.Delivered.Consumer
		}
		if still++; sent != before {
			still = 0
		}
		return sent >= 32 && still >= 10 // as often as it is asked
	})
	if sent > 48 {
		t.Errorf("%d entries of 768 KiB lie before a tail that takes none", sent)
	}
	close(gate)
	for i := range deliveries * wholeDelivery {
		select {
		case entry := <-entries:
			if entry.Data[0] != byte(i/wholeDelivery) || entry.Data[2] != byte(i%wholeDelivery) {
				t.Fatalf("entry %d is piece %d of delivery %d", i, entry.Data[2], entry.Data[0])
			}
		case err := <-ended:
			t.Fatalf("the tail ended after %d entries: %v", i, err)
		}
	}
}

func TestRefusalOfAnEnvelopeSaysWhatFits(t *testing.T) {
	e := open(t, jetstream.Config{Durability: jetstream.Relaxed})
	defer closeEngine(t, e)
	for _, tt := range []struct {
		name string
		ev   *carillon.Event
		want []string
	}{
		{"Headers", &carillon.Event{Type: "n", CE: bytes.Repeat([]byte("%"), 24_000)}, []string{"event 1 of 1", "beside its data", "at most 65535"}},
		{"Data", &carillon.Event{Type: "n", Data: make([]byte, 1<<20)}, []string{"event 1 of 1", "with its envelope", "at most 1048576"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := engine.AppendWait(t.Context(), e.Intake("acme"), []engine.Append{{Event: tt.ev}})
			for _, want := range tt.want {
				if shown := carillon.AsError(err); shown == nil || shown.Code != carillon.CodeTooLarge || !strings.Contains(shown.Message, want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}

func TestFileOfAVersionWithoutAnIntakeIsImported(t *testing.T) {
	s := natsServer(t, server.Options{JetStream: true, JetStreamMaxStore: 1 << 40})
	from := jetstream.Config{Partitions: 2, NATS: &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}}
	e := openExternal(t, from)
	pos := appendAll(t, e.Open("acme"), engine.Append{Event: numbered(1)})[0].Pos
	closeEngine(t, e)
	_, js := natsConn(t, s.ClientURL())
	if err := js.DeleteStream(t.Context(), "CAR_IN_0"); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	m, err := jetstream.Export(t.Context(), from, &file)
	if err != nil || m.Format != 1 || m.Intake != 0 {
		t.Fatalf("the manifest is %+v (%v), want format 1 and no intake", m, err)
	}
	to := jetstream.Config{Dir: t.TempDir()}
	if _, err := jetstream.Import(t.Context(), to, &file); err != nil {
		t.Fatal(err)
	}
	e = open(t, to)
	defer closeEngine(t, e)
	if got := readAll(t, e.Open("acme")); len(got) != 1 || got[0].Pos != pos {
		t.Errorf("%d events, want the one at %v", len(got), pos)
	}
	if r := appendAll(t, e.Intake("acme"), engine.Append{Event: numbered(2)})[0]; r.Pos.Partition != 2 || r.Pos.Seq != 1 {
		t.Errorf("the intake begins at %v", r.Pos)
	}
}
