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

// Shard is where polls live: see [hub.Shard].
type Shard = hub.Shard

// Poll is one request for what comes after a cursor, which is the acknowledgement
// of all before it. Its caller's next poll may go on with its follower; that saves
// work and changes no answer.
type Poll struct {
	core      *Core
	shard     *Shard    // of the follower
	home      *Shard    // where it was asked and is answered; nil: wherever it lives
	follower  *follower // owned by the shard, as all below
	principal *carillon.Principal
	answer    func(PollAnswer)
	address   addressKey // of which it has a place
	wait      time.Duration
	limit     int

	found *found // nil: nothing yet
	err   error  // instead of what was found

	reserved, cloud bool
	attached        bool // to a follower that was there
	caught          bool // it has looked at what was in the log when it came
	done            bool
	gone            bool // canceled; owned by home where there is one
}

// found is what a poll is going to answer.
type found struct {
	gather hub.Moment
	since  stamp // the first event was due then; none: it was there before the poll
	events [][]byte
	bytes  int
	gap    []byte
	more   bool
}

// Poll answers once, on a shard's goroutine: with what is there, or, when nothing
// is, with what comes within Wait, or empty. A canceled poll does not answer.
func (c *Core) Poll(opt PollOptions, answer func(PollAnswer)) *Poll {
	p, cursor := c.asked(nil, &opt, answer), opt.Cursor
	p.shard.Post(hub.TaskFunc(func() { p.begin(cursor) }))
	return p
}

// PollOn is Poll for the goroutine of a shard. It answers there: later, not before
// it returns. Cancel is for the same goroutine.
func (c *Core) PollOn(shard *Shard, opt PollOptions, answer func(PollAnswer)) *Poll {
	p, cursor := c.asked(shard, &opt, answer), opt.Cursor
	if p.shard == shard {
		p.begin(cursor)
	} else {
		p.shard.Post(hub.TaskFunc(func() { p.begin(cursor) }))
	}
	return p
}

// asked finds the poll its follower, or makes one.
func (c *Core) asked(home *Shard, opt *PollOptions, answer func(PollAnswer)) *Poll {
	c.stats.polls.Add(1)
	f := c.lingering.take(opt)
	attached := f != nil
	if !attached {
		shard := home
		if shard == nil {
			shard = c.Hub.Shard()
		}
		f = c.newFollower(shard, opt.Principal, opt.Patterns)
	}
	return &Poll{
		core: c, shard: f.Shard(), home: home, follower: f, principal: opt.Principal, answer: answer, address: c.addressKey(opt.Address),
		wait: opt.Wait, limit: opt.Limit, reserved: opt.Reserved, cloud: opt.CloudEvents, attached: attached,
	}
}

// Cancel ends a poll whose client has gone. Of one that Poll made it may be called
// from anywhere.
func (p *Poll) Cancel() {
	if p.home != nil {
		p.gone = true
	}
	p.shard.Post(hub.TaskFunc(p.cancel))
}

func (p *Poll) cancel() {
	if p.done {
		return
	}
	p.leave()
	p.follower.close()
}

// leave parts the poll from its follower, and gives back its place.
func (p *Poll) leave() {
	p.done = true
	p.follower.poll = nil
	if p.found != nil {
		p.shard.StopMoment(&p.found.gather)
	}
	if p.reserved {
		p.core.dir.release(p.address)
	}
}

// begin has the follower work for this poll. Whether its principal may have what
// it asks for does not depend on who came before.
func (p *Poll) begin(cursor carillon.Cursor) {
	f := p.follower
	f.begin(p)
	if err := p.core.allowed(p.principal); err != nil {
		p.fail(err)
		return
	}
	for _, pattern := range f.patterns {
		if !match.MaySubscribe(p.principal, pattern) {
			p.fail(carillon.Errorf(carillon.CodeForbidden, "the token does not cover the pattern %q", pattern))
			return
		}
	}
	if p.attached {
		f.goOn()
	} else {
		f.open(cursor)
	}
}

// find is what the poll is going to answer.
func (p *Poll) find() *found {
	if p.found == nil {
		p.found = new(found)
	}
	return p.found
}

// hold waits for what comes.
func (p *Poll) hold() {
	if p.wait <= 0 {
		p.follower.StopAlarm()
		return
	}
	now := p.shard.Now()
	deadline := now.Add(p.wait)
	if e := p.principal.Expires; !e.IsZero() && e.After(now) && e.Before(deadline) {
		deadline = e
	}
	p.follower.Alarm(deadline)
}

// full reports whether nothing more has room in the answer.
func (p *Poll) full() bool {
	switch {
	case p.found == nil:
		return false
	case len(p.found.events) >= p.limit:
		return true
	case p.found.bytes >= p.core.Limits.PollBytes:
		p.core.stats.limits.Add(limitHistoryBytes)
		return true
	}
	return false
}

// add takes an event into the answer.
func (p *Poll) add(d *hub.Delivery) {
	r := p.find()
	if len(r.events) == 0 && p.caught {
		if r.since = p.follower.due; r.since == 0 {
			r.since = stampOf(p.shard)
		}
	}
	js := p.event(d)
	r.events = append(r.events, js)
	r.bytes += len(js)
}

// event is the JSON of an event. CloudEvents are wanted too rarely to be kept.
func (p *Poll) event(d *hub.Delivery) []byte {
	if p.cloud {
		return wire.AppendCloudEvent(nil, p.follower.ids(), d.Entry)
	}
	return eventJSON(d, p.follower.ids())
}

// settle is called when there is no more to find now. A poll that waits answers
// some time after the first event that comes, so that others come along.
func (p *Poll) settle() {
	r := p.found
	switch {
	case !p.caught:
	case p.wait <= 0, r != nil && r.gap != nil:
		p.finish()
	case r == nil: // it waits
		p.follower.due = 0
	default:
		if left := r.since.until(p.core.Limits.PollGather, p.shard); r.since != 0 && left > 0 {
			p.shard.SetMoment(&r.gather, p, p.shard.Now().Add(left))
			return
		}
		p.finish()
	}
}

// Timeout ends the gathering.
func (p *Poll) Timeout(time.Time) { p.finish() }

// fail has the poll answer with an error, soon.
func (p *Poll) fail(err error) {
	p.err = err
	p.follower.Due()
}

// finish answers. Its caller's next poll may come before that returns.
func (p *Poll) finish() {
	if p.done {
		return
	}
	p.leave()
	f, a := p.follower, PollAnswer{Err: p.err}
	switch {
	case p.err != nil:
	case !f.opened:
		a.Err = carillon.Unavailable(time.Second, nil, "the node is shutting down; ask again")
	default:
		a.Cursor = f.stand()
		if r := p.found; r != nil {
			a.Events, a.More, a.Gap = r.events, r.more, r.gap
		}
		p.core.stats.sent.Add(uint64(len(a.Events)))
	}
	if a.Err == nil && p.caught {
		f.linger(a.More)
	} else {
		f.close()
	}
	if p.home != nil && p.home != p.shard {
		p.home.Post(hub.TaskFunc(func() { p.say(a) }))
		return
	}
	p.say(a)
}

func (p *Poll) say(a PollAnswer) {
	if !p.gone {
		p.answer(a)
	}
}
