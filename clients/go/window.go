package carillon

// window remembers the last DedupeWindow ids. The zero value is empty.
type window struct {
	ids  map[string]struct{}
	ring []string
	next int // the oldest, once the ring is full
}

// add reports whether id is new, and remembers it.
func (w *window) add(id string) bool {
	if _, ok := w.ids[id]; ok {
		return false
	}
	if w.ids == nil {
		w.ids = make(map[string]struct{})
	}
	if len(w.ring) < DedupeWindow {
		w.ring = append(w.ring, id)
	} else {
		delete(w.ids, w.ring[w.next])
		w.ring[w.next] = id
		w.next = (w.next + 1) % DedupeWindow
	}
	w.ids[id] = struct{}{}
	return true
}
