package carillon_test

import (
	"testing"

	"github.com/carillon-rt/carillon"
)

func TestWhoManages(t *testing.T) {
	for name, row := range map[string]struct {
		who           carillon.Principal
		server, admin bool
	}{
		"an API key":                      {carillon.Principal{KeyID: "k1"}, true, true},
		"a member":                        {carillon.Principal{User: "alice", Role: carillon.RoleMember}, false, false},
		"a publisher":                     {carillon.Principal{User: "alice", Role: carillon.RolePublisher}, false, false},
		"an admin":                        {carillon.Principal{User: "alice", Role: carillon.RoleAdmin}, false, true},
		"an admin with permissions":       {carillon.Principal{User: "alice", Role: carillon.RoleAdmin, Permissions: &carillon.Permissions{}}, false, true},
		"a user without a role":           {carillon.Principal{User: "alice"}, false, false},
		"a user of a role not known":      {carillon.Principal{User: "alice", Role: "root"}, false, false},
		"a user of the role, in capitals": {carillon.Principal{User: "alice", Role: "ADMIN"}, false, false},
	} {
		if row.who.Server() != row.server || row.who.Admin() != row.admin {
			t.Errorf("%s: Server %v, Admin %v", name, row.who.Server(), row.who.Admin())
		}
	}
}

func TestIdempotencyKeysOfUsersAndServersNeverMeet(t *testing.T) {
	server := carillon.Principal{KeyID: "k1"}
	other := carillon.Principal{KeyID: "k2"}
	if server.Publisher() != other.Publisher() {
		t.Error("the servers of an org do not share their keys")
	}
	for _, user := range []string{"k", "u", "k1", ".", "u.k"} {
		if p := (&carillon.Principal{User: user}).Publisher(); p == server.Publisher() {
			t.Errorf("user %q publishes as %q, like a server", user, p)
		}
	}
}
