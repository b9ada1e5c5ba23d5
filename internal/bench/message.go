package bench

import "strconv"

// message is a frame as a subscriber receives it: an event, with what our
// publisher wrote into its data, or something else.
type message struct {
	kind      []byte // the frame's type: "event", "heartbeat", …
	n         uint64
	id        []byte
	eventType []byte
	subject   []byte
	cursor    []byte
	retry     uint64 // milliseconds after which to come back
	mark      mark
	hasMark   bool
}

// mark is what a publisher writes into an event's data so that a receiver can
// check it: the run and org it belongs to, the lane (one sequence of publishes,
// each answered before the next is sent), its place there, and when it should
// have been sent.
type mark struct {
	run, org []byte
	lane     uint64
	seq      uint64
	at       int64
}

// minData is about the size of a mark with nothing beside it.
const minData = 80

// appendData appends the data of an event: the mark, and padding up to size.
func appendData(dst []byte, run, org string, lane int, seq uint64, at int64, size int) []byte {
	start := len(dst)
	dst = append(dst, `{"r":"`...)
	dst = append(dst, run...)
	dst = append(dst, `","o":"`...)
	dst = append(dst, org...)
	dst = append(dst, `","l":`...)
	dst = strconv.AppendInt(dst, int64(lane), 10)
	dst = append(dst, `,"s":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `,"t":`...)
	dst = strconv.AppendInt(dst, at, 10)
	dst = append(dst, `,"p":"`...)
	for pad := size - (len(dst) - start) - 2; pad > 0; pad -= len(padding) {
		dst = append(dst, padding[:min(pad, len(padding))]...)
	}
	return append(dst, `"}`...)
}

const padding = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// appendEvent appends one event of a request body.
func appendEvent(dst []byte, s *stream, lane int, seq uint64, at int64, size int) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, s.eventType...)
	if s.subject != "" {
		dst = append(dst, `","subject":"`...)
		dst = append(dst, s.subject...)
	}
	dst = append(dst, `","data":`...)
	dst = appendData(dst, s.run, s.org, lane, seq, at, size)
	return append(dst, '}')
}

// read takes a frame apart. It reports false for text that is not an object.
func (m *message) read(b []byte) bool {
	*m = message{}
	f := object(b)
	for {
		key, value, ok := f.next()
		if !ok {
			return !f.bad
		}
		switch string(key) {
		case "type":
			m.kind = text(value)
		case "n":
			m.n, _ = number(value)
		case "id":
			m.id = text(value)
		case "event_type":
			m.eventType = text(value)
		case "subject":
			m.subject = text(value)
		case "cursor":
			m.cursor = text(value)
		case "retry_after_ms":
			m.retry, _ = number(value)
		case "payload":
			m.hasMark = m.mark.read(value)
		}
	}
}

func (k *mark) read(b []byte) bool {
	*k = mark{}
	const all = 1<<5 - 1
	seen := 0
	f := object(b)
	for seen != all {
		key, value, ok := f.next()
		if !ok {
			return false
		}
		if len(key) != 1 {
			continue
		}
		switch key[0] {
		case 'r':
			k.run = text(value)
			seen |= 1
		case 'o':
			k.org = text(value)
			seen |= 2
		case 'l':
			if k.lane, ok = number(value); ok {
				seen |= 4
			}
		case 's':
			if k.seq, ok = number(value); ok {
				seen |= 8
			}
		case 't':
			var at uint64
			if at, ok = number(value); ok {
				k.at = int64(at)
				seen |= 16
			}
		}
	}
	return true
}
