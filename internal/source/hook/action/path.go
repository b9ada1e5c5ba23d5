package action

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// lookup finds a value by its path: as a key first, dots and all; else what stands
// before the first dot, and in it the rest. In a list a part is an index.
func lookup(path string, in any) (any, bool) {
	for {
		switch v := in.(type) {
		case map[string]any:
			if found, ok := v[path]; ok {
				return found, true
			}
			head, rest, more := strings.Cut(path, ".")
			next, ok := v[head]
			if !ok || !more {
				return nil, false
			}
			in, path = next, rest
		case []any:
			head, rest, more := strings.Cut(path, ".")
			i, ok := index(head, len(v))
			if !ok {
				return nil, false
			}
			if !more {
				return v[i], true
			}
			in, path = v[i], rest
		default:
			return nil, false
		}
	}
}

// replace puts a value where lookup finds one, and says whether it does.
func replace(path string, in, value any) bool {
	for {
		head, rest, more := strings.Cut(path, ".")
		switch v := in.(type) {
		case map[string]any:
			if _, ok := v[path]; ok {
				v[path] = value
				return true
			}
			next, ok := v[head]
			if !ok || !more {
				return false
			}
			in, path = next, rest
		case []any:
			i, ok := index(head, len(v))
			if !ok {
				return false
			}
			if !more {
				v[i] = value
				return true
			}
			in, path = v[i], rest
		default:
			return false
		}
	}
}

func index(text string, length int) (int, bool) {
	i, err := strconv.ParseUint(text, 10, 32)
	if err != nil || i >= uint64(length) {
		return 0, false
	}
	return int(i), true
}

// asText is a value as rules compare it and commands get it.
func asText(v any) (string, error) {
	switch v.(type) {
	case map[string]any, []any:
		return asJSON(v)
	default:
		return fmt.Sprint(v), nil
	}
}

func asJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("action: %w", err)
	}
	return string(text), nil
}
