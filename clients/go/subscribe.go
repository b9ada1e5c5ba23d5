package carillon

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"time"
)

// DedupeWindow is among how many events, the last received, a repeat is
// recognized.
const DedupeWindow = 4096

// queueLen is how many received items wait for Next. Events are at most some
// hundred kilobytes each, so this bounds a subscription's memory too.
const queueLen = 128

// stable is how long a connection must have stood for the next failure to be
// the first again.
const stable = 5 * time.Second

// SubscribeOptions says where a subscription starts and who hears of what else
// happens to it. The zero value starts at now.
//
// OnGap and OnCaughtUp are called by Next, in their place among the events.
// OnConnect and OnDisconnect are called when it happens, from a goroutine of the
// subscription's; they must not block and must not call Close.
type SubscribeOptions struct {
	// After is where to start: "now", "earliest", a time back such as "-10m", a
	// cursor from Subscription.Cursor or a Page, or an event id. "" means now.
	After string

	// Subject limits the patterns to events about this entity.
	Subject string

	// RetryFirst also retries the first connection. Without it, Subscribe
	// returns the error of its only attempt.
	RetryFirst bool

	// OnGap is told of gaps. Nil means that Next returns them as errors.
	OnGap func(Gap)

	// OnCaughtUp is told that all events that were in the log when the
	// subscription was made, or made again after a reconnect, have been
	// delivered.
	OnCaughtUp func()

	// OnConnect is told of every connection that is subscribed.
	OnConnect func(Connection)

	// OnDisconnect is told of every connection, or attempt at one, that failed
	// and is to be tried again after retryIn.
	OnDisconnect func(err *Error, retryIn time.Duration)
}

// Connection is who the server takes a connection for.
type Connection struct {
	ID   string // unguessable; it names the connection to the server
	Org  string
	User string // "" for an API key
}

// Subscription receives events. Next, and Events, may be used by one goroutine
// at a time; Cursor and Close by any.
type Subscription struct {
	client   *Client
	patterns []string
	opts     SubscribeOptions

	ctx    context.Context //nolint:containedctx // the life of run, which Close ends
	cancel context.CancelCauseFunc
	ready  chan struct{} // closed by run at the first subscribed
	done   chan struct{} // closed by run when it ends
	items  chan item     // closed by run when it ends, after err is set
	cursor atomic.Pointer[string]

	// Owned by run.
	after    string // where to resume
	opaque   bool   // after is a cursor from the server, not a name such as now
	backfill bool   // ids are not the connection's cursor until caught_up
	started  bool   // there has been a subscribed
	seen     window
	err      error // why it ended; may be read when items is closed
}

// item is one thing for Next: what it is, and the cursor after it.
type item struct {
	kind   itemKind
	event  Event
	gap    Gap
	cursor string
}

type itemKind uint8

const (
	itemCursor itemKind = iota
	itemEvent
	itemGap
	itemCaughtUp
)

var errEnded = errors.New("the subscription has ended")

// Subscribe receives the events whose type matches one of patterns, and the
// room and direct events of the credential's user; with no patterns, only the
// latter. It returns when the server has accepted the subscription: an event
// published after that is received.
//
// ctx is the life of the subscription, not only of this call: the subscription
// ends with it, or with Close. One of the two is needed to release it.
func (c *Client) Subscribe(ctx context.Context, patterns []string, o SubscribeOptions) (*Subscription, error) {
	s := &Subscription{
		client:   c,
		patterns: append([]string{}, patterns...), // [] in JSON, not null
		opts:     o,
		ready:    make(chan struct{}),
		done:     make(chan struct{}),
		items:    make(chan item, queueLen),
		after:    o.After,
	}
	if s.after == "" {
		s.after = "now" // said aloud, the server delivers nothing before the subscribe
	}
	s.opaque = !named(s.after)
	if s.opaque {
		after := s.after
		s.cursor.Store(&after)
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	go s.run(s.ctx)
	select {
	case <-s.ready:
		return s, nil
	case <-s.done:
		return nil, s.err
	}
}

// named reports whether a cursor is a name rather than a place.
func named(cursor string) bool {
	return cursor == "now" || cursor == "earliest" || cursor[0] == '-'
}

// Events yields events until the subscription ends. It yields gaps as [*Gap]
// errors, and goes on after them if the loop does; any other error is the last
// thing it yields. It ends without an error after Close. Leaving the loop does
// not close the subscription, and a later loop goes on where it left.
func (s *Subscription) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx := context.WithoutCancel(s.ctx) // Next hears of the subscription's end by itself
		for {
			event, err := s.Next(ctx)
			if errors.Is(err, ErrClosed) {
				return
			}
			if !yield(event, err) {
				return
			}
			var gap *Gap
			if err != nil && !errors.As(err, &gap) {
				return
			}
		}
	}
}

// Next waits for the next event. A [*Gap] error stands in its place among the
// events and does not end the subscription; any other error but the one of ctx
// does, and comes again when Next is called again.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if s.ctx.Err() != nil && !errors.Is(context.Cause(s.ctx), errEnded) {
			return Event{}, s.ended()
		}
		select {
		case it, ok := <-s.items:
			if !ok {
				return Event{}, s.err
			}
			if cursor := it.cursor; cursor != "" {
				s.cursor.Store(&cursor)
			}
			switch it.kind {
			case itemEvent:
				return it.event, nil
			case itemGap:
				if s.opts.OnGap == nil {
					return Event{}, &it.gap
				}
				s.opts.OnGap(it.gap)
			case itemCaughtUp:
				if s.opts.OnCaughtUp != nil {
					s.opts.OnCaughtUp()
				}
			case itemCursor:
			}
		case <-ctx.Done():
			return Event{}, canceled("subscribe", context.Cause(ctx), nil)
		}
	}
}

// Cursor is the place up to which Next has returned everything: handed to
// SubscribeOptions.After, a later subscription goes on from there. It moves
// without events too, when Next is waiting and the log went on without a
// match. It is "" only when After was a name, such as now, and the server has
// not yet said where that is.
func (s *Subscription) Cursor() string {
	if c := s.cursor.Load(); c != nil {
		return *c
	}
	return ""
}

// Close ends the subscription, tells the server, and waits, about a second at
// most, until it has. Its error is always nil.
func (s *Subscription) Close() error {
	s.cancel(ErrClosed)
	<-s.done
	return nil
}

// ended is why the context of the subscription ended.
func (s *Subscription) ended() error {
	cause := context.Cause(s.ctx)
	if errors.Is(cause, ErrClosed) {
		return ErrClosed
	}
	return canceled("subscribe", cause, nil)
}

// run keeps a connection until the subscription ends.
func (s *Subscription) run(ctx context.Context) {
	defer close(s.done)
	defer close(s.items)
	defer s.cancel(errEnded)
	for try := 0; ; try++ {
		up, err := s.connect(ctx)
		if ctx.Err() != nil {
			s.err = s.ended()
			return
		}
		if !err.Retryable || !s.started && !s.opts.RetryFirst {
			s.err = err
			return
		}
		if up >= stable {
			try = 0
		}
		wait := time.Duration(0)
		if !err.atOnce || try > 0 || err.RetryAfter > 0 {
			wait = backoff(try, err.RetryAfter)
		}
		s.client.log.Info("carillon: connection lost", "error", err, "retry_in", wait)
		if s.opts.OnDisconnect != nil {
			s.opts.OnDisconnect(err, wait)
		}
		if !sleep(ctx, wait) {
			s.err = s.ended()
			return
		}
	}
}

// move makes cursor the place to resume from. The zero cursor moves nothing.
func (s *Subscription) move(cursor string) {
	if cursor != "" {
		s.after, s.opaque = cursor, true
	}
}

// place is the cursor to show the user, once there is one.
func (s *Subscription) place() string {
	if !s.opaque {
		return ""
	}
	return s.after
}
