package carillon

import (
	"strconv"
	"testing"
)

func TestWindowRemembersTheLastIDs(t *testing.T) {
	t.Parallel()
	var w window
	for i := range 3 * DedupeWindow {
		if !w.add(strconv.Itoa(i)) {
			t.Fatalf("%d is not new", i)
		}
		if w.add(strconv.Itoa(max(0, i-DedupeWindow+1))) {
			t.Fatalf("after %d the oldest is forgotten", i)
		}
	}
	if len(w.ids) != DedupeWindow || len(w.ring) != DedupeWindow {
		t.Errorf("remembers %d ids in %d places", len(w.ids), len(w.ring))
	}
	if !w.add("0") {
		t.Error("0 is still remembered")
	}
}
