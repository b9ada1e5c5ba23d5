// Package frames is the door for frames without a WebSocket: POST /v1/frames.
//
// With X-Carillon-Connection the frames act on that connection, which somebody
// else holds open; without it they act for the caller alone.
package frames

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/loop"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport"
	"github.com/carillon-rt/carillon/internal/wire"
)

// Config is what the door stands on. Core and Auth are required.
type Config struct {
	Core *session.Core
	Auth *auth.Authenticator

	// Origins, if not nil, are checked here. Leave it nil where the caller does
	// so for the whole port.
	Origins *auth.Origins

	Frames       int           // in one request; DefaultFrames
	FrameBytes   int           // of one; DefaultFrameBytes
	RequestBytes int           // of a request's body; DefaultRequestBytes
	AnswerWithin time.Duration // else an error stands in the answer's place; DefaultAnswerWithin
	WriteTimeout time.Duration // of an answer, without progress; loop.DefaultWriteTimeout
	Logger       *slog.Logger
}

// Defaults of Config.
const (
	DefaultFrames       = 100
	DefaultFrameBytes   = 1 << 20
	DefaultRequestBytes = 10_000_000
	DefaultAnswerWithin = 30 * time.Second
)

// Connection is the header that names the connection to act on.
const Connection = "X-Carillon-Connection"

type handler struct{ Config }

// Handler makes the door. It panics if a required field is missing.
func Handler(cfg Config) http.Handler {
	if cfg.Core == nil || cfg.Auth == nil {
		panic("frames: Config.Core and Auth are required")
	}
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.Frames, DefaultFrames)
	def(&cfg.FrameBytes, DefaultFrameBytes)
	def(&cfg.RequestBytes, DefaultRequestBytes)
	if cfg.AnswerWithin <= 0 {
		cfg.AnswerWithin = DefaultAnswerWithin
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = loop.DefaultWriteTimeout
	}
	h := http.Handler(&handler{cfg})
	if cfg.Origins != nil {
		return cfg.Origins.CORS(h)
	}
	return h
}

// ServeHTTP does what the frames ask and answers when all are answered.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil {
		transport.Problem(w, r, h.Logger, err)
	}
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) error {
	if err := transport.Method(w, r, http.MethodPost); err != nil {
		return err
	}
	if _, err := transport.Query(r, nil); err != nil {
		return err
	}
	p, err := transport.Caller(h.Auth, w, r, 0)
	if err != nil {
		return err
	}
	connections := r.Header[Connection]
	if len(connections) > 1 {
		return carillon.BadRequest("%d %s headers; send one", len(connections), Connection)
	}
	body, mediaType, err := transport.Body(r, h.RequestBytes, "application/json", "application/x-ndjson")
	if err != nil {
		h.Core.Met(carillon.AsError(err).Limit)
		return err
	}
	raws, err := split(body, mediaType == "application/x-ndjson", h.Frames)
	if err != nil {
		return err
	}
	b := newBatch(len(raws))
	frames := h.parse(raws, b)
	if len(connections) == 0 {
		h.alone(p, frames, b)
	} else if err := h.onConnection(connections[0], p, frames, b); err != nil {
		return err
	}
	body, err = b.wait(r.Context(), h.AnswerWithin)
	if err != nil {
		return err
	}
	header := w.Header()
	transport.Answers(header, transport.NoStore)
	header.Set("Content-Type", "application/json")
	answer.Write(w, http.StatusOK, body, h.WriteTimeout)
	return nil
}

// parse reads every frame; those that make no sense are answered at once and
// are nil.
func (h *handler) parse(raws [][]byte, b *batch) []*wire.ClientFrame {
	frames := make([]*wire.ClientFrame, len(raws))
	for i, raw := range raws {
		if len(raw) > h.FrameBytes {
			h.Core.Met("frame_bytes")
			b.fail(i, nil, carillon.Errorf(carillon.CodeTooLarge, "a frame is at most %d bytes, not %d", h.FrameBytes, len(raw)))
			continue
		}
		f, err := h.Core.ParseFrame(raw)
		if err != nil {
			b.fail(i, f.Ref, err)
			continue
		}
		frames[i], b.refs[i] = f, f.Ref
	}
	return frames
}

// onConnection hands the frames to a session of the caller's.
func (h *handler) onConnection(id string, p *carillon.Principal, frames []*wire.ClientFrame, b *batch) error {
	found := make(chan bool, 1)
	h.Core.Find(id, p, func(s *session.Session) {
		found <- s != nil
		if s == nil {
			return
		}
		for i, f := range frames {
			if f != nil {
				s.Handle(f, func(answer *wire.Frame) { b.answer(i, answer.JSON()) })
			}
		}
	})
	if <-found {
		return nil
	}
	return carillon.Errorf(carillon.CodeNotFound, "there is no such connection of yours; %s is the connection_id of its welcome", Connection)
}

// alone does what needs no connection.
func (h *handler) alone(p *carillon.Principal, frames []*wire.ClientFrame, b *batch) {
	ids := h.Core.IDs.Org(p.Org)
	for i, f := range frames {
		if f == nil {
			continue
		}
		switch f.Type {
		case "ping":
			b.answer(i, wire.Begin("pong").Raw("ref", f.Ref).JSON())
		case "publish":
			h.Core.Publisher.Submit(p, f.Drafts, func(receipts []carillon.Receipt, err error) {
				if err != nil {
					b.fail(i, f.Ref, err)
					return
				}
				b.answer(i, wire.Begin("published").Raw("events", wire.AppendReceipts(nil, ids, receipts)).Raw("ref", f.Ref).JSON())
			})
		case "connect":
			b.fail(i, f.Ref, carillon.BadRequest("a request is authenticated by its own credential; connect is for a WebSocket"))
		default:
			b.fail(i, f.Ref, carillon.BadRequest("%s needs a connection: send its connection_id as %s", f.Type, Connection))
		}
	}
}
