package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// Error codes of the server that the committer tells apart.
const (
	codeNoResponders    = -1 // ours: nobody serves the stream just now
	codeContainsKnown   = 10201
	codeInProcess       = 10158
	codeIncomplete      = 10176
	codeMessageTooLarge = 10054
	codeHeadersTooLarge = 10097
	codeNoResources     = 10023
	codeNoStorage       = 10047
	codeNotStored       = 10077
	codeNoMessage       = 10037
)

// Waits between attempts.
const (
	retryWait     = 50 * time.Millisecond
	inProcessWait = 20 * time.Millisecond
	unavailable   = 2 * time.Second // what a client is told to wait
)

// ackBacklog is how many answers may lie unread: those of the largest flight
// and of one given up before it, twice over.
const ackBacklog = 4 * maxBatch

// ack is the server's answer to a publish.
type ack struct {
	seq  uint64
	dup  bool
	code int // 0: stored
	text string
}

// commit brings a flight into the log: it flies until every batch in it is
// stored, refused or out of time. Nothing is sent meanwhile but what joins a
// flight that goes well, at its end, so a batch is never overtaken by one that
// was appended later.
func (c *committer) commit(batches []*pending, grow bool) {
	for ; ; grow = false {
		if reason := c.engine.shut.Load(); reason != nil {
			for _, p := range batches {
				c.answer(p, carillon.Unavailable(unavailable, *reason, "the log cannot be written just now; try again with the same id"))
			}
			c.trouble.Store(nil)
			return
		}
		var wait time.Duration
		batches, wait = c.fly(batches, grow)
		left := batches[:0]
		for _, p := range batches {
			switch {
			case p.answered:
			case p.err != nil:
				c.answer(p, p.err)
			case p.left == 0:
				c.answer(p, nil)
			case time.Since(p.since) >= c.engine.config.PublishTimeout:
				c.answer(p, c.late())
			default:
				left = append(left, p)
			}
		}
		if batches = left; len(batches) == 0 {
			c.trouble.Store(nil)
			c.careful = false
			return
		}
		if !c.pause(wait) {
			for _, p := range batches {
				c.answer(p, carillon.Unavailable(time.Second, engine.ErrClosed, "the server is stopping; try again"))
			}
			return
		}
	}
}

// late is the error of a batch that waited too long.
func (c *committer) late() error {
	err := errors.New("no answer from the log")
	if reason := c.trouble.Load(); reason != nil {
		err = *reason
	}
	return carillon.Unavailable(unavailable, err, "the log did not answer within %v; the event may still be stored, so try again with the same id",
		c.engine.config.PublishTimeout)
}

// pause waits before the next attempt; false means that the engine gives up.
func (c *committer) pause(d time.Duration) bool {
	if d <= 0 {
		select {
		case <-c.engine.kill:
			return false
		default:
			return true
		}
	}
	c.timer.Reset(d)
	select {
	case <-c.timer.C:
		return true
	case <-c.engine.kill:
		return false
	}
}

func (c *committer) failed(err error) { c.trouble.Store(&err) }

// fly makes one attempt and says how long to wait before the next. With grow,
// batches that were appended meanwhile may join it; all has them too.
func (c *committer) fly(batches []*pending, grow bool) (all []*pending, wait time.Duration) {
	if err := c.link(); err != nil {
		c.failed(err)
		return batches, retryWait
	}
	whole := c.pick(batches)
	if len(c.items) == 0 {
		return batches, 0
	}
	first, err := c.findNew(c.items)
	if err != nil {
		c.failed(err)
		return batches, retryWait
	}
	c.flight++
	c.engine.stats.flights.Add(1)
	// What a large array takes says nothing of others.
	usual := c.bytes <= flightBytes
	start := time.Now()
	if !whole && !c.cost.batch(len(c.items)) {
		var good bool
		batches, good, wait = c.flyPlain(batches, first, grow)
		c.unknown(c.items)
		if good && usual {
			c.cost.flewPlain(len(c.items), time.Since(start))
		}
		c.settle(c.items, batches)
		return batches, wait
	}
	c.engine.stats.batchFlights.Add(1)
	a, guilty, ok := c.flyBatch(c.items, first)
	switch {
	case !ok:
		c.unknown(c.items)
		return batches, retryWait
	case guilty != nil:
		guilty.owner.err = a.shown()
		return batches, 0
	case a.code != 0:
		return batches, c.batchRefused(a, c.items, batches)
	}
	if usual {
		c.cost.flewBatch(len(c.items), time.Since(start))
	}
	c.settle(c.items, batches)
	return batches, 0
}

// unknown marks the items that were sent and not answered.
func (c *committer) unknown(items []*item) {
	some := false
	for _, it := range items {
		if !it.stored && !it.refused {
			it.unsure, some = true, true
		}
	}
	if some {
		c.part.feed.put(nil)
	}
}

// pick lists the items that have to be sent in c.items: of those with one id
// only the first. whole: some batch has more than one, so they must fly as one.
func (c *committer) pick(batches []*pending) (whole bool) {
	c.items, c.bytes = c.items[:0], 0
	clear(c.sent)
	for _, p := range batches {
		if p.err == nil && !p.answered && c.add(p) > 1 {
			whole = true
		}
	}
	return whole
}

// add puts a batch's items into the flight and says how many of them fly.
func (c *committer) add(p *pending) (n int) {
	if p.attempts++; p.attempts == 1 {
		p.floor = c.head
	}
	c.bytes += p.size
	for i := range p.items {
		it := &p.items[i]
		it.same, it.refused = nil, false
		if it.stored {
			continue
		}
		if it.keyed {
			if it.same = c.sent[it.id]; it.same != nil {
				continue
			}
			c.sent[it.id] = it
		}
		c.items = append(c.items, it)
		n++
	}
	return n
}

// findNew returns the items that are the first ever of their organization.
func (c *committer) findNew(items []*item) (map[*item]bool, error) {
	var first map[*item]bool
	var seen map[*orgState]bool
	for _, it := range items {
		o := it.owner.org
		if o.known || seen[o] {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), c.engine.config.PublishTimeout/4) //nolint:forbidigo // a flight is nobody's call
		found, err := c.engine.get(ctx, c.part, getRequest{Seq: 1, NextFor: o.subject}, true)
		cancel()
		if err != nil {
			return nil, err
		}
		if found.seq > 0 {
			o.known = true
			if c.part.kind.firsts.shared {
				continue // who stored it has written the record
			}
			seq := found.seq
			if found.header.Get(hdrFirst) == "" {
				seq = 0 // it had others before
			}
			c.part.kind.firsts.put(o.id, seq)
			continue
		}
		if first == nil {
			first, seen = make(map[*item]bool), make(map[*orgState]bool)
		}
		first[it], seen[o] = true, true
	}
	return first, nil
}

// link makes sure of a connection and of a place for the answers.
func (c *committer) link() error {
	conn, gone, err := c.part.kind.publish.get()
	if err != nil {
		return err
	}
	if conn == c.conn {
		return nil
	}
	acks := make(chan *nats.Msg, ackBacklog)
	inbox := newInbox() + "."
	if _, err := conn.ChanSubscribe(inbox+"*", acks); err != nil {
		return wrap(err, "answers")
	}
	c.conn, c.gone, c.acks, c.inbox = conn, gone, acks, inbox
	return nil
}

// send publishes one item; number is its place in the flight.
func (c *committer) send(it *item, number int, answer bool) error {
	c.msg.Subject = it.owner.org.subject
	c.msg.Reply = ""
	if answer {
		c.msg.Reply = c.replyTo(number)
	}
	c.msg.Data = it.event.Data
	it.sent = time.Now()
	return c.conn.PublishMsg(&c.msg)
}

// idHeader is where an item's id stands.
func (c *committer) idHeader(it *item) string {
	if it.keyed || !c.part.kind.forgets {
		return hdrMsgID
	}
	return hdrOwnID
}

// A flight's answers are told apart by number; a flight has fewer than this.
const numbers = 2 * maxBatch

func (c *committer) replyTo(number int) string {
	c.reply = append(c.reply[:0], c.inbox...)
	c.reply = strconv.AppendUint(c.reply, c.flight*numbers+uint64(number), 10)
	return string(c.reply)
}

// flyPlain publishes every item by itself, all at once, and answers each as it
// is stored. good: all answers came, and none refused.
func (c *committer) flyPlain(batches []*pending, first map[*item]bool, grow bool) (all []*pending, good bool, wait time.Duration) {
	good = true
	sent, answers := 0, 0
	for {
		for ; sent < len(c.items); sent++ {
			it := c.items[sent]
			clear(c.msg.Header)
			encode(c.headers, it.event)
			c.headers.set(c.idHeader(it), it.id)
			if first[it] {
				c.headers.set(hdrFirst, "1")
			}
			if err := c.send(it, sent, true); err != nil {
				c.failed(err)
				return batches, false, retryWait
			}
		}
		if answers == sent {
			return batches, good, wait
		}
		i, a, ok := c.await()
		if !ok {
			return batches, false, retryWait
		}
		if i >= sent {
			continue
		}
		answers++
		it := c.items[i]
		c.bytes -= it.owner.size
		switch {
		case a.code == 0:
			c.stored(it, a.seq, a.dup)
			if it.owner.left == 0 {
				c.answer(it.owner, nil)
			}
		case a.code == codeInProcess:
			it.refused = true
			good, wait = false, max(wait, inProcessWait)
		case transient(a.code):
			it.refused = true
			c.failed(a.error())
			good, wait = false, max(wait, retryWait)
		default:
			it.refused, it.owner.err = true, a.shown()
			good = false
		}
		if grow && good {
			batches = c.join(batches, sent-answers)
		}
	}
}

// join lets single events that were appended meanwhile into the plain flight
// under way, of which some are still unanswered.
func (c *committer) join(batches []*pending, unanswered int) []*pending {
	select {
	case <-c.wake: // run looks at the queue again in any case
	default:
		return batches
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cost.batch(unanswered + c.queued) {
		return batches
	}
	for room := flightEvents - unanswered; room > 0 && len(c.turns) > 0 && len(c.items) < maxBatch; room-- {
		o := c.turns[0]
		if p := o.queue[0]; len(p.items) != 1 || p.err != nil || !o.known || c.bytes+p.size > joinBytes {
			break
		}
		p := c.pop(0)
		batches = append(batches, p)
		c.add(p)
	}
	return batches
}

// flyBatch publishes the items as one atomic batch and returns the answer to
// it; when that is good, every item is stored. A careful one asks for an answer
// to each item, and returns the one that is refused for good.
func (c *committer) flyBatch(items []*item, first map[*item]bool) (a ack, guilty *item, ok bool) {
	id := c.batches + strconv.FormatUint(c.flight, 36)
	last := len(items) - 1
	for i, it := range items {
		clear(c.msg.Header)
		encode(c.headers, it.event)
		c.headers.set(c.idHeader(it), it.id)
		if first[it] {
			c.headers.set(hdrFirst, "1")
		}
		c.headers.set(hdrBatchID, id)
		c.headers.set(hdrBatchSeq, strconv.Itoa(i+1))
		if i == last {
			c.headers.set(hdrBatchCommit, "1")
		}
		if err := c.send(it, i, i == last || c.careful); err != nil {
			c.failed(err)
			return ack{}, nil, false
		}
	}
	var why ack
	for {
		i, a, ok := c.await()
		switch {
		case !ok:
			return ack{}, nil, false
		case i != last:
			if a.code != 0 && !transient(a.code) && guilty == nil {
				guilty, why = items[i], a
			}
			continue
		case guilty != nil:
			return why, guilty, true
		case a.code == 0:
			for i, it := range items {
				c.stored(it, a.seq-uint64(last-i), false)
			}
		}
		return a, nil, true
	}
}

// batchRefused decides what becomes of a batch the server did not take.
func (c *committer) batchRefused(a ack, items []*item, batches []*pending) (wait time.Duration) {
	switch {
	case a.code == codeContainsKnown:
		// A batch with an event that is already there is refused as a whole. Find
		// out which ones are and send the others.
		if !c.probe(items) {
			return retryWait
		}
		c.settle(items, batches)
		return 0
	case a.code == codeInProcess:
		return inProcessWait
	case a.code == codeIncomplete && !c.careful:
		// The server has refused one of the items without a word.
		c.careful = true
		c.failed(a.error())
		return 0
	case transient(a.code):
		c.failed(a.error())
		return retryWait
	case len(batches) == 1:
		batches[0].err = a.shown()
		return 0
	}
	// Somebody's event is not acceptable; the others must not suffer. What was
	// appended since stays behind them.
	for _, p := range batches {
		c.commit([]*pending{p}, false)
	}
	return 0
}

// probe asks which of the items are in the log, without storing anything: what
// is sent would replace the entries before it, which a partition does not allow,
// and should follow an id that is nobody's. The server looks for a known id
// before either. (A cluster notices the second only after it has noted the id as
// on its way, for good; so it takes both.)
func (c *committer) probe(items []*item) bool {
	c.flight++
	for i, it := range items {
		clear(c.msg.Header)
		c.headers.set(hdrMsgID, it.id)
		c.headers.set(hdrRollup, "sub")
		c.headers.set(hdrExpectLastID, "~")
		c.msg.Subject, c.msg.Reply, c.msg.Data = it.owner.org.subject, c.replyTo(i), nil
		if err := c.conn.PublishMsg(&c.msg); err != nil {
			c.failed(err)
			return false
		}
	}
	for range items {
		i, a, ok := c.await()
		if !ok {
			return false
		}
		if i < len(items) && a.code == 0 {
			c.stored(items[i], a.seq, a.dup)
		}
	}
	return true
}

// stored marks an item as being in the log at seq.
func (c *committer) stored(it *item, seq uint64, dup bool) {
	if it.stored {
		return
	}
	// What a retry finds there with a sequence that came after an attempt without
	// an answer is what that attempt has stored.
	if dup && it.unsure && seq > it.owner.floor {
		dup = false
	}
	it.stored, it.seq, it.dup = true, seq, dup
	it.owner.left--
	o := it.owner.org
	if !o.known {
		o.known = true
		c.part.kind.firsts.put(o.id, seq)
	}
	if !dup {
		c.head = max(c.head, seq)
		c.part.raise(c.position(it))
		c.engine.books.count(&o.account, seq, engine.StoredSize(it.event))
		c.tell(it)
	}
}

// tell feeds the tails an item that was stored. Of one that was sent more than once
// the stream may have an earlier sending, and the server's own word for it.
func (c *committer) tell(it *item) {
	switch {
	case !c.part.feed.followed():
	case it.unsure:
		c.part.feed.put(nil)
	default:
		c.part.feed.put(c.made.made(it.event, it.owner.org.id, c.position(it), it.sent))
	}
}

// settle gives the items that did not fly, because another had their id, that
// one's place, and ends those that may not be tried again: an event that was
// refused while a later one of its organization was stored would be out of
// order.
func (c *committer) settle(items []*item, batches []*pending) {
	for _, p := range batches {
		for i := range p.items {
			it := &p.items[i]
			if !it.stored && it.same != nil && it.same.stored {
				c.stored(it, it.same.seq, true)
				it.dup = true
			}
		}
	}
	for i := len(items) - 1; i >= 0; i-- {
		it := items[i]
		o := it.owner.org
		switch {
		case it.stored && !it.dup:
			o.later = c.flight
		case it.stored:
		case o.later == c.flight || it.refused && o.unsure == c.flight:
			if it.owner.err == nil {
				it.owner.err = c.late()
			}
		case !it.refused:
			o.unsure = c.flight
		}
	}
}

// await returns the next answer to this flight. It gives up when the connection
// is gone or nothing came for a while.
func (c *committer) await() (number int, a ack, ok bool) {
	var msg *nats.Msg
	for {
		select {
		case msg = <-c.acks:
		default:
			c.timer.Reset(c.patience())
			select {
			case msg = <-c.acks:
			case <-c.gone:
				c.failed(nats.ErrConnectionClosed)
				return 0, ack{}, false
			case <-c.timer.C:
				c.failed(errors.New("no answer from the log"))
				return 0, ack{}, false
			case <-c.engine.kill:
				c.failed(engine.ErrClosed)
				return 0, ack{}, false
			}
		}
		token, err := strconv.ParseUint(msg.Subject[len(c.inbox):], 10, 64)
		if err != nil || token/numbers != c.flight {
			continue // of a flight that was given up
		}
		return int(token % numbers), parseAck(msg), true
	}
}

// patience is how long an answer may take: two fifths of the time there is, and an
// eightieth more for each MiB that is on its way, as long as another attempt may
// follow.
func (c *committer) patience() time.Duration {
	all := c.engine.config.PublishTimeout
	return min(all*2/5+all/80*time.Duration(c.bytes>>20), all*4/5)
}

var (
	ackSeq   = []byte(`"seq":`)
	ackDup   = []byte(`"duplicate"`)
	ackError = []byte(`"error":`)
)

// parseAck reads an answer; the usual form without a JSON parser.
func parseAck(msg *nats.Msg) (a ack) {
	switch {
	case len(msg.Data) > 0:
	case msg.Header.Get(hdrStatus) != "":
		return ack{code: codeNoResponders, text: "nobody serves the stream"}
	default:
		return ack{} // a part of a batch, taken
	}
	if i := bytes.Index(msg.Data, ackSeq); i >= 0 && !bytes.Contains(msg.Data, ackError) {
		for _, c := range bytes.TrimLeft(msg.Data[i+len(ackSeq):], " ") {
			if c < '0' || c > '9' {
				break
			}
			a.seq = a.seq*10 + uint64(c-'0')
		}
		a.dup = bytes.Contains(msg.Data, ackDup)
		return a
	}
	var full struct {
		Error apiError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &full); err != nil || full.Error.Code == 0 {
		return ack{code: codeNoResponders, text: "an answer that cannot be read"}
	}
	return ack{code: full.Error.Code, text: full.Error.Text}
}

// apiError is an error in an answer of the server.
type apiError struct {
	Code int    `json:"err_code"`
	Text string `json:"description"`
}

// transient reports whether the same publish may work soon.
func transient(code int) bool {
	switch code {
	case codeMessageTooLarge, codeHeadersTooLarge, codeNoResources, codeNoStorage, codeNotStored:
		return false
	}
	return true
}

func (a ack) error() error { return fmt.Errorf("the log answers %d: %s", a.code, a.text) }

// shown is the error for the publisher.
func (a ack) shown() error {
	switch a.code {
	case codeMessageTooLarge, codeHeadersTooLarge:
		return &carillon.Error{
			Code: carillon.CodeTooLarge, Err: a.error(),
			Message: fmt.Sprintf("an event takes at most %d bytes with its envelope, and %d of them beside the data", maxMessage, maxHeaders),
		}
	}
	return carillon.Unavailable(unavailable, a.error(), "the log has no room; try again")
}
