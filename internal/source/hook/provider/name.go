package provider

// What an event is called at most, so that with the name of its source before it it is
// an event type.
const (
	maxEvent    = 150 // bytes
	maxSegments = 12
)

// Unnamed is what an event is called whose provider has no name for it.
const Unnamed = "event"

// eventName makes a provider's name into the end of an event type: every character
// but A–Z, a–z, 0–9, '_', '-' and the dots between segments becomes '_', and so do
// an empty segment and the dots after the twelfth. What is longer than 150 bytes is
// cut.
func eventName(said string) string {
	if said == "" {
		return Unnamed
	}
	name := make([]byte, 0, min(len(said)+1, maxEvent+2))
	dots := 0
	for _, r := range said {
		c := byte('_')
		switch {
		case r == '.' && dots < maxSegments-1:
			if len(name) == 0 || name[len(name)-1] == '.' {
				name = append(name, '_')
			}
			c = '.'
			dots++
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-':
			c = byte(r)
		}
		if name = append(name, c); len(name) >= maxEvent {
			break
		}
	}
	if name[len(name)-1] == '.' {
		name = append(name, '_')
	}
	if len(name) > maxEvent {
		name = name[:maxEvent]
		if name[maxEvent-1] == '.' {
			name[maxEvent-1] = '_'
		}
	}
	return string(name)
}

// dotted joins the parts of an event's name that there are.
func dotted(name, rest string) string {
	if name == "" || rest == "" {
		return name + rest
	}
	return name + "." + rest
}
