package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

const (
	tailBatch     = 512 // entries asked for at a time
	tailHeartbeat = 500 * time.Millisecond
	tailExpiry    = 5 * time.Second
	tailSilence   = 4 * tailHeartbeat // without a sign of life: broken

	// Those of an intake. Its entries may be large: the server breaks with who has
	// 64 MiB before it unread, and says nothing while it stores a large batch.
	intakeTailBatch   = 32
	intakeTailSilence = 4 * tailSilence

	// tailBacklog holds all the server may send, and what it says between.
	tailBacklog = 2*tailBatch + 64
	// consumerLife is how long the server keeps a consumer nobody asks.
	consumerLife = 30 * time.Second
)

// consume follows one partition that others write, too: it reads through a
// consumer of its own and checks that the consumer's count has no hole. A consumer
// that repairs itself would go on silently on a stream that was made anew, so at
// anything odd consume gives up instead.
func (e *Engine) consume(ctx context.Context, p *partition, after uint64, f func(*carillon.Entry)) error {
	messages := make(chan *nats.Msg, tailBacklog)
	inbox := newInbox()
	sub, err := p.kind.tails.ChanSubscribe(inbox, messages)
	if err != nil {
		return wrap(err, "tail "+p.stream)
	}
	defer func() { _ = sub.Unsubscribe() }()

	starting, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	consumer, err := e.manage.CreateConsumer(starting, p.stream, jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       after + 1,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: consumerLife,
	})
	if err != nil {
		return wrap(err, "tail "+p.stream)
	}
	name := consumer.CachedInfo().Name
	defer e.dropConsumer(p, name)

	t := tailer{
		stream: p.stream, after: after, inbox: inbox,
		next:   apiPrefix + "CONSUMER.MSG.NEXT." + p.stream + "." + name,
		conn:   p.kind.tails,
		window: p.kind.window,
		decode: decoder{partition: uint16(p.number)},
	}
	if err := t.ask(); err != nil {
		return err
	}
	silence := time.NewTimer(p.kind.silence)
	defer silence.Stop()
	for {
		select {
		case msg := <-messages:
			entry, err := t.receive(msg)
			if errors.Is(err, errUnknownYet) {
				err = t.askAgain(ctx)
			} else {
				silence.Reset(p.kind.silence)
			}
			if err != nil {
				return err
			}
			if entry != nil {
				p.raise(entry.Pos)
				f(entry)
			}
		case <-silence.C:
			return fmt.Errorf("%w: nothing heard of %s for %v", errTailBroken, p.stream, p.kind.silence)
		case <-e.closing:
			return engine.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
		if sub.IsValid() {
			continue
		}
		return fmt.Errorf("%w: the subscription to %s ended", errTailBroken, p.stream)
	}
}

// dropConsumer frees a consumer soon; the server would do so later.
func (e *Engine) dropConsumer(p *partition, name string) {
	_ = p.kind.tails.Publish(apiPrefix+"CONSUMER.DELETE."+p.stream+"."+name, nil)
}

// tailer reads the messages of one consumer.
type tailer struct {
	stream string
	conn   *nats.Conn
	inbox  string
	next   string
	window int // entries asked for at a time
	decode decoder

	known bool   // it has answered
	after uint64 // the last sequence passed on
	count uint64 // of messages the consumer has delivered
	asked int    // messages the server may still send
}

func (t *tailer) ask() error {
	body, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{t.window, tailExpiry, tailHeartbeat})
	if err != nil {
		return err
	}
	t.asked += t.window
	return wrap(t.conn.PublishRequest(t.next, t.inbox, body), "tail "+t.stream)
}

// askAgain asks a consumer that its server has made, and the one we are connected
// to has not heard of yet.
func (t *tailer) askAgain(ctx context.Context) error {
	t.asked = 0
	select {
	case <-time.After(inProcessWait):
		return t.ask()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive handles one message: an entry, or a word of the server's.
func (t *tailer) receive(msg *nats.Msg) (*carillon.Entry, error) {
	if status := msg.Header.Get(hdrStatus); status != "" && len(msg.Data) == 0 {
		err := t.heard(status, msg)
		t.known = t.known || err == nil
		return nil, err
	}
	t.known = true
	m, err := parseDelivery(msg.Reply)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errTailBroken, t.stream, err)
	}
	t.count++
	if m.count != t.count || m.delivered != 1 || m.stream != t.stream {
		return nil, fmt.Errorf("%w: delivery %d of %s instead of %d", errTailBroken, m.count, t.stream, t.count)
	}
	if t.asked--; t.asked <= t.window/2 {
		if err := t.ask(); err != nil {
			return nil, err
		}
	}
	if m.seq <= t.after {
		return nil, nil
	}
	entry, err := t.decode.entry(msg.Subject, msg.Header, msg.Data, m.seq, m.time)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: sequence %d: %w", errTailBroken, t.stream, m.seq, err)
	}
	t.after = m.seq
	return entry, nil
}

func (t *tailer) heard(status string, msg *nats.Msg) error {
	switch status {
	case "100": // heartbeat: it tells how many it has delivered
		if last := msg.Header.Get("Nats-Last-Consumer"); last != "" && last != strconv.FormatUint(t.count, 10) {
			return fmt.Errorf("%w: %s has delivered %s, here are %d", errTailBroken, t.stream, last, t.count)
		}
		return nil
	case "503": // nobody has the consumer
		if !t.known {
			return errUnknownYet
		}
	case "408": // a request ran out
		left, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			return fmt.Errorf("%w: %s: a request ended without its count", errTailBroken, t.stream)
		}
		if t.asked -= left; t.asked <= t.window/2 {
			return t.ask()
		}
		return nil
	}
	return fmt.Errorf("%w: %s: the log answers %s %s", errTailBroken, t.stream, status, msg.Header.Get("Description"))
}

// delivery is what a consumer says of a message, in its reply subject.
type delivery struct {
	stream                string
	delivered, seq, count uint64
	time                  time.Time
}

// parseDelivery reads $JS.ACK.<stream>.<consumer>.<delivered>.<stream
// sequence>.<consumer sequence>.<time>.<pending>, or the longer form with
// domain and account before the stream.
func parseDelivery(reply string) (d delivery, err error) {
	rest, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if !ok {
		return d, fmt.Errorf("no delivery: %q", reply)
	}
	if strings.Count(rest, ".") >= 8 {
		for range 2 {
			_, rest, _ = strings.Cut(rest, ".")
		}
	}
	var nanos uint64
	d.stream, rest, _ = strings.Cut(rest, ".")
	_, rest, _ = strings.Cut(rest, ".")
	for _, field := range []*uint64{&d.delivered, &d.seq, &d.count, &nanos} {
		var token string
		token, rest, _ = strings.Cut(rest, ".")
		if *field, err = strconv.ParseUint(token, 10, 64); err != nil {
			return d, fmt.Errorf("no delivery: %q", reply)
		}
	}
	d.time = time.Unix(0, int64(nanos)).UTC()
	return d, nil
}
