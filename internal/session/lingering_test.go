package session

import (
	"testing"

	"github.com/carillon-rt/carillon"
)

// A key is a hash: who has the same is looked at.
func TestAFollowerServesItsCallerOnly(t *testing.T) {
	at := carillon.Position{Partition: 1, Seq: 7, Check: 9}
	opt := PollOptions{
		Principal: &carillon.Principal{Org: "acme", User: "alice"}, Patterns: []carillon.Pattern{"a", "b.*"}, Cursor: carillon.At(at),
	}
	for name, f := range map[string]*follower{
		"another place":        {at: carillon.Position{Partition: 1, Seq: 7, Check: 8}, principal: opt.Principal, patterns: opt.Patterns},
		"another organization": {at: at, principal: &carillon.Principal{Org: "other", User: "alice"}, patterns: opt.Patterns},
		"another user":         {at: at, principal: &carillon.Principal{Org: "acme", User: "bob"}, patterns: opt.Patterns},
		"other patterns":       {at: at, principal: opt.Principal, patterns: []carillon.Pattern{"a", "b.c"}},
		"fewer patterns":       {at: at, principal: opt.Principal, patterns: []carillon.Pattern{"a"}},
	} {
		if f.serves(&opt) {
			t.Errorf("a follower of %s serves", name)
		}
	}
	if f := (&follower{at: at, principal: &carillon.Principal{Org: "acme", User: "alice"}, patterns: opt.Patterns}); !f.serves(&opt) {
		t.Error("the caller's own does not serve")
	}
}

func TestFollowersWithTheSameKey(t *testing.T) {
	var l lingering
	l.init(10, func() {})
	opt := PollOptions{Principal: &carillon.Principal{Org: "acme"}, Cursor: carillon.At(carillon.Position{Seq: 1})}
	for drop := range 3 {
		var all [3]*follower
		for i := range all {
			all[i] = &follower{at: opt.Cursor.Pos, principal: opt.Principal}
			if !l.put(all[i]) {
				t.Fatal("no room")
			}
		}
		if !l.remove(all[drop]) || l.remove(all[drop]) {
			t.Errorf("number %d is not removed once", drop)
		}
		seen := map[*follower]bool{all[drop]: true}
		for range 2 {
			f := l.take(&opt)
			if f == nil || seen[f] {
				t.Fatalf("without number %d: another is lost", drop)
			}
			seen[f] = true
		}
		if f := l.take(&opt); f != nil || l.held.Load() != 0 {
			t.Errorf("without number %d: %d are left", drop, l.held.Load())
		}
	}
	for i := range l.parts {
		if len(l.parts[i].byKey) > 0 {
			t.Error("a key is left")
		}
	}
}
