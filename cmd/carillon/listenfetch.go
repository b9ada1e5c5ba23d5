package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	client "github.com/carillon-rt/carillon/clients/go"
)

// eventStates are those of deliveries that an event may have been made of: all but
// duplicate and refused.
const eventStates = "pending,published,filtered,ran,dead,discarded"

var errGone = errors.New("it is not kept any more; skipped")

// The event of a webhook is there a moment before what the server lists says so, and
// on another node that may take longer.
const (
	fetchLooks  = 6
	fetchLook   = 50 * time.Millisecond // doubled each time
	fetchRecent = 10 * time.Minute      // an event that is older is listed, if it is at all
)

// fetch gets the webhook that an event was made of, as it came; nil: it is gone. While
// the server is away it tries again.
func (l *listener) fetch(ctx context.Context, e *client.Event) (*hookDetails, error) {
	for try, looks := 0, 0; ; {
		d, sure, err := l.find(ctx, e)
		var failed *client.Error
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.As(err, &failed) && failed.Retryable:
			wait := max(forwardWait(try), failed.RetryAfter)
			l.std.say("%v; again in %v", err, wait)
			if err := pause(ctx, wait); err != nil {
				return nil, err
			}
			try++
			continue
		case err != nil:
			return nil, err
		}
		looks++
		if sure || looks == fetchLooks || time.Since(e.Time).Abs() > fetchRecent {
			if d == nil || d.Body == nil {
				return nil, nil //nolint:nilnil // there is none
			}
			return d, nil
		}
		if err := pause(ctx, fetchLook<<(looks-1)); err != nil {
			return nil, err
		}
	}
}

// find looks once. sure: looking again would find nothing else.
func (l *listener) find(ctx context.Context, e *client.Event) (one *hookDetails, sure bool, err error) {
	query := url.Values{"source": {e.Source}, "delivery": {e.Delivery}, "state": {eventStates}}
	var all []hookDelivery
	for raw, err := range l.api.deliveries(ctx, query, 0) {
		if err != nil {
			return nil, false, err
		}
		var d hookDelivery
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, false, err
		}
		if d.EventID == e.ID {
			all = []hookDelivery{d}
			break
		}
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil, false, nil
	}
	// A provider's id that came with several bodies: the event's is the one that says
	// so, once the server has written that down.
	sure = len(all) == 1
	_, d, err := l.api.delivery(ctx, all[0].ID)
	switch {
	case isCode(err, client.CodeNotFound):
		return nil, true, nil
	case err != nil:
		return nil, false, err
	}
	return &d, sure, nil
}
