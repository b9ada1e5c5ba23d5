package jetstream_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
	"github.com/carillon-rt/carillon/internal/testkit"
)

func TestFullDiskRefusesAndRecoversByItself(t *testing.T) {
	t.Parallel() // it mostly waits
	disk := testkit.SmallDisk(t, "200m")
	if disk == "" {
		return
	}
	for _, d := range []jetstream.Durability{jetstream.Strict, jetstream.Relaxed} {
		if testing.Short() && d == jetstream.Relaxed {
			continue
		}
		t.Run(string(d), func(t *testing.T) { testFullDisk(t, filepath.Join(disk, string(d)), d) })
	}
}

func testFullDisk(t *testing.T, dir string, d jetstream.Durability) {
	e := open(t, jetstream.Config{Dir: dir, Partitions: 2, Durability: d})
	defer closeEngine(t, e)

	// Publishers, each with events of its own that it sends until they are stored.
	const publishers = 8
	acked := make([][]carillon.Position, publishers)
	refused, stop := make(chan error, 1), make(chan struct{})
	var all sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(stop)
		all.Wait()
	})
	defer end()
	logOf := func(p int) engine.Log { return e.Open(carillon.OrgID(fmt.Sprintf("org-%d", p%3))) }
	for p := range publishers {
		all.Go(func() {
			for n := 0; ; {
				batch := []engine.Append{{Event: numbered(p*1_000_000 + n), Key: fmt.Sprintf("%d:%d", p, n)}}
				if p%2 == 1 {
					batch = append(batch, engine.Append{Event: numbered(-1), Key: fmt.Sprintf("%d:%d:", p, n)})
				}
				r, err := engine.AppendWait(context.Background(), logOf(p), batch)
				if err == nil {
					acked[p] = append(acked[p], r[0].Pos)
					n++
				} else {
					if shown := carillon.AsError(err); shown.Code != carillon.CodeUnavailable || shown.RetryAfter <= 0 {
						t.Errorf("append: %v", err)
					}
					select {
					case refused <- err:
					default:
					}
					select { // as it is told, but sooner
					case <-time.After(50 * time.Millisecond):
					case <-stop:
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	eventually(t, "appends", func() bool { return e.Stats().Appends > 500 })

	ballast := filepath.Join(filepath.Dir(dir), "ballast")
	for range 2 {
		testkit.FillDisk(t, ballast)
		for i := range 3 { // more than any page has left
			_, err := engine.AppendWait(t.Context(), logOf(i), []engine.Append{{Event: &carillon.Event{Type: "n", Data: make([]byte, 100_000)}}})
			if shown := carillon.AsError(err); shown.Code != carillon.CodeUnavailable || shown.RetryAfter <= 0 {
				t.Errorf("append to a full disk: %v", err)
			}
		}
		eventually(t, "unhealthy", func() bool { return e.Healthy(t.Context()) != nil })
		if len(readAll(t, logOf(0))) == 0 {
			t.Error("nothing is read while the disk is full")
		}
		<-refused
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		eventually(t, "healthy again", func() bool { return e.Healthy(t.Context()) == nil })
		for i := range 3 {
			appendAll(t, logOf(i), engine.Append{Event: numbered(-1)})
		}
	}
	end()

	have := make(map[carillon.Position]string)
	for i := range 3 {
		seen := make(map[string]bool)
		for _, entry := range readAll(t, logOf(i)) {
			data := string(entry.Data)
			have[entry.Pos] = data
			if data != "-1" && seen[data] {
				t.Errorf("%s is stored twice", data)
			}
			seen[data] = true
		}
	}
	for p, positions := range acked {
		last := uint64(0)
		for n, pos := range positions {
			if want := fmt.Sprint(p*1_000_000 + n); have[pos] != want || pos.Seq <= last {
				t.Errorf("publisher %d: event %d was acknowledged at %v after %d; there is %q", p, n, pos, last, have[pos])
			}
			last = pos.Seq
		}
	}
}
