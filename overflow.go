package carillon

// Overflow is what becomes of a subscription's events while its client is slow.
// Smaller is more careful: an event that several subscriptions want comes under
// the smallest of theirs.
type Overflow uint8

// The policies.
const (
	OverflowReplay     Overflow = iota // all of them come, late
	OverflowConflate                   // the newest of each subject
	OverflowDropOldest                 // the newest few
	OverflowDisconnect                 // too many of them end the connection
)

// ParseOverflow reads the name of a policy.
func ParseOverflow(s string) (Overflow, error) {
	switch s {
	case "replay":
		return OverflowReplay, nil
	case "conflate":
		return OverflowConflate, nil
	case "drop_oldest":
		return OverflowDropOldest, nil
	case "disconnect":
		return OverflowDisconnect, nil
	}
	return 0, BadRequest("overflow %q: it is replay, drop_oldest, conflate or disconnect", clip(s))
}

func (o Overflow) String() string {
	return [...]string{"replay", "conflate", "drop_oldest", "disconnect"}[o]
}
