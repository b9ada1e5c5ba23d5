package frames

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

// batch collects the answers to the frames of one request, in their order.
type batch struct {
	all  chan struct{} // closed when nothing is missing
	refs [][]byte      // of the frames that wait for an answer; set once

	mu      sync.Mutex // guards what follows
	answers [][]byte
	missing int
}

func newBatch(n int) *batch {
	b := &batch{all: make(chan struct{}), refs: make([][]byte, n), answers: make([][]byte, n), missing: n}
	if n == 0 {
		close(b.all)
	}
	return b
}

// answer takes the answer to frame i, from anywhere. A second one is ignored.
func (b *batch) answer(i int, js []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.answers[i] != nil {
		return
	}
	b.answers[i] = js
	if b.missing--; b.missing == 0 {
		close(b.all)
	}
}

func (b *batch) fail(i int, ref []byte, err error) { b.answer(i, wire.ErrorFrame(err, ref).JSON()) }

// wait returns all answers as a JSON array. What is not answered within the
// time gets an error in its place.
func (b *batch) wait(ctx context.Context, within time.Duration) ([]byte, error) {
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-b.all:
	case <-late.C:
		for i := range b.answers {
			b.fail(i, b.refs[i], carillon.Unavailable(time.Second, nil, "no answer yet; what was asked may still happen"))
		}
	case <-ctx.Done():
		return nil, carillon.Unavailable(time.Second, ctx.Err(), "the request has ended; what was asked may still happen")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(append([]byte{'['}, bytes.Join(b.answers, []byte{','})...), ']'), nil
}

// split finds the frames of a body: one, an array of them, or one per line. A
// line that is no JSON is a frame like others, and answered as one.
func split(body []byte, lines bool, most int) ([][]byte, error) {
	body = bytes.TrimSpace(body)
	var raws [][]byte
	switch {
	case len(body) == 0:
		return nil, carillon.BadRequest("the body is empty; it is one frame, an array of frames, or one per line")
	case lines:
		raws = splitLines(body)
	case body[0] == '[':
		var list []json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil {
			return nil, carillon.BadRequest("the body is not a JSON array: %v", err)
		}
		for _, raw := range list {
			raws = append(raws, raw)
		}
	case json.Valid(body):
		raws = [][]byte{body}
	default:
		raws = splitLines(body)
		if len(raws) == 1 || !json.Valid(raws[0]) {
			return nil, carillon.BadRequest("the body is not JSON; it is one frame, an array of frames, or one per line")
		}
	}
	if len(raws) > most {
		return nil, carillon.Errorf(carillon.CodeTooLarge, "these are %d frames; a request has at most %d", len(raws), most)
	}
	return raws, nil
}

func splitLines(body []byte) (raws [][]byte) {
	for line := range bytes.Lines(body) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			raws = append(raws, line)
		}
	}
	return raws
}
