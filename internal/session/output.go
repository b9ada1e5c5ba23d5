package session

import (
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// answer gives a frame to whoever asked: on the session itself, or by reply.
func (s *Session) answer(f *wire.Frame, reply Reply) {
	if reply != nil {
		reply(f)
		if f.Type != "welcome" {
			return
		}
	}
	s.send(f)
}

// answerInOrder is answer for frames whose order among the events matters: they
// are on the session in any case.
func (s *Session) answerInOrder(f *wire.Frame, reply Reply) {
	if reply != nil {
		reply(f)
	}
	s.send(f)
}

// send puts a control frame behind what is there.
func (s *Session) send(f *wire.Frame) {
	if s.format == SSE {
		s.put(f.Block())
	} else {
		s.put(f.Text())
	}
}

func (s *Session) put(b []byte) {
	if s.is(closed) {
		return
	}
	a := s.act()
	a.out = append(a.out, b)
	a.outBytes += len(b)
	s.Due()
}

// Turn is called by the shard when the session has something to send.
func (s *Session) Turn() {
	if s.is(closed) {
		return
	}
	s.unset(pulled)
	s.conn.Ready()
	if !s.is(pulled) {
		s.feed.Stuck()
	}
}

// Pull takes what the client is owed, about budget bytes of it, as slices that
// are shared and must not be changed. last says that nothing follows: the
// connection is to be closed once they are written. An empty result means that
// there is nothing now; Conn.Ready says when to ask again.
func (s *Session) Pull(dst [][]byte, budget int) (_ [][]byte, last bool) {
	if s.is(closed) {
		return dst, false
	}
	s.set(pulled)
	if a := s.active; a != nil && a.pong != nil {
		dst, a.pong = append(dst, a.pong), nil
	}
	dst, n := s.pullOut(dst)
	if !s.is(closing) && s.feed.Open() {
		dst = s.pullEvents(dst, budget-n)
	}
	if s.is(closing) {
		dst, _ = s.pullOut(dst) // what was said about an end by the events
		a := s.act()
		if s.format == WebSocket && a.closeCode != 0 {
			dst = append(dst, wire.AppendClose(nil, a.closeCode, a.closeReason))
		}
		s.core().stats.closed(a.closeCode)
		s.unpause()
		return dst, true
	}
	if len(dst) > 0 {
		s.sentAt = s.elapsed()
	}
	s.unpause()
	s.rest()
	return dst, false
}

// pullOut takes the answers and control frames, and says how many bytes they are.
func (s *Session) pullOut(dst [][]byte) (_ [][]byte, n int) {
	a := s.active
	if a == nil || len(a.out) == 0 {
		return dst, 0
	}
	n = a.outBytes
	dst = append(dst, a.out...)
	clear(a.out)
	a.out, a.outBytes = a.out[:0], 0
	return dst, n
}

// pullEvents takes from the feed whose turn it is: a backfill's, or the
// connection's own.
func (s *Session) pullEvents(dst [][]byte, budget int) [][]byte {
	var oldest time.Time
	sent, ephemeral := uint64(0), uint64(0)
	for budget > 0 && !s.is(closing) {
		feed, resume := &s.feed, true
		if b := s.backfilling(); b != nil {
			feed, resume = &b.feed, false
		}
		item, ok := feed.Next()
		if !ok {
			break
		}
		switch {
		case item.Delivery != nil:
			before := len(dst)
			dst = s.appendEvent(dst, s.ids(), item.Delivery, resume)
			for _, b := range dst[before:] {
				budget -= len(b)
			}
			if item.Delivery.Entry.Ephemeral() {
				ephemeral++
			} else if oldest.IsZero() {
				oldest = item.Delivery.Entry.Accepted
			}
			sent++
		case item.Mark != nil:
			dst, budget = s.appendFrame(dst, wire.Begin("caught_up").ID("cursor", s.ids(), s.feed.Position()), budget)
		case item.Gap != nil:
			s.core().stats.gaps.Add(1)
			f := wire.Begin("gap").Str("reason", string(item.Gap.Reason)).ID("cursor", s.ids(), item.Gap.Pos)
			dst, budget = s.appendFrame(dst, f, budget)
		case item.End:
			s.backfilled()
		case item.Overrun:
			s.send(wire.ErrorFrame(carillon.Errorf(carillon.CodeQuotaExceeded,
				"more events wait for this connection than the server keeps for it with overflow disconnect; take them faster, or subscribe with another overflow"), nil))
			s.close(wire.CloseSlowConsumer, "too slow")
		}
	}
	if budget <= 0 {
		// The socket has enough: what a pass brought is not kept meanwhile.
		s.feed.Rest()
		if b := s.backfilling(); b != nil {
			b.feed.Rest()
		}
		s.Due()
	}
	if sent > 0 {
		s.core().stats.sent.Add(sent)
	}
	if ephemeral > 0 {
		s.core().stats.ephemeral.Add(ephemeral)
	}
	if !oldest.IsZero() {
		s.core().stats.latency.observe(s.now().Sub(oldest))
	}
	return dst
}

func (s *Session) appendFrame(dst [][]byte, f *wire.Frame, budget int) ([][]byte, int) {
	b := f.Text
	if s.format == SSE {
		b = f.Block
	}
	bytes := b()
	return append(dst, bytes), budget - len(bytes)
}

func (s *Session) appendEvent(dst [][]byte, ids *wire.IDs, d *hub.Delivery, resume bool) [][]byte {
	switch {
	case s.format == SSE && resume && !s.is(named):
		if b := d.Encoding(formBlock); b != nil {
			return append(dst, b)
		}
		js := eventJSON(d, ids)
		return append(dst, d.Remember(formBlock, wire.AppendBlock(make([]byte, 0, len(js)+48), ids, d.Entry, js, true, false)))
	case s.format == SSE:
		js := eventJSON(d, ids)
		return append(dst, wire.AppendBlock(make([]byte, 0, len(js)+320), ids, d.Entry, js, resume, s.is(named)))
	case s.is(numbered):
		a := s.act()
		a.number++
		head, rest := wire.AppendNumbered(make([]byte, 10, 64), eventJSON(d, ids), a.number)
		header := wire.AppendTextHeader(make([]byte, 0, 10), len(head)-10+len(rest))
		copy(head[10-len(header):], header)
		return append(dst, head[10-len(header):], rest)
	}
	if z := s.core().deflaters; z != nil && s.is(deflate) {
		return append(dst, z.text(d, ids))
	}
	return append(dst, eventText(d, ids))
}

// eventText is the event's text frame, made once for all sessions.
func eventText(d *hub.Delivery, ids *wire.IDs) []byte {
	if b := d.Encoding(formText); b != nil {
		return b
	}
	// The text frame's own encoding is kept, not the bare JSON it is made of.
	b := make([]byte, 10, len(d.Entry.Data)+400)
	b = wire.AppendEvent(b, ids, d.Entry)
	header := wire.AppendTextHeader(make([]byte, 0, 10), len(b)-10)
	copy(b[10-len(header):], header)
	return d.Remember(formText, b[10-len(header):])
}

// eventJSON is the event's JSON, made once for all sessions.
func eventJSON(d *hub.Delivery, ids *wire.IDs) []byte {
	if b := d.Encoding(formJSON); b != nil {
		return b
	}
	return d.Remember(formJSON, wire.AppendEvent(make([]byte, 0, len(d.Entry.Data)+320), ids, d.Entry))
}

// close takes nothing more in, sends what is owed but events, and ends.
func (s *Session) close(code wire.CloseCode, reason string) {
	if s.is(closing | closed) {
		return
	}
	s.set(closing)
	s.StopAlarm()
	a := s.act()
	a.closeCode, a.closeReason = code, reason
	for _, w := range a.frames {
		s.answer(wire.ErrorFrame(carillon.Errorf(carillon.CodeGone, "the connection is closing"), w.frame.Ref), w.reply)
	}
	a.frames = nil
	s.Due()
	s.unpause()
}

// Close ends the session with a code and a reason, as a transport asks for it.
func (s *Session) Close(code wire.CloseCode, reason string) { s.close(code, reason) }

// Gone is called by the transport when the connection is no more. The session
// holds nothing afterwards.
func (s *Session) Gone() {
	if s.is(closed) {
		return
	}
	s.set(closed | closing)
	if s.is(entered) {
		s.core().exit(s.principal())
	}
	s.core().grants.drop(s.grant)
	s.feed.Close()
	if a := s.active; a != nil {
		for _, b := range a.backfills {
			b.feed.Close()
		}
		for _, w := range append(a.unanswered, a.frames...) {
			if w.reply != nil {
				w.reply(wire.ErrorFrame(carillon.Errorf(carillon.CodeGone, "the connection is closed"), w.frame.Ref))
			}
		}
	}
	s.Leave()
	s.core().gone(s)
	s.unpause()
	s.dropActive()
}
