package match_test

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
)

func TestGrants(t *testing.T) {
	granted := &carillon.Permissions{
		Subscribe: []carillon.Pattern{"orders.*", "users.created", "users.deleted"},
		Publish:   []carillon.Pattern{"orders.>"},
	}
	for name, tc := range map[string]struct {
		who       carillon.Principal
		subscribe map[carillon.Pattern]bool
		publish   map[carillon.Type]bool
	}{
		"an API key": {
			carillon.Principal{Role: carillon.RoleAdmin, KeyID: "k"},
			map[carillon.Pattern]bool{">": true, "a.*": true},
			map[carillon.Type]bool{"a.b": true},
		},
		"a member": {
			carillon.Principal{User: "u", Role: carillon.RoleMember},
			map[carillon.Pattern]bool{">": true},
			map[carillon.Type]bool{"a.b": false},
		},
		"a publisher": {
			carillon.Principal{User: "u", Role: carillon.RolePublisher},
			map[carillon.Pattern]bool{">": true},
			map[carillon.Type]bool{"a.b": true},
		},
		"an admin": {
			carillon.Principal{User: "u", Role: carillon.RoleAdmin},
			map[carillon.Pattern]bool{">": true},
			map[carillon.Type]bool{"a.b": true},
		},
		"permissions decide alone, also for an admin": {
			carillon.Principal{User: "u", Role: carillon.RoleAdmin, Permissions: granted},
			map[carillon.Pattern]bool{"orders.*": true, "orders.created": true, "users.created": true, "orders.>": false, "orders.a.b": false, "users.*": false, ">": false},
			map[carillon.Type]bool{"orders.a.b": true, "orders": false, "users.created": false},
		},
		"permissions without lists": {
			carillon.Principal{User: "u", Role: carillon.RoleAdmin, Permissions: &carillon.Permissions{}},
			map[carillon.Pattern]bool{"a": false},
			map[carillon.Type]bool{"a": false},
		},
	} {
		for p, want := range tc.subscribe {
			if got := match.MaySubscribe(&tc.who, p); got != want {
				t.Errorf("%s may subscribe to %s: %t", name, p, got)
			}
		}
		for typ, want := range tc.publish {
			if got := match.MayPublish(&tc.who, typ); got != want {
				t.Errorf("%s may publish %s: %t", name, typ, got)
			}
		}
	}
}
