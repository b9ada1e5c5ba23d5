package jetstream_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

const benchPartitions = 8

// payload is an event of the usual size.
var payload = append(append([]byte(`{"text":"`), bytes.Repeat([]byte("x"), 500)...), `"}`...)

func benchEvent() *carillon.Event {
	return &carillon.Event{Type: "workflow.step.completed", Time: time.Now(), Data: payload}
}

// spread returns n logs, in as many different partitions as there are.
func spread(e engine.Engine, n int) []engine.Log {
	var logs []engine.Log
	for i := 0; len(logs) < n; i++ {
		log := e.Open(carillon.OrgID(fmt.Sprintf("org-%d", i)))
		if log.Partition() == len(logs)%benchPartitions {
			logs = append(logs, log)
		}
	}
	return logs
}

// publishers runs b.N turns on n goroutines. It also reports the processor time
// of a turn, which others on the machine disturb less.
func publishers(b *testing.B, n int, turn func(i int) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	before := cpuTime()
	defer func() { b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op") }()
	for range n {
		all.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := turn(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
}

func eachDurability(b *testing.B, f func(*testing.B, jetstream.Durability)) {
	for _, d := range []jetstream.Durability{jetstream.Strict, jetstream.Relaxed} {
		b.Run(string(d), func(b *testing.B) { f(b, d) })
	}
}

func benchAppend(b *testing.B, d jetstream.Durability, publish, orgs, size int) {
	benchEngine(b, open(b, jetstream.Config{Durability: d, Partitions: benchPartitions}), publish, orgs, size)
}

func benchEngine(b *testing.B, e *jetstream.Engine, publish, orgs, size int) {
	defer e.Close(context.Background())
	logs := spread(e, orgs)
	ev := benchEvent()
	for _, log := range logs { // the first of an organization costs more
		if _, err := engine.AppendWait(b.Context(), log, []engine.Append{{Event: ev}}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	publishers(b, publish, func(i int) error {
		batch := make([]engine.Append, size)
		for j := range batch {
			batch[j].Event = ev
		}
		_, err := engine.AppendWait(context.Background(), logs[i%len(logs)], batch)
		return err
	})
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "events/s")
	s := e.Stats()
	b.ReportMetric(float64(s.Appends)/float64(s.Flights), "events/flight")
	b.ReportMetric(float64(s.BatchFlights)/float64(s.Flights), "batch-share")
}

func BenchmarkAppendSingle(b *testing.B) {
	eachDurability(b, func(b *testing.B, d jetstream.Durability) { benchAppend(b, d, 1, 1, 1) })
}

func BenchmarkAppend64Publishers(b *testing.B) {
	eachDurability(b, func(b *testing.B, d jetstream.Durability) {
		for _, orgs := range []int{1, 8} {
			b.Run(fmt.Sprintf("orgs=%d", orgs), func(b *testing.B) { benchAppend(b, d, 64, orgs, 1) })
		}
	})
}

// BenchmarkExternal64Publishers is BenchmarkAppend64Publishers on a NATS server
// over TCP.
func BenchmarkExternal64Publishers(b *testing.B) {
	eachDurability(b, func(b *testing.B, d jetstream.Durability) {
		for _, orgs := range []int{1, 8} {
			b.Run(fmt.Sprintf("orgs=%d", orgs), func(b *testing.B) {
				e, _ := external(b, jetstream.Config{Durability: d, Partitions: benchPartitions})
				benchEngine(b, e, 64, orgs, 1)
			})
		}
	})
}

// webhook is a delivery of the usual size.
func webhook() *carillon.Event {
	return &carillon.Event{
		Type: "hook.received", Time: time.Now(), Source: "github-main", Delivery: "72d3162e-cc78-11e3-81ab-4c9367dc0958", From: "192.0.2.17",
		CE:   []byte(`{"provider":"github","event":"push","header":{"User-Agent":["Hooks/1"],"Content-Type":["application/json"]},"size":7000,"digest":"` + strings.Repeat("0", 64) + `"}`),
		Data: bytes.Repeat([]byte(`{"ref":1}`+"\n"), 700),
	}
}

// BenchmarkIntake64Callers is what a receiver of webhooks does: each caller appends a
// delivery of 7 KB, and answers when it is stored.
func BenchmarkIntake64Callers(b *testing.B) {
	eachDurability(b, func(b *testing.B, d jetstream.Durability) {
		for _, orgs := range []int{1, 8} {
			b.Run(fmt.Sprintf("orgs=%d", orgs), func(b *testing.B) {
				e := open(b, jetstream.Config{Durability: d, Partitions: benchPartitions})
				defer e.Close(context.Background())
				benchIntake(b, e, orgs)
			})
		}
	})
}

// BenchmarkIntakeBeside25MiB is BenchmarkIntake64Callers while somebody else's largest
// deliveries are stored, one after the other.
func BenchmarkIntakeBeside25MiB(b *testing.B) {
	e := open(b, jetstream.Config{Partitions: benchPartitions})
	defer e.Close(context.Background())
	stop := make(chan struct{})
	var beside sync.WaitGroup
	n := 0
	beside.Go(func() {
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := engine.AppendWait(context.Background(), e.Intake("large"), large(n, wholeDelivery)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	benchIntake(b, e, 8)
	close(stop)
	beside.Wait()
	b.ReportMetric(float64(n), "large")
}

func benchIntake(b *testing.B, e *jetstream.Engine, orgs int) {
	logs := make([]engine.Log, orgs)
	ev := webhook()
	for i := range logs {
		logs[i] = e.Intake(carillon.OrgID(fmt.Sprintf("org-%d", i)))
		if _, err := engine.AppendWait(b.Context(), logs[i], []engine.Append{{Event: ev}}); err != nil {
			b.Fatal(err)
		}
	}
	took := make([]time.Duration, b.N)
	b.ReportAllocs()
	publishers(b, 64, func(i int) error {
		begun := time.Now()
		_, err := engine.AppendWait(context.Background(), logs[i%orgs], []engine.Append{{Event: ev, Key: "d:" + strconv.Itoa(i)}})
		took[i-1] = time.Since(begun)
		return err
	})
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

func BenchmarkAppend256Publishers(b *testing.B) {
	eachDurability(b, func(b *testing.B, d jetstream.Durability) {
		b.Run("orgs=1", func(b *testing.B) { benchAppend(b, d, 256, 1, 1) })
	})
}

func BenchmarkAppendBatch100(b *testing.B) {
	eachDurability(b, func(b *testing.B, d jetstream.Durability) {
		for _, orgs := range []int{1, 8} {
			b.Run(fmt.Sprintf("orgs=%d", orgs), func(b *testing.B) { benchAppend(b, d, 4*orgs, orgs, 100) })
		}
		b.Run("one-publisher", func(b *testing.B) { benchAppend(b, d, 1, 1, 100) })
	})
}

// BenchmarkBare64 is the measure of the others: the server alone, 64 publishers
// that call its client.
func BenchmarkBare64(b *testing.B) {
	eachDurability(b, func(b *testing.B, d jetstream.Durability) {
		for _, streams := range []int{1, 8} {
			b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) { benchBare(b, d, streams) })
		}
	})
}

func benchBare(b *testing.B, d jetstream.Durability, streams int) {
	srv, err := server.NewServer(&server.Options{
		DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: b.TempDir(),
		SyncAlways: d == jetstream.Strict, SyncInterval: time.Second,
	})
	if err != nil {
		b.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	if !srv.ReadyForConnections(30 * time.Second) {
		b.Fatal("not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	stream, err := js.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	for i := range streams {
		_, err := stream.CreateStream(b.Context(), js.StreamConfig{
			Name: fmt.Sprintf("BARE_%d", i), Subjects: []string{fmt.Sprintf("bare.%d.*", i)}, Storage: js.FileStorage, Duplicates: 5 * time.Minute,
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	publishers(b, 64, func(i int) error {
		_, err := stream.PublishMsg(context.Background(), &nats.Msg{
			Subject: fmt.Sprintf("bare.%d.org", i%streams),
			Header: nats.Header{
				"Nats-Msg-Id": {fmt.Sprintf("org:~%d", i)}, "Car-Type": {"workflow.step.completed"}, "Car-Time": {"1700000000000"},
			},
			Data: payload,
		})
		return err
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkRead1000(b *testing.B) {
	e := open(b, jetstream.Config{Durability: jetstream.Relaxed, Partitions: benchPartitions})
	defer e.Close(context.Background())
	log := spread(e, 1)[0]
	batch := make([]engine.Append, 1000)
	for i := range batch {
		batch[i].Event = benchEvent()
	}
	if _, err := engine.AppendWait(b.Context(), log, batch); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		_, err := log.Read(b.Context(), engine.Range{Limit: 1000, MaxBytes: 16 << 20}, func(*carillon.Entry) error { n++; return nil })
		if err != nil || n != 1000 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.N*1000)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkTail(b *testing.B) {
	e := open(b, jetstream.Config{Durability: jetstream.Relaxed, Partitions: benchPartitions})
	defer e.Close(context.Background())
	log := spread(e, 1)[0]
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for i := 0; i < b.N; i += 1000 {
		batch := make([]engine.Append, 1000)
		for j := range batch {
			batch[j].Event = benchEvent()
		}
		if _, err := engine.AppendWait(ctx, log, batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	err := e.Tail(ctx, log.Partition(), 0, func(*carillon.Entry) {
		if n++; n == b.N {
			cancel()
		}
	})
	if n < b.N {
		b.Fatal(n, err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
