package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// log is the log of one organization.
type log struct {
	engine *Engine
	part   *partition
	org    *orgState
}

// Partition is where the organization lives.
func (l *log) Partition() int { return l.part.number }

// Read calls f for the organization's entries in r; see engine.Log.
func (l *log) Read(ctx context.Context, r engine.Range, f func(*carillon.Entry) error) (engine.End, error) {
	e := l.engine
	end := engine.End{Seen: r.After}
	if _, err := e.partition(l.part.number); err != nil {
		return end, err
	}
	setDefault(&r.Limit, engine.DefaultReadLimit)
	setDefault(&r.MaxBytes, engine.DefaultReadBytes)
	if r.UpTo > 0 && r.UpTo <= r.After {
		return end, nil
	}
	var certain uint64
	var err error
	if r.Leader {
		var s engine.State
		s, err = e.state(ctx, l.part)
		certain = s.Last.Seq
	} else {
		certain, err = e.certain(ctx, l.part)
	}
	if err != nil {
		return end, err
	}
	s := scan{part: l.part, subject: l.org.subject, r: r, f: f, seen: r.After, decode: &decoder{partition: uint16(l.part.number)}}
	if r.Leader {
		err = s.leader(ctx)
	} else {
		if err = s.direct(ctx); err == nil && s.ended && e.config.NATS != nil {
			err = s.confirm(ctx)
		}
	}
	e.stats.read.Add(uint64(s.read))
	if err != nil {
		return engine.End{Seen: s.seen, More: true}, err
	}
	end.More = !s.ended && !s.past && (r.UpTo == 0 || s.seen < r.UpTo)
	if end.More && (r.UpTo > 0 || r.Leader) { // perhaps: something follows, or was not looked for
		if err := s.peek(ctx); err != nil {
			return engine.End{Seen: s.seen, More: true}, err
		}
		end.More = !s.ended && !s.past
	}
	switch {
	case s.past: // an entry beyond the range was seen
		s.seen = r.UpTo
	case s.ended && r.UpTo > 0:
		s.seen = max(s.seen, min(certain, r.UpTo))
	case s.ended:
		s.seen = max(s.seen, certain)
	}
	end.Seen = s.seen
	return end, nil
}

// scan is one Read on its way.
type scan struct {
	part    *partition
	subject string // or "": everybody's entries
	r       engine.Range
	f       func(*carillon.Entry) error
	decode  *decoder

	seen  uint64 // the last entry passed on
	read  int
	bytes int
	past  bool // an entry above UpTo was met
	ended bool // nothing of the organization follows
}

func (s *scan) full() bool { return s.read >= s.r.Limit || s.bytes >= s.r.MaxBytes }

// take passes an entry on.
func (s *scan) take(m stored) error {
	if s.r.UpTo > 0 && m.seq > s.r.UpTo {
		s.past = true
		return nil
	}
	if m.seq <= s.seen {
		return fmt.Errorf("jetstream: read %s: sequence %d after %d", s.part.stream, m.seq, s.seen)
	}
	entry, err := s.decode.entry(m.subject, m.header, m.data, m.seq, m.time)
	if err != nil {
		return fmt.Errorf("jetstream: read %s: sequence %d: %w", s.part.stream, m.seq, err)
	}
	if err := s.f(entry); err != nil {
		return err
	}
	s.seen = m.seq
	s.read++
	s.bytes += len(m.data)
	return nil
}

// peek looks for an entry between where the read was full and the range's end.
func (s *scan) peek(ctx context.Context) error {
	m, err := s.part.kind.engine.get(ctx, s.part, getRequest{Seq: s.seen + 1, NextFor: s.subject}, true)
	if err != nil {
		return err
	}
	s.ended = m.seq == 0
	s.past = s.r.UpTo > 0 && m.seq > s.r.UpTo
	return nil
}

// confirm asks the leader whether the end that was seen is the end: a replica
// that lags sees it too early. If it is not, the leader goes on.
func (s *scan) confirm(ctx context.Context) error {
	if s.r.UpTo > 0 && s.seen >= s.r.UpTo {
		return nil
	}
	if s.full() {
		return s.peek(ctx)
	}
	s.ended = false
	return s.leader(ctx)
}

func (s *scan) leader(ctx context.Context) error {
	for !s.full() && !s.past && !s.ended {
		m, err := s.part.kind.engine.get(ctx, s.part, getRequest{Seq: s.seen + 1, NextFor: s.subject}, true)
		if err != nil {
			return err
		}
		if m.seq == 0 {
			s.ended = true
			return nil
		}
		if err := s.take(m); err != nil {
			return err
		}
	}
	return nil
}

// What is asked for at once: entries, and bytes of them. The server breaks with who
// has 64 MiB before it unread, and all reads share a connection.
const (
	readBatch = 512
	readBytes = 4 << 20
)

func (s *scan) direct(ctx context.Context) error {
	e := s.part.kind.engine
	reader, err := e.readers.get()
	if err != nil {
		return wrap(err, "read "+s.part.stream)
	}
	defer e.readers.put(reader)
	for !s.full() && !s.past && !s.ended {
		n := min(readBatch, s.r.Limit-s.read)
		if s.r.UpTo > 0 {
			if s.seen >= s.r.UpTo {
				s.ended = true
				return nil
			}
			n = int(min(uint64(n), s.r.UpTo-s.seen))
		}
		request := getRequest{Seq: s.seen + 1, NextFor: s.subject, Batch: n, MaxBytes: min(s.r.MaxBytes-s.bytes, readBytes)}
		if err := s.batch(ctx, reader, request); err != nil {
			return err
		}
	}
	return nil
}

// batch asks for some entries and takes them.
func (s *scan) batch(ctx context.Context, reader *reader, request getRequest) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	inbox, err := reader.ask(s.part.stream, body)
	if err != nil {
		return wrap(err, "read "+s.part.stream)
	}
	before := s.seen
	for {
		msg, err := reader.next(ctx, inbox)
		if err != nil {
			return wrap(err, "read "+s.part.stream)
		}
		switch status := msg.Header.Get(hdrStatus); status {
		case "":
		case "204": // the end of the batch
			s.ended = msg.Header.Get(hdrPending) == "0" && !s.past
			if s.seen == before && !s.ended && !s.past {
				return fmt.Errorf("jetstream: read %s: an empty answer", s.part.stream)
			}
			return nil
		case "404":
			s.ended = true
			return nil
		default:
			return fmt.Errorf("jetstream: read %s: the log answers %s %s", s.part.stream, status, msg.Header.Get("Description"))
		}
		if s.past {
			continue
		}
		m, err := direct(msg)
		if err == nil {
			err = s.take(m)
		}
		if err != nil {
			return err
		}
	}
}

// reader is a subscription for the answers of one read at a time.
type reader struct {
	conn    *nats.Conn
	sub     *nats.Subscription
	answers chan *nats.Msg
	inbox   string
	asked   uint64
	timer   *time.Timer
}

// readerBacklog holds the answers to a read that was given up and to the next.
const readerBacklog = 3 * (readBatch + 1)

// ask sends a request and returns the subject of its answers.
func (r *reader) ask(stream string, body []byte) (inbox string, err error) {
	r.asked++
	inbox = r.inbox + strconv.FormatUint(r.asked, 10)
	return inbox, r.conn.PublishRequest(directGet+stream, inbox, body)
}

// next waits for an answer to the request; older ones are dropped.
func (r *reader) next(ctx context.Context, inbox string) (*nats.Msg, error) {
	r.timer.Reset(requestTimeout)
	for {
		select {
		case msg := <-r.answers:
			if msg.Subject == inbox {
				return msg, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.timer.C:
			return nil, nats.ErrTimeout
		}
	}
}

// readerPool keeps readers for the next read.
type readerPool struct {
	conn *nats.Conn
	mu   sync.Mutex
	idle []*reader
}

const maxIdleReaders = 16

func (p *readerPool) get() (*reader, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return r, nil
	}
	p.mu.Unlock()
	r := &reader{conn: p.conn, answers: make(chan *nats.Msg, readerBacklog), inbox: newInbox() + ".", timer: time.NewTimer(time.Hour)}
	var err error
	r.sub, err = p.conn.ChanSubscribe(r.inbox+"*", r.answers)
	return r, err
}

func (p *readerPool) put(r *reader) {
	if dropped, err := r.sub.Dropped(); err == nil && dropped == 0 {
		p.mu.Lock()
		if len(p.idle) < maxIdleReaders {
			p.idle = append(p.idle, r)
			r = nil
		}
		p.mu.Unlock()
	}
	if r != nil {
		_ = r.sub.Unsubscribe()
		r.timer.Stop()
	}
}
