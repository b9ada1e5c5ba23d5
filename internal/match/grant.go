package match

import "github.com/carillon-rt/carillon"

// MaySubscribe reports whether the principal may receive what the pattern
// accepts. Permissions, where a token has them, decide alone: one granted
// pattern must contain the whole of p, a union of several does not count.
// Without them everybody in the organization subscribes to everything; rooms
// and direct events are no matter of patterns.
func MaySubscribe(who *carillon.Principal, p carillon.Pattern) bool {
	if who.Permissions == nil {
		return true
	}
	for _, granted := range who.Permissions.Subscribe {
		if Contains(granted, p) {
			return true
		}
	}
	return false
}

// MayPublish reports whether the principal may publish events of the type.
// Permissions, where a token has them, decide alone. Without them publishers,
// admins and API keys publish every type, members none. It does not look at
// reserved types; the gate does.
func MayPublish(who *carillon.Principal, t carillon.Type) bool {
	if who.Permissions == nil {
		return who.Server() || who.Role == carillon.RolePublisher || who.Role == carillon.RoleAdmin
	}
	for _, granted := range who.Permissions.Publish {
		if Match(granted, t) {
			return true
		}
	}
	return false
}
