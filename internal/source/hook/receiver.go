package hook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
	"github.com/carillon-rt/carillon/internal/source/hook/shape"
)

// busyRetry is how long senders are told to wait.
const busyRetry = 5 * time.Second

// Receiver is the handler of POST /hooks/{org}/{source}. What it answers with 200 is
// in the log, or on this node's disk where the provider never sends anything twice.
type Receiver struct {
	Config

	count    counters
	refusals *rate.Limiter
	bodies   budget
	buffers  intake.Buffers
	inHand   atomic.Int64
	spool    *spool // nil: there is none
}

// NewReceiver makes a receiver. It panics if a required field is missing.
func NewReceiver(cfg Config) (*Receiver, error) {
	cfg.defaults()
	r := &Receiver{Config: cfg, count: newCounters(), refusals: rate.NewLimiter(rate.Limit(cfg.Refusals), 10*cfg.Refusals)}
	r.bodies.left.Store(cfg.InFlightBytes)
	if cfg.SpoolDir != "" {
		var err error
		if r.spool, err = openSpool(cfg.SpoolDir, cfg.SpoolBytes); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// request is one that is being received.
type request struct {
	http    *http.Request
	source  *Source
	began   time.Time
	claim   *provider.Claim
	body    []byte
	lent    []byte // which body may be in; nobody holds any of it when the request has been served
	secret  int
	reason  string // of a refusal, for the audit
	sizeHad int64  // what was declared or read
}

// ServeHTTP takes one delivery. The order of the checks is that of the protocol:
// nothing of a body is read before its sender may send at all, and nothing of it is
// parsed before its signature was verified.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, h *http.Request) {
	q := &request{http: h, began: r.Now(), sizeHad: max(h.ContentLength, 0)}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	r.inHand.Add(1)
	defer r.inHand.Add(-1)
	defer func() { r.buffers.Return(q.lent) }()
	if err := r.receive(w, q); err != nil {
		r.refuse(w, q, err)
	}
}

// Busy reports whether more requests are in hand than usual: what was received can
// wait until they are answered.
func (r *Receiver) Busy() bool { return r.inHand.Load() > busyRequests }

// receive answers, or returns why not.
func (r *Receiver) receive(w http.ResponseWriter, q *request) error {
	org, err := carillon.ParseOrgID(q.http.PathValue("org"))
	if err == nil && r.Usable(org) {
		q.source, _ = r.Sources.Get(org, q.http.PathValue("source"))
	}
	switch {
	case q.source == nil:
		return q.because("unknown", carillon.Errorf(carillon.CodeNotFound, "there is no webhook source at this path; it is /hooks/<org>/<source>"))
	case q.http.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		return q.because("method", carillon.Errorf(carillon.CodeMethodNotAllowed, "webhooks are sent with POST"))
	case !q.source.allows(q.http.RemoteAddr):
		return q.because("address", carillon.Errorf(carillon.CodeForbidden, "this address may not send here"))
	case q.http.ContentLength > int64(q.source.body):
		return q.tooLarge()
	}
	if enc := q.http.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return q.because("encoding", carillon.Errorf(carillon.CodeUnsupportedMedia, "Content-Encoding is not supported here: the body is signed as it is sent; send it as it is"))
	}
	claim, refusal := q.source.provider.Look(q.http.Header, q.began)
	if refusal != nil {
		return q.forged(refusal)
	}
	q.claim = claim
	if r.Full != nil {
		if err := r.Full(); err != nil {
			return q.because("full", err)
		}
	}
	release, err := r.read(w, q)
	defer release()
	if err != nil {
		return err
	}
	if q.secret, refusal = q.claim.Verify(q.body, q.source.keys); refusal != nil {
		return q.forged(refusal)
	}
	q.source.Secrets[q.secret].used(q.began)
	return r.accept(w, q)
}

func (q *request) because(reason string, err error) error {
	q.reason = reason
	return err
}

// forged is the one answer to whatever is wrong with a signature.
func (q *request) forged(refusal *provider.Refusal) error {
	return q.because(string(refusal.Reason), carillon.Errorf(carillon.CodeUnauthenticated, "the signature of this webhook is missing, wrong or too old"))
}

func (q *request) tooLarge() error {
	return q.because("too_large", carillon.Errorf(carillon.CodeTooLarge, "the body is larger than the %d bytes that this source takes", q.source.body))
}

// read reads the body. What it takes from the budget release gives back.
func (r *Receiver) read(w http.ResponseWriter, q *request) (release func(), err error) {
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(r.BodyTimeout)) // not every writer can
	var held int64
	release = func() { r.bodies.give(held) }
	take := func(n int64) bool {
		if !r.bodies.take(n) {
			return false
		}
		held += n
		return true
	}
	busy := func() error {
		return q.because("busy", carillon.Unavailable(busyRetry, nil, "more webhooks are being received than this server takes; send it again later").Over("hook_bytes_in_flight"))
	}
	size := q.http.ContentLength
	if size >= 0 {
		if !take(size) {
			return release, busy()
		}
		q.lent = r.buffers.Lend(int(size))
		q.body = q.lent
		n, err := io.ReadFull(q.http.Body, q.body)
		q.sizeHad = int64(n)
		if err != nil && size > 0 {
			return release, q.unread(err)
		}
	} else {
		for piece := int64(16 << 10); ; piece *= 2 {
			if !take(piece) {
				return release, busy()
			}
			more, err := io.ReadAll(io.LimitReader(q.http.Body, min(piece, int64(q.source.body-len(q.body))+1)))
			q.body = append(q.body, more...)
			q.sizeHad = int64(len(q.body))
			switch {
			case err != nil:
				return release, q.unread(err)
			case len(q.body) > q.source.body:
				return release, q.tooLarge()
			case int64(len(more)) < piece:
				_ = deadline.SetReadDeadline(time.Time{})
				return release, nil
			}
		}
	}
	_ = deadline.SetReadDeadline(time.Time{})
	return release, nil
}

func (q *request) unread(err error) error {
	return q.because("unread", &carillon.Error{
		Code: carillon.CodeBadRequest, Message: "the body could not be read to its end, or not in the time that the server allows", Err: err,
	})
}

// accept stores what was verified, and answers.
func (r *Receiver) accept(w http.ResponseWriter, q *request) error {
	src, h := q.source, q.http.Header
	digest := sha256.Sum256(q.body)
	kept, cut := src.provider.Keep(h)
	if len(cut) > 0 {
		r.Logger.Warn("hook: headers of a delivery are not kept: there are too many", "org", src.Org, "source", src.Name, "headers", cut)
	}
	received := &intake.Received{
		Source: src.Name, Remote: q.http.RemoteAddr, At: q.began, Body: q.body,
		Meta: intake.Meta{
			Provider: string(src.Definition.Kind), Query: clipBytes(q.http.URL.RawQuery, maxQuery), Header: kept,
			Digest: hex.EncodeToString(digest[:]), Secret: src.Secrets[q.secret].ID,
		},
	}
	said := src.peek(h, q.body)
	if said.Challenge != "" {
		return r.challenge(w, q, said.Challenge)
	}
	received.Meta.Event, received.Delivery = said.Event, deliveryID(said.ID, digest[:])
	if path := src.Definition.OrderBy; path != "" {
		key, _ := shape.Lookup(said.Payload, path)
		received.Meta.Order = clipBytes(key, maxOrder)
	}
	if !r.Busy() && r.known(w, q, received) {
		return nil
	}
	pos, err := r.store(q.http.Context(), src.Org, received, "")
	if err == nil {
		r.answer(w, q, received, pos, false)
		return nil
	}
	if r.spool != nil && neverRetries(src.Definition.Kind) {
		aside := r.spool.put(src.Org, received)
		if aside == nil {
			r.answer(w, q, received, carillon.Position{}, false)
			return nil
		}
		if errors.Is(aside, errSpoolFull) {
			r.count.limits.Add("hook_spool_bytes")
		}
		r.Logger.Error("hook: a delivery could not be put aside while the log is away", "org", src.Org, "source", src.Name, "err", aside)
	}
	return q.because("store", carillon.Unavailable(busyRetry, err, "the webhook cannot be stored now; send it again later"))
}

// peek is what a delivery says, as far as its receipt takes it: with the payload where
// that has a key of its order. What cannot be read is stored all the same: it was
// signed.
func (s *Source) peek(h http.Header, body []byte) *provider.Delivery {
	contentType := h.Get("Content-Type")
	if s.Definition.OrderBy != "" {
		if said, err := s.provider.Read(h, contentType, body); err == nil {
			return said
		}
	}
	return s.provider.Peek(h, contentType, body)
}

// known answers a delivery that the ledger knows. Where much is received nobody waits
// for it to be asked: what comes again is found out behind the log all the same.
func (r *Receiver) known(w http.ResponseWriter, q *request, received *intake.Received) bool {
	org := q.source.Org
	pos, ok, err := r.Ledger.Known(q.http.Context(), org, received.Source, received.Delivery, received.Meta.Digest, q.began)
	if err != nil || !ok {
		return false
	}
	if r.recorded() { // the ledger says that it is one
		r.append(org, received, "", func(_ carillon.Position, err error) { r.unrecorded(err) })
	}
	r.answer(w, q, received, pos, true)
	return true
}

const (
	maxQuery = 2048
	maxOrder = 255
	maxClaim = 255
)

// neverRetries reports whether what is not taken at once may never come again.
func neverRetries(kind provider.Kind) bool {
	return kind == provider.KindGitHub || kind == provider.KindGeneric
}

// wantsEmptyAnswer reports whether the sender shows its user what it is answered:
// Slack does, for commands and what people press.
func wantsEmptyAnswer(kind provider.Kind, contentType string) bool {
	return kind == provider.KindSlack && strings.HasPrefix(contentType, "application/x-www-form-urlencoded")
}

// deliveryID is a provider's id as it can be kept, or one of the body where there is
// none: then the same body is the same delivery.
func deliveryID(id string, digest []byte) string {
	if id != "" && len(id) <= carillon.MaxSubject && utf8.ValidString(id) && strings.IndexFunc(id, func(c rune) bool { return c < ' ' || c == 0x7f }) < 0 {
		return id
	}
	return "sha256-" + hex.EncodeToString(digest[:16])
}

func clipBytes(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}

// append appends a delivery. With a key it is there once, however often it is
// appended within the time that the log knows keys.
func (r *Receiver) append(org carillon.OrgID, received *intake.Received, key string, done func(carillon.Position, error)) {
	events, err := received.Events(&r.buffers)
	if err != nil {
		done(carillon.Position{}, err)
		return
	}
	batch := make([]engine.Append, len(events))
	for i, ev := range events {
		batch[i].Event = ev
		if key != "" {
			batch[i].Key = key + "\x00" + strconv.Itoa(i)
		}
	}
	r.Log.Intake(org).Append(batch, func(receipts []carillon.Receipt, err error) {
		if err != nil {
			done(carillon.Position{}, err)
			return
		}
		done(receipts[0].Pos, nil)
	})
}

// store appends a delivery, and waits as long as its sender may be kept waiting. One
// that is stored after that is a duplicate of the next try, or the other way round.
func (r *Receiver) store(ctx context.Context, org carillon.OrgID, received *intake.Received, key string) (carillon.Position, error) {
	type outcome struct {
		pos carillon.Position
		err error
	}
	done := make(chan outcome, 1)
	r.append(org, received, key, func(pos carillon.Position, err error) { done <- outcome{pos, err} })
	timer := time.NewTimer(r.AnswerWithin)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.pos, o.err
	case <-timer.C:
		return carillon.Position{}, errors.New("hook: the log has not answered in time")
	case <-ctx.Done():
		return carillon.Position{}, ctx.Err()
	}
}
