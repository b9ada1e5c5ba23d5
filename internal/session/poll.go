package session

import (
	"net/netip"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/wire"
)

// PollOptions say what a poll wants.
type PollOptions struct {
	Principal *carillon.Principal
	Patterns  []carillon.Pattern // none: only what is direct
	Cursor    carillon.Cursor    // exclusive; none: now
	Limit     int                // events
	Wait      time.Duration      // 0: answer at once
	Reserved  bool               // it has the place that Reserve took for the address, and gives it back
	Address   netip.Addr         // the client's

	CloudEvents bool // the events are wanted as CloudEvents
}

// PollAnswer is what a poll found. Its events are shared: do not change them.
type PollAnswer struct {
	Events [][]byte // the JSON of each
	Cursor string   // everything up to here has been looked at
	More   bool     // ask again at once
	Gap    []byte   // JSON, or nil
	Err    error
}

// Poll is one request for what comes after a cursor. It keeps nothing between
// requests: the cursor sent is the acknowledgement of all before it.
type Poll struct {
	hub.Member
	timer hub.Timer
	feed  hub.Feed

	core   *Core
	opt    PollOptions
	realm  *hub.Realm
	ids    *wire.IDs
	answer func(PollAnswer)
	end    hub.Task

	got      PollAnswer
	bytes    int
	caught   bool
	deadline time.Time
	opened   bool
	done     bool
}

// Poll answers once, from the shard's goroutine: with what is there, or, when
// nothing is, with the first that comes within Wait, or empty. A canceled poll
// does not answer.
func (c *Core) Poll(opt PollOptions, answer func(PollAnswer)) *Poll {
	p := &Poll{core: c, opt: opt, answer: answer}
	p.end = hub.TaskFunc(p.finish)
	shard := c.Hub.Shard()
	shard.Join(&p.Member, opt.Principal.Org, p)
	c.dir.addPoll(p)
	c.stats.polls.Add(1)
	shard.Post(hub.TaskFunc(p.open))
	return p
}

// Cancel ends a poll whose client has gone. Safe from anywhere.
func (p *Poll) Cancel() {
	p.Shard().Post(hub.TaskFunc(func() {
		p.answer = func(PollAnswer) {}
		p.finish()
	}))
}

func (p *Poll) open() {
	if err := p.core.allowed(p.opt.Principal); err != nil {
		p.fail(err)
		return
	}
	for _, pattern := range p.opt.Patterns {
		if !match.MaySubscribe(p.opt.Principal, pattern) {
			p.fail(carillon.Errorf(carillon.CodeForbidden, "the token does not cover the pattern %q", pattern))
			return
		}
	}
	p.realm = p.core.Hub.Enter(p.opt.Principal.Org)
	p.ids = p.core.IDs.Org(p.opt.Principal.Org)
	p.Shard().Resolve(p.realm, p.opt.Cursor, p.begin)
}

func (p *Poll) begin(start hub.Start, err error) {
	if p.done {
		return
	}
	if err != nil {
		p.fail(logError(err))
		return
	}
	p.Shard().Open(&p.feed, p.realm, p, start.Pos)
	p.opened = true
	if start.Gap != nil {
		p.got.Gap = wire.AppendGap(nil, p.ids, start.Gap)
	}
	for _, pattern := range p.opt.Patterns {
		if err := p.feed.Add(&hub.Sub{Pattern: pattern}, start.Pos.Seq); err != nil {
			p.fail(err)
			return
		}
	}
	if p.opt.Principal.User != "" {
		_ = p.feed.Add(hub.NewInbox(p.opt.Principal.User), start.Pos.Seq) // never refused
	}
	p.feed.Mark(p.Shard().Head(p.realm).Seq, p)
	p.feed.Release()
	p.deadline = p.Shard().Now().Add(p.opt.Wait)
	if e := p.opt.Principal.Expires; !e.IsZero() && e.After(p.Shard().Now()) && e.Before(p.deadline) {
		p.deadline = e
	}
	if p.opt.Wait > 0 {
		p.Shard().SetTimer(&p.timer, p, p.deadline)
	}
}

// FeedDue is told by the feed.
func (p *Poll) FeedDue() { p.Due() }

// Turn takes what the feed has.
func (p *Poll) Turn() {
	for !p.done {
		full, heavy := len(p.got.Events) >= p.opt.Limit, p.bytes >= p.core.Limits.PollBytes
		if full || heavy {
			if !full {
				p.core.stats.limits.Add(limitHistoryBytes)
			}
			p.got.More = true
			p.finish()
			return
		}
		item, ok := p.feed.Next()
		if !ok {
			break
		}
		switch {
		case item.Delivery != nil:
			js := p.event(item.Delivery)
			p.got.Events = append(p.got.Events, js)
			p.bytes += len(js)
		case item.Gap != nil:
			p.core.stats.gaps.Add(1)
			p.got.Gap = wire.AppendGap(nil, p.ids, item.Gap)
		case item.Mark != nil:
			p.caught = true
		}
	}
	if p.done || !p.caught {
		return
	}
	switch {
	case p.opt.Wait <= 0, p.got.Gap != nil, len(p.got.Events) > 0:
		p.finish()
	}
}

// event is the JSON of an event. CloudEvents are wanted too rarely to be kept.
func (p *Poll) event(d *hub.Delivery) []byte {
	if p.opt.CloudEvents {
		return wire.AppendCloudEvent(nil, p.ids, d.Entry)
	}
	return eventJSON(d, p.ids)
}

// Timeout ends the wait.
func (p *Poll) Timeout(time.Time) { p.finish() }

func (p *Poll) fail(err error) {
	p.got = PollAnswer{Err: err}
	p.finish()
}

func (p *Poll) finish() {
	if p.done {
		return
	}
	p.done = true
	if p.opened {
		p.got.Cursor = p.ids.String(p.feed.Position())
	} else if p.got.Err == nil {
		p.got.Err = carillon.Unavailable(time.Second, nil, "the node is shutting down; ask again")
	}
	p.core.stats.sent.Add(uint64(len(p.got.Events)))
	p.Shard().StopTimer(&p.timer)
	p.feed.Close()
	if p.realm != nil {
		p.core.Hub.Leave(p.realm)
	}
	p.core.dir.removePoll(p)
	p.answer(p.got)
}
