package session

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
)

func TestAConnectionIDIsThatOfOneSessionOfOneNode(t *testing.T) {
	ids, others := newConnectionIDs(), newConnectionIDs()
	seen := map[string]bool{}
	for _, id := range []connectionID{{0, 1, 1}, {1, 1, 1}, {0, 2, 1}, {0, 1, 2}, {63, 1<<32 - 1, 1<<32 - 1}} {
		text := ids.text(id)
		if got, ok := ids.parse(text); !ok || got != id || seen[text] {
			t.Errorf("%+v is %s, which is read as %+v, %t", id, text, got, ok)
		}
		seen[text] = true
		if got, ok := others.parse(text); ok {
			t.Errorf("another node reads %s as %+v", text, got)
		}
		for i := range text {
			for _, c := range "abz27A0-" {
				changed := text[:i] + string(c) + text[i+1:]
				if got, ok := ids.parse(changed); ok && changed != text {
					t.Errorf("%s is read as %+v", changed, got)
				}
			}
		}
		for _, bad := range []string{"", text[1:], text + "a", text + "\n", text[:25] + "\n"} {
			if _, ok := ids.parse(bad); ok {
				t.Errorf("%q is read", bad)
			}
		}
	}
}

func TestTheIDOfASessionThatIsGoneFindsNobody(t *testing.T) {
	c := newCrowd(t, 4, quiet, WebSocket, shared)
	c.grow(2)
	shard := c.hub.Shards()[0]
	find := func(id, user string) *Session {
		found := make(chan *Session, 1)
		c.core.Find(id, &carillon.Principal{Org: "acme", User: user}, func(s *Session) { found <- s })
		return <-found
	}
	on := func(f func()) {
		done := make(chan struct{})
		shard.Post(hub.TaskFunc(func() { f(); close(done) }))
		<-done
	}
	var old, id string
	s := c.takers[0].s
	on(func() { old = s.ID() })
	if find(old, userName(0)) != s || find(old, userName(1)) != nil {
		t.Error("a session is its own user's, and nobody else's")
	}
	on(s.Gone)
	c.grow(4)
	next := c.takers[2].s
	on(func() {
		id = next.ID()
		if a, _ := c.core.ids.parse(old); a.number != next.Number() {
			t.Fatal("the next session has not got the number of the last")
		}
	})
	if find(id, userName(2)) != next || find(old, userName(2)) != nil || find(old, userName(0)) != nil {
		t.Error("the id of the last session finds another")
	}
}

func TestPrincipalsShareAGrantThatSaysTheSame(t *testing.T) {
	var g grants
	g.init()
	all := []carillon.Principal{
		{Role: carillon.RoleMember},
		{Role: carillon.RoleAdmin},
		{Role: carillon.RoleMember, KeyID: "k"},
		{Role: carillon.RoleMember, KeyID: "l"},
		{Role: carillon.RoleMember, Permissions: &carillon.Permissions{}},
		{Role: carillon.RoleAdmin, Permissions: &carillon.Permissions{}},
		{Role: carillon.RoleMember, Permissions: &carillon.Permissions{Subscribe: []carillon.Pattern{"a", "b"}}},
		{Role: carillon.RoleMember, Permissions: &carillon.Permissions{Subscribe: []carillon.Pattern{"a"}, Publish: []carillon.Pattern{"b"}}},
		{Role: carillon.RoleMember, Permissions: &carillon.Permissions{Publish: []carillon.Pattern{"a", "b"}}},
		{Role: carillon.RoleMember, Permissions: &carillon.Permissions{Rooms: []string{"a", "b"}}},
		{Role: carillon.RoleMember, Permissions: &carillon.Permissions{Rooms: []string{"ab"}}},
		{Role: carillon.RoleMember, Permissions: &carillon.Permissions{Rooms: []string{"b", "a"}}},
	}
	held := map[*grant]int{}
	for round := range 2 {
		for i, p := range all {
			p.Org, p.User = "acme", userName(round)
			if p.Permissions != nil { // another token's
				copied := *p.Permissions
				p.Permissions = &copied
			}
			have := g.hold(&p)
			if k, known := held[have]; known != (round > 0) || k != i && known {
				t.Errorf("%+v has the grant of %+v", p, all[k])
			}
			held[have] = i
			if have.role != p.Role || have.keyID != p.KeyID || (have.permissions == nil) != (p.Permissions == nil) {
				t.Errorf("%+v has the grant %+v", p, have)
			}
		}
	}
	for have := range held {
		g.drop(have)
	}
	if len(g.byKey) != len(all)-2 {
		t.Errorf("%d grants are left while they are held, want %d", len(g.byKey), len(all)-2)
	}
	for have := range held {
		g.drop(have)
	}
	if len(g.byKey) != 0 {
		t.Errorf("%d grants are left that nobody holds", len(g.byKey))
	}
}
