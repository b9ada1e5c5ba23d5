package wire_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

var (
	install = []byte("0123456789abcdef0123456789abcdef")
	another = []byte("0123456789abcdef0123456789abcdeg")
)

// Whoever holds two ids knows neither which came first nor what lies between.
func TestIDsTellNothingOfOrderOrVolume(t *testing.T) {
	ids := wire.NewKeyring(install).Org("acme")
	const n = 10_000
	next, seen := "", make(map[string]bool, n)
	rises, places := 0, [wire.IDLen]map[byte]int{}
	for i := range places {
		places[i] = map[byte]int{}
	}
	for seq := range uint64(n) {
		id := ids.String(carillon.Position{Partition: 3, Seq: seq + 1, Check: 7})
		if len(id) != wire.IDLen || seen[id] {
			t.Fatalf("%s is no id, or there twice", id)
		}
		seen[id] = true
		if id > next {
			rises++
		}
		next = id
		for i := range id {
			places[i][id[i]]++
		}
	}
	if rises < n*45/100 || rises > n*55/100 {
		t.Errorf("of %d neighbours %d are in the order of the log", n, rises)
	}
	for i, letters := range places {
		want := 32
		if i == 0 {
			want = 8 // 128 bits are three more than 25 letters have
		}
		most := 0
		for _, c := range letters {
			most = max(most, c)
		}
		if len(letters) != want || most > n/want*3/2 {
			t.Errorf("letter %d of an id is one of %d, the most frequent %d times of %d", i, len(letters), most, n)
		}
	}
}

func TestAnIDIsReadByItsOwnOrganizationAndInstallOnly(t *testing.T) {
	ids := wire.NewKeyring(install).Org("acme")
	strangers := []*wire.IDs{
		wire.NewKeyring(install).Org("acm"), wire.NewKeyring(install).Org("acme2"), wire.NewKeyring(another).Org("acme"),
	}
	for seq := range uint64(10_000) {
		p := carillon.Position{Partition: uint16(seq % 4096), Seq: seq, Check: uint32(seq)}
		id := ids.String(p)
		if got, ok := ids.Decode(id); !ok || got != p {
			t.Fatalf("%v is %s, which is %v, %v", p, id, got, ok)
		}
		for i, other := range strangers {
			if got, ok := other.Decode(id); ok {
				t.Errorf("stranger %d reads %s, which is %v, as %v", i, id, p, got)
			}
			if c, err := other.ParseCursor(id); err != nil || c.Kind != carillon.CursorForeign {
				t.Errorf("stranger %d takes it for %+v, %v", i, c, err)
			}
		}
	}
	if slices.Contains([]bool{wire.ShapedLikeID(""), wire.ShapedLikeID(strings.ToLower(ids.String(carillon.Position{}))), wire.ShapedLikeID("../../../../../../../../..")}, true) {
		t.Error("anything is shaped like an id")
	}
}
