package jetstream

import (
	"context"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon"
)

// Divide is what a disk of so many bytes gives to events and to the intakes.
func Divide(disk, events, intake int64, partitions int) (ofEvents, ofIntake int64, err error) {
	return divide("the directory", disk, events, intake, partitions)
}

// Unanswered stores an event whose answer nobody hears.
func (e *Engine) Unanswered(ctx context.Context, org carillon.OrgID, ev *carillon.Event) error {
	h := newHeaders()
	encode(h, ev)
	_, err := e.manage.PublishMsg(ctx, &nats.Msg{Subject: e.events.log(org).org.subject, Header: h.m, Data: ev.Data})
	return err
}

// StoredIDs are the ids of an intake's entries, and which of them the server was to
// remember.
func (e *Engine) StoredIDs(ctx context.Context, org carillon.OrgID) (ids []string, remembered []bool, err error) {
	l := e.intake.log(org)
	for seq := uint64(1); ; seq++ {
		m, err := e.get(ctx, l.part, getRequest{Seq: seq, NextFor: l.org.subject}, true)
		if err != nil || m.seq == 0 {
			return ids, remembered, err
		}
		ids, remembered = append(ids, idOf(m.header)), append(remembered, m.header.Get(hdrMsgID) != "")
		seq = m.seq
	}
}

// Doubt tells the tails of an organization's partition what a committer tells them
// whose append was not answered.
func (e *Engine) Doubt(org carillon.OrgID) { e.events.log(org).part.feed.put(nil) }

// What lies in an inlet at most.
const (
	InletEntries = inletEntries
	InletBytes   = inletBytes
)
