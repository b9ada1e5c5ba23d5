package limit_test

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon/internal/limit"
)

func TestOnlyItsOwnLimitsAreCountedAndAllOfThemAreThere(t *testing.T) {
	h := limit.Of("event_bytes", "batch_events")
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			h.Add("event_bytes")
			h.Add("ring_bytes")
			h.Add("")
		})
	}
	wg.Wait()
	if diff := cmp.Diff(map[string]uint64{"event_bytes": 100, "batch_events": 0}, h.Load()); diff != "" {
		t.Error(diff)
	}
}
