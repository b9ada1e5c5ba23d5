package session

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

func entry(seq uint64, data string) *hub.Delivery {
	return &hub.Delivery{Entry: &carillon.Entry{
		Event: carillon.Event{Type: "orders.paid", Time: time.Unix(0, 0), Data: []byte(data)}, Org: "acme", Pos: carillon.Position{Seq: seq, Check: 1},
	}}
}

// However many shards want an event at the same time, it is compressed once, and
// all of them get the same bytes.
func TestShardsCompressAnEventOnce(t *testing.T) {
	const events, shards = 20, 8
	z, ids := newDeflaters(1000), wire.NewKeyring(make([]byte, 32)).Org("acme")
	all, got := make([]*hub.Delivery, events), make([][][]byte, shards)
	for j := range all {
		all[j] = entry(uint64(j+1), `"`+strings.Repeat("all alike ", 10_000+j)+`"`)
		var wg sync.WaitGroup
		now := make(chan struct{})
		for i := range shards {
			wg.Go(func() {
				<-now
				got[i] = append(got[i], z.text(all[j], ids))
			})
		}
		close(now)
		wg.Wait()
	}
	for i := range shards {
		for j, d := range all {
			if &got[i][j][0] != &got[0][j][0] {
				t.Fatalf("event %d is not the same for shard %d", j, i)
			}
			js := wire.AppendEvent(nil, ids, d.Entry)
			if b := unpacked(t, got[i][j]); !bytes.Equal(b, js) {
				t.Fatalf("event %d says %s, want %s", j, b, js)
			}
			if d.Encoding(formText) != nil || d.Encoding(formJSON) != nil {
				t.Fatal("a form is kept that nobody wanted")
			}
		}
	}
	if n := z.frames.Load(); n != events {
		t.Errorf("%d were compressed, of %d", n, events)
	}
}

func TestWhatIsNotCompressedGoesOutPlainly(t *testing.T) {
	ids := wire.NewKeyring(make([]byte, 32)).Org("acme")
	noise := make([]byte, 5000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // never fails
	for name, row := range map[string]struct {
		from  int
		data  string
		tried uint64
	}{
		"one that is small":               {1000, `"` + strings.Repeat("x", 500) + `"`, 0},
		"one a byte too small":            {len(wire.AppendEvent(nil, ids, entry(1, `"x"`).Entry)) + 1, `"x"`, 0},
		"one that does not get smaller":   {1000, string(noise), 1}, // which text hardly is
		"one that nobody is to find long": {1 << 20, `"` + strings.Repeat("x", 5000) + `"`, 0},
	} {
		for _, before := range []bool{false, true} {
			z, d := newDeflaters(row.from), entry(1, row.data)
			plain := entry(1, row.data)
			want := eventText(plain, ids)
			if before { // somebody who takes no compression had it first
				want = eventText(d, ids)
			}
			for range 3 {
				if got := z.text(d, ids); !bytes.Equal(got, want) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if z.plain.Load() != row.tried || z.frames.Load() != 0 {
				t.Errorf("%s: compression was tried %d times and done %d times", name, z.plain.Load(), z.frames.Load())
			}
			if got := z.text(d, ids); &got[0] != &d.Encoding(formText)[0] {
				t.Errorf("%s: it is not the frame of the others", name)
			}
		}
	}
	if newDeflaters(0) != nil {
		t.Error("there is compression that nobody asked for")
	}
}

// unpacked is what a compressed text frame says.
func unpacked(t testing.TB, frame []byte) []byte {
	t.Helper()
	if frame[0] != 0xc1 {
		t.Fatalf("the frame begins with %#x", frame[0])
	}
	b, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(wire.TextPayload(frame)), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// BenchmarkDelivery is what an event costs, for each of the sessions that get it.
func BenchmarkDelivery(b *testing.B) {
	ids := wire.NewKeyring(make([]byte, 32)).Org("acme")
	for _, size := range []int{1 << 10, 4 << 10, 64 << 10} {
		data := sample(size)
		for _, sessions := range []int{1, 100, 1000} {
			for _, compressed := range []bool{false, true} {
				form := "plain"
				if compressed {
					form = "compressed"
				}
				b.Run(fmt.Sprintf("%d bytes/%d sessions/%s", size, sessions, form), func(b *testing.B) {
					z, bytes := newDeflaters(1<<10), 0
					h := hub.New(hub.Config{Engine: memory.New(memory.Config{}), Shards: 1})
					h.SetTag(&tenant{core: &Core{deflaters: z}, ids: ids})
					all := make([]Session, sessions)
					for i := range all {
						h.Shard().Join(&all[i].Member, &all[i])
						if compressed {
							all[i].set(deflate)
						}
					}
					dst := make([][]byte, 0, sessions)
					b.ReportAllocs()
					for b.Loop() {
						d := entry(1, data)
						dst = dst[:0]
						for i := range all {
							dst = all[i].appendEvent(dst, ids, d, true)
						}
						bytes = len(dst[0])
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*sessions), "ns/delivery")
					b.ReportMetric(float64(bytes), "B/delivery")
				})
			}
		}
	}
}

// sample is data as publishers send them: names again and again, and values.
func sample(size int) string {
	b := []byte(`{"items":[`)
	for i := uint32(1); len(b) < size; i++ {
		h := i * 2654435761
		b = fmt.Appendf(b, `{"id":"%08x","name":"item %d","quantity":%d,"price":%d.%02d,"at":"2025-07-09T10:%02d:%02dZ"},`, h, i, h>>7%100, h>>9%1000, h>>11%100, h>>13%60, h>>17%60)
	}
	return string(append(b, `null]}`...))
}
