package hook

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
	"github.com/carillon-rt/carillon/internal/wire"
)

// answer tells the sender that its delivery is there.
func (r *Receiver) answer(w http.ResponseWriter, q *request, received *intake.Received, pos carillon.Position, duplicate bool) {
	status := "accepted"
	id := ""
	switch {
	case duplicate:
		status = "duplicate"
	case pos == (carillon.Position{}):
		status = "spooled"
	}
	if pos != (carillon.Position{}) {
		id = r.IDs.ID(q.source.Org, pos)
		w.Header().Set("Carillon-Delivery", id)
	}
	r.count.received(q.source, status)
	took := r.Now().Sub(q.began)
	r.Logger.LogAttrs(q.http.Context(), slog.LevelDebug, "hook: received", slog.String("org", string(q.source.Org)), slog.String("source", q.source.Name),
		slog.String("status", status), slog.String("delivery", received.Delivery), slog.String("event", received.Meta.Event), slog.String("id", id),
		slog.String("client", q.http.RemoteAddr), slog.Int("bytes", len(q.body)), slog.Duration("took", took))
	if wantsEmptyAnswer(q.source.Definition.Kind, q.http.Header.Get("Content-Type")) {
		w.WriteHeader(http.StatusOK)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	js, _ := json.Marshal(struct {
		ID        string `json:"id,omitempty"`
		Duplicate bool   `json:"duplicate,omitempty"`
	}{id, duplicate})
	_, _ = w.Write(append(js, '\n')) // the sender may be gone
}

func (r *Receiver) challenge(w http.ResponseWriter, q *request, text string) error {
	r.count.received(q.source, "challenge")
	r.Logger.Info("hook: a challenge was answered", "org", q.source.Org, "source", q.source.Name, "client", q.http.RemoteAddr)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text)
	return nil
}

// refuse answers with an error, counts it and, as far as there are not too many,
// records it.
func (r *Receiver) refuse(w http.ResponseWriter, q *request, err error) {
	e := carillon.AsError(err)
	status := e.Code.Status()
	h := w.Header()
	h.Set("Content-Type", wire.ProblemContentType)
	if s := wire.RetryAfter(e); s != "" {
		h.Set("Retry-After", s)
	} else if q.source != nil && q.source.Definition.Kind == provider.KindSlack {
		h.Set("X-Slack-No-Retry", "1") // the same again would not be better
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Signature") // RFC 9110, section 11.6.1, wants one
	}
	r.count.refused(q.source, q.reason, e)
	if q.source != nil && r.recorded() {
		r.record(q, status)
		args := []any{"org", q.source.Org, "source", q.source.Name, "reason", q.reason, "status", status, "client", q.http.RemoteAddr, "bytes", q.sizeHad}
		if e.Err != nil {
			args = append(args, "err", e.Err)
		}
		r.Logger.Warn("hook: refused", args...)
	}
	w.WriteHeader(status)
	_, _ = w.Write(wire.AppendProblem(nil, e)) // the sender may be gone
}

// record puts a refusal into the intake. Nobody waits for it.
func (r *Receiver) record(q *request, status int) {
	id, event := q.source.provider.Claimed(q.http.Header)
	refused := intake.Refused{
		Delivery: clipBytes(id, maxClaim), Event: clipBytes(event, maxClaim),
		Source: q.source.Name, Remote: q.http.RemoteAddr, At: q.began, Provider: string(q.source.Definition.Kind),
		Size: q.sizeHad, Status: status, Reason: q.reason,
	}
	ev, err := refused.Entry()
	if err != nil {
		return
	}
	r.Log.Intake(q.source.Org).Append([]engine.Append{{Event: ev}}, func(_ []carillon.Receipt, err error) { r.unrecorded(err) })
}

// recorded reports whether one more request of which nothing comes is recorded.
func (r *Receiver) recorded() bool {
	if r.refusals.Allow() {
		return true
	}
	r.count.limits.Add("hook_refusals_per_second")
	return false
}

// unrecorded counts what the log did not take for the record.
func (r *Receiver) unrecorded(err error) {
	if err != nil {
		r.count.unrecorded.Add(1)
	}
}
