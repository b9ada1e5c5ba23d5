package manage

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
	"github.com/carillon-rt/carillon/internal/transport"
)

// delivery is one as it is shown.
type delivery struct {
	ID           string    `json:"id,omitempty"`
	Source       string    `json:"source"`
	Kind         string    `json:"kind"`
	Event        string    `json:"event,omitempty"`      // what the provider calls it
	EventType    string    `json:"event_type,omitempty"` // of the event it became
	EventID      string    `json:"event_id,omitempty"`
	Delivery     string    `json:"delivery,omitempty"` // the provider's id
	Remote       string    `json:"remote"`
	Size         int64     `json:"size"`
	Received     time.Time `json:"received"`
	Signature    string    `json:"signature"` // ok, or why not
	Secret       string    `json:"secret,omitempty"`
	State        string    `json:"state"`
	DuplicateOf  string    `json:"duplicate_of,omitempty"` // the id of the one it repeats
	Attempts     int       `json:"attempts"`
	Retried      int       `json:"retried,omitempty"`
	ProcessingMS float64   `json:"processing_ms"`
	Error        string    `json:"error,omitempty"`
	Output       string    `json:"output,omitempty"` // of actions
	Spooled      bool      `json:"spooled,omitempty"`
	Status       int       `json:"status,omitempty"` // of the answer to one that was refused
}

func (a *api) view(org carillon.OrgID, d *ledger.Delivery) delivery {
	v := delivery{
		ID: a.IDs.ID(org, d.Pos), Source: d.Source, Kind: d.Provider, Event: d.Event, EventType: string(d.Type), Delivery: d.Delivery,
		Remote: d.Remote, Size: d.Size, Received: d.Received.UTC(), Signature: d.Signature, Secret: d.Secret, State: d.State.String(),
		Attempts: d.Total, Retried: d.Again, ProcessingMS: float64(d.Took.Microseconds()) / 1000, Error: d.Error, Output: d.Text,
		Spooled: d.Spooled, Status: d.Status,
	}
	if d.DuplicateOf.Seq != 0 {
		v.DuplicateOf = a.IDs.ID(org, d.DuplicateOf)
	}
	if d.Published.Seq != 0 {
		v.EventID = a.Events.Org(org).String(d.Published)
	}
	return v
}

func (a *api) list(c *call) error {
	q, err := transport.Query(c.r, map[string]bool{
		"source": false, "state": true, "event": false, "delivery": false, "remote": false, "since": false, "until": false, "before": false, "limit": false,
	})
	if err != nil {
		return err
	}
	query := ledger.Query{Source: q.Get("source"), Event: q.Get("event"), Delivery: q.Get("delivery"), Remote: q.Get("remote"), Before: q.Get("before")}
	if query.States, err = states(q["state"]); err != nil {
		return err
	}
	if query.Since, err = moment(q, "since"); err != nil {
		return err
	}
	if query.Until, err = moment(q, "until"); err != nil {
		return err
	}
	if query.Limit, err = transport.Int(q, "limit", 1, ledger.MaxPage, ledger.DefaultPage); err != nil {
		return err
	}
	page, next, err := a.Ledger.List(c.r.Context(), c.who.Org, query)
	if err != nil {
		return err
	}
	list := make([]delivery, len(page))
	for i := range page {
		list[i] = a.view(c.who.Org, &page[i])
	}
	return c.answer(http.StatusOK, struct {
		Deliveries []delivery `json:"deliveries"`
		Next       string     `json:"next,omitempty"` // as before, for the page that follows
	}{list, next})
}

// moment reads a time: RFC 3339, or how long ago, such as -1h.
func moment(q url.Values, name string) (time.Time, error) {
	text := q.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	if c, ok := carillon.ParseNamedCursor(text); ok && c.Kind == carillon.CursorAgo {
		return time.Now().Add(-c.Ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, carillon.BadRequest("%s is a time such as 2025-07-09T10:30:00Z, or how long ago, such as -1h", name)
	}
	return t, nil
}

// attempt is what became of one attempt, or what somebody wanted.
type attempt struct {
	At      time.Time `json:"at"`
	What    string    `json:"what"` // done, failed, dead, retry or discarded
	Outcome string    `json:"outcome,omitempty"`
	Error   string    `json:"error,omitempty"`
	RetryMS int64     `json:"retry_ms,omitempty"` // until the next one
	By      string    `json:"by,omitempty"`
}

// show is one delivery with its attempts, headers and body.
func (a *api) show(c *call) error {
	if _, err := transport.Query(c.r, nil); err != nil {
		return err
	}
	ctx := c.r.Context()
	d, attempts, err := a.find(ctx, c)
	if err != nil {
		return err
	}
	whole := struct {
		delivery

		History []attempt   `json:"history"`
		Query   string      `json:"query,omitempty"`
		Headers http.Header `json:"headers,omitempty"`
		Body    []byte      `json:"body"` // base64; null where it is not kept
	}{delivery: a.view(c.who.Org, &d), History: []attempt{}}
	for _, one := range attempts {
		whole.History = append(whole.History, attempt{
			At: one.At.UTC(), What: strings.TrimPrefix(string(one.Kind), "hook."), Outcome: one.Outcome, Error: one.Error, RetryMS: one.Retry.Milliseconds(), By: one.By,
		})
	}
	if d.State != ledger.Refused {
		received, err := hook.Load(ctx, a.Intake(c.who.Org), d.Pos.Seq)
		switch {
		case err == nil:
			whole.Query, whole.Headers, whole.Body = received.Meta.Query, received.Meta.Header, received.Body
			if whole.Body == nil {
				whole.Body = []byte{}
			}
		case !errors.Is(err, hook.ErrGone):
			return err
		}
	}
	return c.answer(http.StatusOK, whole)
}

func (a *api) retry(c *call) error { return a.one(c, intake.TypeRetry) }

func (a *api) discard(c *call) error { return a.one(c, intake.TypeDiscarded) }

func (a *api) one(c *call, t carillon.Type) error {
	d, _, err := a.find(c.r.Context(), c)
	if err != nil {
		return err
	}
	if err := may(&d, t); err != nil {
		return err
	}
	if err := a.note(c, t, []ledger.Delivery{d}); err != nil {
		return err
	}
	return c.answer(http.StatusAccepted, struct {
		ID string `json:"id"`
	}{a.IDs.ID(c.who.Org, d.Pos)})
}

// may says why a delivery cannot be retried or discarded.
func may(d *ledger.Delivery, t carillon.Type) error {
	switch {
	case d.State == ledger.Refused:
		return carillon.Errorf(carillon.CodeConflict, "this was refused, and nothing of it is kept: only its sender can send it again")
	case t == intake.TypeRetry && d.State == ledger.Pending:
		return carillon.Errorf(carillon.CodeConflict, "this delivery is being processed already")
	case t == intake.TypeDiscarded && d.State != ledger.Dead && d.State != ledger.Pending:
		return carillon.Errorf(carillon.CodeConflict, "this delivery is %s; only a dead letter can be discarded", d.State)
	}
	return nil
}

// maxMany is how many deliveries one request changes.
const maxMany = 1000

func (a *api) retryMany(c *call) error { return a.many(c, intake.TypeRetry) }

func (a *api) discardMany(c *call) error { return a.many(c, intake.TypeDiscarded) }

// many changes the dead letters that a source has, or all; the newest first.
func (a *api) many(c *call, t carillon.Type) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	var of, event, before string
	if len(body) > 0 {
		err = transport.Object(body, map[string]transport.Field{
			"source": {To: &of, Kind: "a string: the name of a source"}, "event": {To: &event, Kind: "a string: what the provider calls it"},
			"before": {To: &before, Kind: "a string: what the answer before this one said is next"},
		})
		if err != nil {
			return err
		}
	}
	query := ledger.Query{Source: of, Event: event, States: []ledger.State{ledger.Dead}, Before: before, Limit: ledger.MaxPage}
	var all []ledger.Delivery
	for len(all)+ledger.MaxPage <= maxMany {
		page, next, err := a.Ledger.List(c.r.Context(), c.who.Org, query)
		if err != nil {
			return err
		}
		all = append(all, page...)
		if query.Before = next; next == "" {
			break
		}
	}
	for i := 0; i < len(all); i += notesAtOnce {
		if err := a.note(c, t, all[i:min(i+notesAtOnce, len(all))]); err != nil {
			return err
		}
	}
	return c.answer(http.StatusAccepted, struct {
		Deliveries int    `json:"deliveries"`
		Next       string `json:"next,omitempty"` // as before, for others
	}{len(all), query.Before})
}

const (
	notesAtOnce = 100
	noteRetry   = time.Second
)

// note appends a note about deliveries, and waits until it is stored.
func (a *api) note(c *call, t carillon.Type, list []ledger.Delivery) error {
	batch := make([]engine.Append, len(list))
	for i := range list {
		n := intake.Note{Ref: list[i].Pos.Seq, By: c.by()}
		ev, err := n.Entry(t, time.Now(), list[i].Source)
		if err != nil {
			return err
		}
		batch[i] = engine.Append{Event: ev, Key: rand.Text()} // once, even if the log does not answer in time
	}
	done := make(chan error, 1)
	a.Intake(c.who.Org).Append(batch, func(_ []carillon.Receipt, err error) { done <- err })
	ctx, cancel := context.WithTimeout(c.r.Context(), engine.PublishTimeout)
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return carillon.Unavailable(noteRetry, ctx.Err(), "the log has not answered yet; look whether it is done before you try again")
	}
}
