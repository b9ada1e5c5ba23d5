package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
)

// getRequest asks a stream for messages.
type getRequest struct {
	Seq      uint64     `json:"seq,omitempty"`
	NextFor  string     `json:"next_by_subj,omitempty"`
	LastFor  string     `json:"last_by_subj,omitempty"`
	From     *time.Time `json:"start_time,omitempty"`
	Batch    int        `json:"batch,omitempty"`
	MaxBytes int        `json:"max_bytes,omitempty"`
}

// stored is a message of a stream; seq is 0 when there is none.
type stored struct {
	seq     uint64
	subject string
	header  nats.Header
	data    []byte
	time    time.Time
}

func (s stored) position(p *partition) carillon.Position {
	return carillon.Position{Partition: uint16(p.number), Seq: s.seq, Check: checkOf(idOf(s.header))}
}

const (
	apiPrefix = "$JS.API."
	directGet = apiPrefix + "DIRECT.GET."
	leaderGet = apiPrefix + "STREAM.MSG.GET."
)

// requestTimeout bounds a request whose context has no deadline.
const requestTimeout = 5 * time.Second

// get reads one message, from any replica or from the leader.
func (e *Engine) get(ctx context.Context, p *partition, r getRequest, leader bool) (stored, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(r)
	if err != nil {
		return stored{}, err
	}
	if leader {
		return e.getLeader(ctx, p, body)
	}
	msg, err := e.replays.RequestWithContext(ctx, directGet+p.stream, body)
	if err != nil {
		return stored{}, wrap(err, "read "+p.stream)
	}
	switch status := msg.Header.Get(hdrStatus); status {
	case "":
	case "404":
		return stored{}, nil
	default:
		return stored{}, fmt.Errorf("jetstream: read %s: the log answers %s %s", p.stream, status, msg.Header.Get("Description"))
	}
	return direct(msg)
}

// direct reads the answer to a direct get.
func direct(msg *nats.Msg) (s stored, err error) {
	s = stored{subject: msg.Header.Get(hdrOrigin), header: msg.Header, data: msg.Data}
	if s.seq, err = strconv.ParseUint(msg.Header.Get(hdrSequence), 10, 64); err == nil {
		s.time, err = time.Parse(time.RFC3339Nano, msg.Header.Get(hdrStamp))
	}
	return s, wrap(err, "read an answer")
}

func (e *Engine) getLeader(ctx context.Context, p *partition, body []byte) (stored, error) {
	msg, err := e.replays.RequestWithContext(ctx, leaderGet+p.stream, body)
	if err != nil {
		return stored{}, wrap(err, "read "+p.stream)
	}
	var answer struct {
		Error   *apiError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return stored{}, wrap(err, "read "+p.stream)
	}
	if answer.Error != nil {
		if answer.Error.Code == codeNoMessage {
			return stored{}, nil
		}
		return stored{}, fmt.Errorf("jetstream: read %s: the log answers %d: %s", p.stream, answer.Error.Code, answer.Error.Text)
	}
	if answer.Message == nil {
		return stored{}, fmt.Errorf("jetstream: read %s: an empty answer", p.stream)
	}
	m := answer.Message
	s := stored{seq: m.Seq, subject: m.Subject, data: m.Data, time: m.Time}
	if len(m.Header) > 0 {
		if s.header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return stored{}, wrap(err, "read "+p.stream)
		}
	}
	return s, nil
}

// info asks the leader for the stream's state; with a subject also for how many
// entries that one has.
func (e *Engine) info(ctx context.Context, p *partition, subject string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var body []byte
	if subject != "" {
		body = []byte(`{"subjects_filter":"` + subject + `"}`)
	}
	msg, err := e.signals.RequestWithContext(ctx, apiPrefix+"STREAM.INFO."+p.stream, body)
	if err != nil {
		return nil, wrap(err, "state of "+p.stream)
	}
	var answer struct {
		Error *apiError `json:"error"`
		jetstream.StreamInfo
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return nil, wrap(err, "state of "+p.stream)
	}
	if answer.Error != nil {
		return nil, fmt.Errorf("jetstream: state of %s: the log answers %d: %s", p.stream, answer.Error.Code, answer.Error.Text)
	}
	return &answer.StreamInfo, nil
}

// State reads the partition's bounds from the leader. It also corrects Head
// when the log turns out to end before it.
func (e *Engine) State(ctx context.Context, partition int) (engine.State, error) {
	p, err := e.partition(partition)
	if err != nil {
		return engine.State{}, err
	}
	return e.state(ctx, p)
}

func (e *Engine) state(ctx context.Context, p *partition) (engine.State, error) {
	epoch := e.epoch(p)
	head := p.head.Load()
	info, err := e.info(ctx, p, "")
	if err != nil {
		return engine.State{}, err
	}
	s := engine.State{
		Identity: p.stream + "-" + strconv.FormatInt(info.Created.UnixNano(), 36),
		First:    info.State.FirstSeq,
		Last:     carillon.Position{Partition: uint16(p.number), Seq: info.State.LastSeq},
		Entries:  info.State.Msgs,
		Bytes:    info.State.Bytes,
	}
	if s.Entries == 0 {
		s.First = s.Last.Seq + 1
	}
	if s.Last.Seq > 0 {
		check, found, err := e.check(ctx, p, s.Last.Seq, true)
		if err != nil {
			return engine.State{}, err
		}
		if found {
			s.Last.Check = check
		}
	}
	// What was acknowledged before we asked is stored, unless the log was cut.
	if head != nil && (s.Last.Seq < head.Seq || s.Last.Seq == head.Seq && s.Last.Check != 0 && s.Last.Check != head.Check) {
		p.head.CompareAndSwap(head, &s.Last)
	}
	if s.Last.Seq > 0 {
		p.raise(s.Last)
	}
	p.checked.Store(epoch)
	return s, nil
}

// certain is a sequence up to which the log is known to be stored, at least as
// high as every acknowledged one.
func (e *Engine) certain(ctx context.Context, p *partition) (uint64, error) {
	if head := p.head.Load(); head != nil && p.checked.Load() == e.epoch(p) {
		return head.Seq, nil
	}
	s, err := e.state(ctx, p)
	return s.Last.Seq, err
}

// Check reads the check of the entry at seq.
func (e *Engine) Check(ctx context.Context, partition int, seq uint64) (check uint32, found bool, err error) {
	p, err := e.partition(partition)
	if err != nil {
		return 0, false, err
	}
	return e.check(ctx, p, seq, false)
}

func (e *Engine) check(ctx context.Context, p *partition, seq uint64, leader bool) (check uint32, found bool, err error) {
	if seq == 0 {
		return 0, false, nil
	}
	m, err := e.get(ctx, p, getRequest{Seq: seq}, leader)
	if err != nil || m.seq == 0 {
		return 0, false, err
	}
	return checkOf(idOf(m.header)), true, nil
}

// at is the position of seq, with the check of its entry or 0 when it is gone.
func (e *Engine) at(ctx context.Context, p *partition, seq uint64) (carillon.Position, error) {
	check, _, err := e.check(ctx, p, seq, true)
	return carillon.Position{Partition: uint16(p.number), Seq: seq, Check: check}, err
}

var (
	errTailBroken = errors.New("jetstream: the tail broke")
	errUnknownYet = errors.New("jetstream: the consumer is not known yet")
)
