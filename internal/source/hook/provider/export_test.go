package provider

// EventName is how a provider's name of an event becomes the end of a type.
func EventName(said string) string { return eventName(said) }

// Compact is a JSON text as a payload.
func Compact(text []byte) ([]byte, error) { return compact(text) }

// Find is the value at a path in a JSON text, as it is written.
func Find(text []byte, path ...string) []byte { return find(text, path...) }
