package hook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
	"github.com/carillon-rt/carillon/internal/source/hook/shape"
)

// awayRetry is when to try again what failed because the log, or the organization's
// own limits, do not take anything now: that is no fault of the delivery, and no
// attempt.
const awayRetry = 2 * time.Second

// attempt processes a delivery once. It returns what became of it; with again > 0
// the attempt failed, and the next one is due then. With no note at all nothing has
// become of it, and it is to be tried again all the same.
func (p *Processor) attempt(ctx context.Context, j *job) (note *intake.Note, again time.Duration) {
	err := p.process(ctx, j, &note)
	if err == nil {
		note.Attempts = j.Attempts + 1
		return note, 0
	}
	var away *awayError
	if errors.As(err, &away) {
		p.Logger.Warn("hook: a delivery waits", "org", j.Org, "source", j.Source, "err", away.err)
		return nil, max(away.wait, awayRetry)
	}
	j.Attempts++
	note = &intake.Note{Attempts: j.Attempts, Error: err.Error()}
	if e := carillon.AsError(err); e.Code != carillon.CodeInternal {
		note.Error = e.Message
	}
	note.Error = strings.ToValidUTF8(clipBytes(note.Error, maxError), "")
	tries := DefaultTries
	if src, ok := p.Sources.Get(j.Org, j.Source); ok {
		tries = src.tries
	}
	var permanent *permanentError
	if errors.As(err, &permanent) || j.Attempts >= tries {
		return note, 0
	}
	again = backoff(j.Attempts)
	note.RetryMS = again.Milliseconds()
	return note, again
}

// awayError is nobody's fault, and passes.
type awayError struct {
	err  error
	wait time.Duration
}

func (e *awayError) Error() string { return e.err.Error() }

// permanentError does not get better by itself.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

func permanent(format string, args ...any) error {
	return &permanentError{carillon.BadRequest(format, args...)}
}

// process does all that is to be done for a delivery.
func (p *Processor) process(ctx context.Context, j *job, note **intake.Note) error {
	src, ok := p.Sources.Get(j.Org, j.Source)
	if !ok {
		return permanent("the source %q does not exist any more", j.Source)
	}
	if !p.Usable(j.Org) {
		return permanent("the organization does not exist any more, or is disabled")
	}
	received, lent, err := p.load(ctx, j)
	if err != nil {
		return err
	}
	if len(src.Definition.Actions) == 0 { // what is run may hold the body for longer
		defer p.buffers.Return(lent)
	}
	said, err := src.provider.Read(received.Meta.Header, received.Meta.Header.Get("Content-Type"), received.Body)
	if err != nil {
		return permanent("the body cannot be read: %s", plain(err))
	}
	request := requestOf(received, said)
	if wanted, err := src.takes(said, request); err != nil {
		return permanent("the source's filter: %s", plain(err))
	} else if !wanted {
		*note = &intake.Note{Outcome: intake.Filtered}
		return nil
	}
	*note = &intake.Note{Outcome: intake.Ran}
	if src.publish {
		if j.published == nil {
			if j.published, err = p.publish(ctx, j, src, received, said); err != nil {
				return err
			}
		}
		copied := *j.published // each attempt adds to its own
		*note = &copied
	}
	return p.act(ctx, src, request, *note)
}

// takes reports whether a source wants a delivery.
func (s *Source) takes(said *provider.Delivery, request *action.Request) (bool, error) {
	if !s.wants(said.Event) {
		return false, nil
	}
	if s.Definition.When == nil {
		return true, nil
	}
	return s.Definition.When.Eval(request)
}

func requestOf(received *intake.Received, said *provider.Delivery) *action.Request {
	query, _ := url.ParseQuery(received.Meta.Query) // of what is readable in it
	return &action.Request{
		ID: received.Delivery, Method: http.MethodPost, Remote: received.Remote, Header: received.Meta.Header, Query: query, Body: received.Body,
		Env: map[string]string{"CARILLON_SOURCE": received.Source, "CARILLON_EVENT": said.Event}, Verify: VerifyWith, Now: received.At,
	}
}

// load reads a delivery from the intake, where it is not in memory. What is lent is
// returned when nobody holds its body any more.
func (p *Processor) load(ctx context.Context, j *job) (received *intake.Received, lent []byte, err error) {
	if e := p.entry(ctx, j); e != nil {
		received, err := intake.ParseReceived(&e.Event)
		if err == nil && received.Meta.Parts == 0 {
			if lent, err = received.Whole(&p.buffers); err != nil {
				return nil, nil, &permanentError{err}
			}
			return received, lent, nil
		}
	}
	received, err = Load(ctx, p.Log.Intake(j.Org), j.Pos.Seq)
	return received, nil, err
}

// ErrGone says that the intake does not have a delivery any more.
var ErrGone = errors.New("hook: the delivery is older than what is kept")

// Load reads a delivery with its whole body.
func Load(ctx context.Context, log engine.Log, seq uint64) (received *intake.Received, err error) {
	most := 1 + (intake.MaxBody-1)/intake.Part
	stop := errors.New("that is all")
	_, err = log.Read(ctx, engine.Range{After: seq - 1, Limit: 1, MaxBytes: 2 * intake.Part}, func(e *carillon.Entry) error {
		if e.Pos.Seq != seq || e.Type != intake.TypeReceived {
			return stop
		}
		received, err = intake.ParseReceived(&e.Event)
		return err
	})
	switch {
	case errors.Is(err, stop), err == nil && received == nil:
		return nil, &permanentError{ErrGone}
	case err != nil:
		return nil, &awayError{err: err}
	case received.Meta.Parts == 0:
		return whole(received)
	case received.Meta.Parts < 0, received.Meta.Parts > most:
		return nil, permanent("the delivery says that it has %d parts", received.Meta.Parts)
	}
	body := make([]byte, 0, (received.Meta.Parts+1)*intake.Part)
	body = append(body, received.Body...)
	parts := 0
	for after := seq; parts < received.Meta.Parts; {
		end, err := log.Read(ctx, engine.Range{After: after, Limit: received.Meta.Parts - parts, MaxBytes: intake.MaxBody}, func(e *carillon.Entry) error {
			if e.Type != intake.TypePart || e.Source != received.Source {
				return stop
			}
			body = append(body, e.Data...)
			parts++
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			return nil, &awayError{err: err}
		}
		if err != nil || !end.More && parts < received.Meta.Parts {
			return nil, &permanentError{ErrGone}
		}
		after = end.Seen
	}
	received.Body = body
	return whole(received)
}

// whole is a delivery with its body as it came.
func whole(received *intake.Received) (*intake.Received, error) {
	if _, err := received.Whole(nil); err != nil {
		return nil, &permanentError{err}
	}
	return received, nil
}

// publish makes an event of a delivery.
func (p *Processor) publish(ctx context.Context, j *job, src *Source, received *intake.Received, said *provider.Delivery) (*intake.Note, error) {
	data, err := src.shape.Apply(said.Payload)
	if err != nil {
		return nil, permanent("the payload cannot be shaped: %s", plain(err))
	}
	if len(data) > p.EventBytes {
		data = fmt.Appendf(nil, `{"truncated":true,"size":%d}`, received.Meta.Size)
	}
	draft := carillon.Draft{
		Type: src.Name + "." + said.Event, Time: received.At.UTC().Format(time.RFC3339Nano), Data: data,
		ID: strconv.FormatUint(j.Pos.Seq, 10) + "." + strconv.FormatUint(uint64(j.Pos.Check), 16) + "." + strconv.Itoa(j.Again),
	}
	if path := src.Definition.Subject; path != "" {
		if subject, ok := shape.Lookup(said.Payload, path); ok {
			if _, err := carillon.ParseSubject(subject); err == nil {
				draft.Subject = subject
			}
		}
	}
	if j.doubt && p.Now().Sub(j.since) > p.Log.Caps().DedupeWindow/2 {
		if note, err := p.find(ctx, j, &draft); note != nil || err != nil {
			return note, err
		}
	}
	type outcome struct {
		receipts []carillon.Receipt
		err      error
	}
	done := make(chan outcome, 1)
	p.Publish(j.Org, src.Name, received.Delivery, draft, func(receipts []carillon.Receipt, err error) { done <- outcome{receipts, err} })
	var o outcome
	select {
	case o = <-done:
	case <-ctx.Done():
		j.doubt = true
		return nil, &awayError{err: ctx.Err()}
	}
	if o.err != nil {
		return nil, refusal(o.err)
	}
	pos := o.receipts[0].Pos
	return &intake.Note{Outcome: intake.Published, Type: draft.Type, Event: &pos}, nil
}

// refusal is what follows from that the gate did not take an event.
func refusal(err error) error {
	e := carillon.AsError(err)
	switch e.Code {
	case carillon.CodeUnavailable, carillon.CodeRateLimited, carillon.CodeInternal:
		return &awayError{err: err, wait: e.RetryAfter}
	case carillon.CodeQuotaExceeded:
		return err // it may pass
	case carillon.CodeBadRequest, carillon.CodeUnauthenticated, carillon.CodeForbidden, carillon.CodeNotFound, carillon.CodeMethodNotAllowed,
		carillon.CodeConflict, carillon.CodeGone, carillon.CodeTooLarge, carillon.CodeUnsupportedMedia:
	}
	return &permanentError{err}
}

// find looks for the event that another process may have made of the delivery, when
// that is so long ago that the log does not know its key any more.
func (p *Processor) find(ctx context.Context, j *job, draft *carillon.Draft) (*intake.Note, error) {
	log := p.Log.Open(j.Org)
	at, err := log.At(ctx, j.since)
	if err != nil {
		return nil, &awayError{err: err}
	}
	var found *intake.Note
	stop := errors.New("that is it")
	for after := at.Seq; ; {
		end, err := log.Read(ctx, engine.Range{After: after}, func(e *carillon.Entry) error {
			if e.Source != j.Source || e.Event.Delivery != j.Delivery.Delivery || string(e.Type) != draft.Type || string(e.Data) != string(draft.Data) {
				return nil
			}
			pos := e.Pos
			found = &intake.Note{Outcome: intake.Published, Type: draft.Type, Event: &pos}
			return stop
		})
		switch {
		case found != nil:
			return found, nil
		case err != nil:
			return nil, &awayError{err: err}
		case !end.More:
			return nil, nil
		}
		after = end.Seen
	}
}

// act does what else the source wants done.
func (p *Processor) act(ctx context.Context, src *Source, request *action.Request, note *intake.Note) error {
	for i := range src.Definition.Actions {
		if p.Actions == nil {
			return permanent("this node runs no actions")
		}
		result, err := p.Actions.Do(ctx, &src.Definition.Actions[i], request)
		if err != nil {
			return fmt.Errorf("action %d: %w", i, err)
		}
		note.Text = clipBytes(note.Text+string(result.Output), maxActionText)
	}
	return nil
}

// How much of what actions said, and of an error, is kept, in bytes.
const (
	maxActionText = 2048
	maxError      = 500
)
