package hub

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
)

func TestABusyShardLetsWhoWaitsForTheNetworkRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	var read atomic.Int32
	go func() {
		for b := make([]byte, 1); ; {
			if _, err := r.Read(b); err != nil {
				return
			}
			read.Add(1)
		}
	}()
	y := newYielder()
	defer y.close()
	y.yield() // the reader waits now
	for i := range int32(20) {
		if _, err := w.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		// One yield has the poller find the reader ready, one lets it run.
		for range 4 {
			y.yield()
		}
		if got := read.Load(); got != i+1 {
			t.Fatalf("%d of %d were read while the shard yielded", got, i+1)
		}
	}
}
