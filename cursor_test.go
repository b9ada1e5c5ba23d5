package carillon_test

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
)

func TestCursorsWithAReadableForm(t *testing.T) {
	ago := func(d time.Duration) carillon.Cursor { return carillon.Cursor{Kind: carillon.CursorAgo, Ago: d} }
	for s, want := range map[string]carillon.Cursor{
		"":         {},
		"now":      {Kind: carillon.CursorNow},
		"earliest": {Kind: carillon.CursorEarliest},
		"-10m":     ago(10 * time.Minute),
		"-1s":      ago(time.Second),
		"-24h":     ago(24 * time.Hour),
		"-7d":      ago(7 * 24 * time.Hour),
		"-0s":      ago(0),
		"-3660d":   ago(carillon.MaxAgo),
	} {
		if got, ok := carillon.ParseNamedCursor(s); got != want || !ok {
			t.Errorf("%q: got %+v, %v, want %+v", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"Now", " now", "latest", "-", "-m", "10m", "+10m", "--1m", "-+1m", "-1", "-1w", "-1ms", "-1.5h", "- 1m", "-1m ", "-1_0m",
		"-0x1m", "-3661d", "-316224001s", "-4294967296s", "-99999999999999999999d", "01234567890123456789012345",
	} {
		if got, ok := carillon.ParseNamedCursor(s); ok || got != (carillon.Cursor{}) {
			t.Errorf("%q: got %+v, %v", s, got, ok)
		}
	}
}

func TestAtIsAfterAPosition(t *testing.T) {
	pos := carillon.Position{Partition: 3, Seq: 7, Check: 0xab}
	if got, want := carillon.At(pos), (carillon.Cursor{Kind: carillon.CursorAt, Pos: pos}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestPositionReadsWell(t *testing.T) {
	if got, want := (carillon.Position{Partition: 3, Seq: 7, Check: 0xab}).String(), "3/7#000000ab"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !(carillon.Position{}).IsZero() || (carillon.Position{Check: 1}).IsZero() {
		t.Error("only the zero position is zero")
	}
}
