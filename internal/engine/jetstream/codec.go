package jetstream

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon"
)

// The headers of a stored event; its data is the body.
const (
	hdrMsgID    = "Nats-Msg-Id"
	hdrOwnID    = "Car-Id" // the same, of an entry that the server need not remember
	hdrType     = "Car-Type"
	hdrTime     = "Car-Time" // Unix milliseconds
	hdrSubject  = "Car-Subject"
	hdrRoom     = "Car-To-Room"
	hdrUsers    = "Car-To-Users" // comma separated
	hdrFrom     = "Car-From"
	hdrSource   = "Car-Src"
	hdrDelivery = "Car-Delivery"
	hdrCE       = "Car-CE"
	hdrFirst    = "Car-First" // on the first entry an organization ever had

	hdrBatchID     = "Nats-Batch-Id"
	hdrBatchSeq    = "Nats-Batch-Sequence"
	hdrBatchCommit = "Nats-Batch-Commit"

	hdrRollup       = "Nats-Rollup"
	hdrExpectLastID = "Nats-Expected-Last-Msg-Id"

	hdrStatus   = "Status"
	hdrSequence = "Nats-Sequence"
	hdrStamp    = "Nats-Time-Stamp"
	hdrOrigin   = "Nats-Subject"
	hdrPending  = "Nats-Num-Pending"
)

// Limits of the server.
const (
	maxMessage = 1 << 20   // headers and data
	maxHeaders = 1<<16 - 1 // all headers together
	maxBatch   = 1000      // events in one atomic batch
	// headerSlack covers what the committer adds: batch headers, the first mark.
	headerSlack = 256
)

// subjectFor is the one place where an organization's subject is built, in a
// branch of those of all. An OrgID is one token by its type.
func subjectFor(prefix, branch string, org carillon.OrgID) string {
	return prefix + "." + branch + "." + string(org)
}

// signalBranch has the subjects of ephemeral events, which no stream takes.
const signalBranch = "sig"

// checkOf is the check of the entry stored under a message id; never 0.
func checkOf(id string) uint32 {
	if check := uint32(xxhash.Sum64String(id)); check != 0 {
		return check
	}
	return 1
}

// idOf is the id under which an entry was stored.
func idOf(h nats.Header) string {
	if id := h.Get(hdrMsgID); id != "" {
		return id
	}
	return h.Get(hdrOwnID)
}

// encode writes the event's headers into h, which is empty.
func encode(h headers, ev *carillon.Event) {
	h.set(hdrType, string(ev.Type))
	h.set(hdrTime, strconv.FormatInt(ev.Time.UnixMilli(), 10))
	h.escaped(hdrSubject, ev.Subject)
	h.escaped(hdrRoom, ev.To.Room)
	h.escaped(hdrFrom, ev.From)
	h.escaped(hdrSource, ev.Source)
	h.escaped(hdrDelivery, ev.Delivery)
	if ev.CE != nil {
		h.escaped(hdrCE, string(ev.CE))
	}
	if len(ev.To.Users) > 0 {
		h.set(hdrUsers, joinUsers(ev.To.Users))
	}
}

// encodedSize is how many bytes the message takes, headers apart.
func encodedSize(ev *carillon.Event, id string) (head, total int) {
	head = headerSlack + len(id) + len(ev.Type) + escapedLen(ev.Subject) + escapedLen(ev.To.Room) + escapedLen(ev.From) +
		escapedLen(ev.Source) + escapedLen(ev.Delivery) + escapedLen(string(ev.CE))
	for _, user := range ev.To.Users {
		head += 1 + escapedLen(user) + 2*strings.Count(user, ",")
	}
	return head, head + len(ev.Data)
}

// messageSize is how many bytes the message takes, or the refusal of one that is
// too large: event i of n.
func messageSize(ev *carillon.Event, id string, i, n int) (int, error) {
	head, total := encodedSize(ev, id)
	switch {
	case head > maxHeaders:
		return total, carillon.Errorf(carillon.CodeTooLarge, "event %d of %d takes %d bytes beside its data; at most %d",
			i+1, n, head, maxHeaders)
	case total > maxMessage:
		return total, carillon.Errorf(carillon.CodeTooLarge, "event %d of %d takes %d bytes with its envelope; at most %d, and %d of them beside the data",
			i+1, n, total, maxMessage, maxHeaders)
	}
	return total, nil
}

// headers is a nats.Header that is used again and again: its one-element
// slices are kept.
type headers struct {
	m      nats.Header
	values map[string][]string
}

func newHeaders() headers {
	return headers{m: make(nats.Header, 16), values: make(map[string][]string, 16)}
}

func (h headers) set(key, value string) {
	v := h.values[key]
	if v == nil {
		v = make([]string, 1)
		h.values[key] = v
	}
	v[0] = value
	h.m[key] = v
}

func (h headers) escaped(key, value string) {
	if value != "" {
		h.set(key, escape(value))
	}
}

// A header value must not hold a line break, and its ends must not be spaces:
// whoever reads it trims them. '%' begins a byte in hexadecimal.
func mustEscape(c byte, atEnd bool) bool {
	return c < ' ' || c == 0x7f || c == '%' || atEnd && (c == ' ' || c >= 0x80)
}

func escapedLen(s string) int {
	n := len(s)
	for i := range len(s) {
		if mustEscape(s[i], i == 0 || i == len(s)-1) {
			n += 2
		}
	}
	return n
}

func escape(s string) string {
	n := escapedLen(s)
	if n == len(s) {
		return s
	}
	return string(appendEscaped(make([]byte, 0, n), s, 0))
}

func appendEscaped(dst []byte, s string, also byte) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if mustEscape(c, i == 0 || i == len(s)-1) || also != 0 && c == also {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

var errEscape = errors.New("a header value is not escaped as it should be")

func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errEscape
		}
		b, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", errEscape
		}
		out = append(out, byte(b))
		i += 2
	}
	return string(out), nil
}

func joinUsers(users []string) string {
	var out []byte
	for i, user := range users {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendEscaped(out, user, ',')
	}
	return string(out)
}

// decoder turns stored messages into entries. Strings that repeat are shared
// between them. Not for concurrent use.
type decoder struct {
	partition uint16
	shared    map[string]string
}

// maxShared bounds a decoder's shared strings; past it a new one takes the place
// of any other.
const maxShared = 4096

func (d *decoder) share(s string) string {
	if s == "" {
		return ""
	}
	if have, ok := d.shared[s]; ok {
		return have
	}
	if d.shared == nil {
		d.shared = make(map[string]string)
	}
	if len(d.shared) >= maxShared {
		for other := range d.shared { // begins anywhere
			delete(d.shared, other)
			break
		}
	}
	s = strings.Clone(s) // not the whole header block
	d.shared[s] = s
	return s
}

// entry decodes a message that was stored at seq under a subject.
func (d *decoder) entry(subject string, h nats.Header, data []byte, seq uint64, accepted time.Time) (*carillon.Entry, error) {
	e := &carillon.Entry{
		Org:      carillon.OrgID(d.share(subject[strings.LastIndexByte(subject, '.')+1:])),
		Pos:      carillon.Position{Partition: d.partition, Seq: seq},
		Accepted: accepted,
	}
	e.Data = bytes.Clone(data) // the message's buffer holds the headers too
	var err error
	own := func(s string) string {
		s, e := unescape(s)
		err = errors.Join(err, e)
		return s
	}
	for key, values := range h {
		if len(values) == 0 {
			continue
		}
		value := values[0]
		switch key {
		case hdrMsgID, hdrOwnID:
			e.Pos.Check = checkOf(value)
		case hdrType:
			e.Type = carillon.Type(d.share(value))
		case hdrTime:
			ms, e2 := strconv.ParseInt(value, 10, 64)
			err = errors.Join(err, e2)
			e.Time = time.UnixMilli(ms).UTC()
		case hdrSubject:
			e.Subject = strings.Clone(own(value))
		case hdrRoom:
			e.To.Room = d.share(own(value))
		case hdrFrom:
			e.From = d.share(own(value))
		case hdrSource:
			e.Source = d.share(own(value))
		case hdrDelivery:
			e.Delivery = strings.Clone(own(value))
		case hdrCE:
			e.CE = []byte(own(value))
		case hdrUsers:
			for user := range strings.SplitSeq(value, ",") {
				e.To.Users = append(e.To.Users, d.share(own(user)))
			}
		}
	}
	if e.Pos.Check == 0 {
		e.Pos.Check = checkOf("")
	}
	return e, err
}

// made is what entry reads back of an event that was stored, but for the time: it
// keeps nothing of what the event came in.
func (d *decoder) made(ev *carillon.Event, org carillon.OrgID, pos carillon.Position, accepted time.Time) *carillon.Entry {
	e := &carillon.Entry{
		Event: carillon.Event{
			Type:     carillon.Type(d.share(string(ev.Type))),
			Time:     time.UnixMilli(ev.Time.UnixMilli()).UTC(),
			Subject:  strings.Clone(ev.Subject),
			Data:     append([]byte{}, ev.Data...),
			To:       carillon.Audience{Room: d.share(ev.To.Room)},
			From:     d.share(ev.From),
			Source:   d.share(ev.Source),
			Delivery: strings.Clone(ev.Delivery),
		},
		Org: org, Pos: pos, Accepted: accepted,
	}
	if len(ev.CE) > 0 {
		e.CE = bytes.Clone(ev.CE)
	}
	for _, user := range ev.To.Users {
		e.To.Users = append(e.To.Users, d.share(user))
	}
	return e
}
