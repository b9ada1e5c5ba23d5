package wire_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
	"github.com/carillon-rt/carillon/internal/wire"
)

// maxEvents is how many events the protocol allows at once.
const maxEvents = 1000

type placeVector struct {
	Org       carillon.OrgID
	Partition uint16
	Seq       uint64
	Check     uint32
}

func (v placeVector) position() carillon.Position {
	return carillon.Position{Partition: v.Partition, Seq: v.Seq, Check: v.Check}
}

func idsOf(t testing.TB, file string, org carillon.OrgID) *wire.IDs {
	t.Helper()
	given := vectors.Given[struct {
		Install string `json:"install_key"`
	}](t, file)
	return wire.NewKeyring([]byte(given.Install)).Org(org)
}

func TestCursorsOfTheVectors(t *testing.T) {
	vectors.Run(t, "cursors.json", "ids", func(t *testing.T, in placeVector) (any, error) {
		ids := idsOf(t, "cursors.json", in.Org)
		id := ids.String(in.position())
		if back, ok := ids.Decode(id); !ok || back != in.position() {
			t.Errorf("%s is read as %v, %v", id, back, ok)
		}
		return id, nil
	})
	vectors.Run(t, "cursors.json", "read", func(t *testing.T, in vectors.Text) (any, error) {
		c, err := idsOf(t, "cursors.json", "acme").ParseCursor(string(in))
		switch c.Kind {
		case carillon.CursorNow:
			return "now", err
		case carillon.CursorEarliest:
			return "earliest", err
		case carillon.CursorForeign:
			return "reset", err
		case carillon.CursorAgo:
			return map[string]float64{"ago_seconds": c.Ago.Seconds()}, err
		case carillon.CursorAt:
			return map[string]uint64{"partition": uint64(c.Pos.Partition), "seq": c.Pos.Seq, "check": uint64(c.Pos.Check)}, err
		case carillon.CursorNone:
		}
		return "default", err
	})
}

// draft is a draft as the vectors have it.
type draft struct {
	Type      string          `json:"type"`
	Data      string          `json:"data"`
	Subject   string          `json:"subject,omitempty"`
	Time      string          `json:"time,omitempty"`
	ID        string          `json:"id,omitempty"`
	To        *audience       `json:"to,omitempty"`
	Ephemeral bool            `json:"ephemeral,omitempty"`
	Source    string          `json:"source,omitempty"`
	CE        json.RawMessage `json:"ce,omitempty"`
}

type audience struct {
	Room  string   `json:"room,omitempty"`
	Users []string `json:"users,omitempty"`
}

func draftOf(d carillon.Draft) draft {
	out := draft{Type: d.Type, Data: string(d.Data), Subject: d.Subject, Time: d.Time, ID: d.ID, Ephemeral: d.Ephemeral, Source: d.Source, CE: d.CE}
	if d.Room != "" || len(d.Users) > 0 {
		out.To = &audience{d.Room, d.Users}
	}
	return out
}

func draftsOf(drafts []carillon.Draft) []draft {
	var all []draft
	for _, d := range drafts {
		all = append(all, draftOf(d))
	}
	return all
}

func TestPublishingOfTheVectors(t *testing.T) {
	vectors.Run(t, "publish.json", "body", func(_ *testing.T, in vectors.Text) (any, error) {
		drafts, _, err := wire.ParseDrafts([]byte(in), maxEvents)
		return draftsOf(drafts), err
	})
}

type binaryVector struct {
	Headers [][2]string
	Body    vectors.Text
}

func (v binaryVector) header() http.Header {
	h := http.Header{}
	for _, pair := range v.Headers {
		h.Add(pair[0], pair[1])
	}
	return h
}

func TestCloudEventsOfTheVectors(t *testing.T) {
	vectors.Run(t, "cloudevents.json", "structured", func(_ *testing.T, in vectors.Text) (any, error) {
		d, err := wire.ParseCloudEvent([]byte(in), wire.DefaultCEBytes)
		return draftOf(d), err
	})
	vectors.Run(t, "cloudevents.json", "batch", func(_ *testing.T, in vectors.Text) (any, error) {
		drafts, err := wire.ParseCloudEvents([]byte(in), maxEvents, wire.DefaultCEBytes)
		return draftsOf(drafts), err
	})
	vectors.Run(t, "cloudevents.json", "binary", func(_ *testing.T, in binaryVector) (any, error) {
		d, err := wire.ParseBinaryCloudEvent(in.header(), []byte(in.Body), wire.DefaultCEBytes)
		return draftOf(d), err
	})
	vectors.Run(t, "cloudevents.json", "out", func(t *testing.T, in entryVector) (any, error) {
		e := in.entry(t)
		return json.RawMessage(wire.AppendCloudEvent(nil, idsOf(t, "cloudevents.json", e.Org), e)), nil
	})
}

// entryVector is an event of a log.
type entryVector struct {
	placeVector
	Type      carillon.Type `json:"event_type"`
	Timestamp time.Time
	Payload   string
	Subject   string
	Room      string
	Users     []string
	From      string
	Source    string
	Delivery  string
	CE        json.RawMessage
	N         uint64
}

func (v entryVector) entry(t testing.TB) *carillon.Entry {
	t.Helper()
	var ce bytes.Buffer
	if v.CE != nil {
		if err := json.Compact(&ce, v.CE); err != nil {
			t.Fatal(err)
		}
	}
	return &carillon.Entry{Org: v.Org, Pos: v.position(), Event: carillon.Event{
		Type: v.Type, Time: v.Timestamp, Subject: v.Subject, Data: []byte(v.Payload), To: carillon.Audience{Room: v.Room, Users: v.Users},
		From: v.From, Source: v.Source, Delivery: v.Delivery, CE: ce.Bytes(),
	}}
}

// clientFrame is a frame of a client as the vectors have it.
type clientFrame struct {
	Type     string          `json:"type"`
	Ref      json.RawMessage `json:"ref,omitempty"`
	Token    string          `json:"token,omitempty"`
	After    *string         `json:"after,omitempty"`
	Pattern  string          `json:"pattern,omitempty"`
	Patterns *[]string       `json:"patterns,omitempty"`
	Subject  string          `json:"subject,omitempty"`
	Overflow string          `json:"overflow,omitempty"`
	Events   []draft         `json:"events,omitempty"`
}

func clientFrameOf(f *wire.ClientFrame) clientFrame {
	out := clientFrame{Type: f.Type, Ref: f.Ref, Token: f.Token, Subject: f.Subject, Events: draftsOf(f.Drafts)}
	if f.Overflow != carillon.OverflowReplay {
		out.Overflow = f.Overflow.String()
	}
	if f.HasAfter {
		out.After = &f.After
	}
	if f.List {
		out.Patterns = &f.Patterns
	} else if len(f.Patterns) == 1 {
		out.Pattern = f.Patterns[0]
	}
	return out
}

func TestFramesOfTheVectors(t *testing.T) {
	vectors.Run(t, "frames.json", "client", func(_ *testing.T, in vectors.Text) (any, error) {
		f, err := wire.ParseClientFrame([]byte(in), maxEvents)
		return clientFrameOf(f), err
	})
	vectors.Run(t, "frames.json", "refused", func(t *testing.T, in vectors.Text) (any, error) {
		f, err := wire.ParseClientFrame([]byte(in), maxEvents)
		if err == nil {
			t.Fatalf("read as %+v", f)
		}
		return struct {
			Code carillon.Code   `json:"code"`
			Ref  json.RawMessage `json:"ref,omitempty"`
		}{carillon.AsError(err).Code, f.Ref}, nil
	})
	vectors.Run(t, "frames.json", "event", func(t *testing.T, in entryVector) (any, error) {
		e := in.entry(t)
		js := wire.AppendEvent(nil, idsOf(t, "frames.json", e.Org), e)
		if in.N > 0 {
			head, rest := wire.AppendNumbered(nil, js, in.N)
			js = append(head, rest...)
		}
		return string(js), nil
	})
	vectors.Run(t, "frames.json", "server", func(t *testing.T, in json.RawMessage) (any, error) {
		return string(serverFrame(t, in).JSON()), nil
	})
}

// serverFrame makes a frame with these fields, in their order.
func serverFrame(t *testing.T, fields json.RawMessage) *wire.Frame {
	t.Helper()
	var f *wire.Frame
	dec := json.NewDecoder(bytes.NewReader(fields))
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := dec.Token() // {
	for must(err); dec.More(); {
		name, err := dec.Token()
		must(err)
		var raw json.RawMessage
		must(dec.Decode(&raw))
		var value any
		must(json.Unmarshal(raw, &value))
		switch v := value.(type) {
		case string:
			if name == "type" {
				f = wire.Begin(v)
				continue
			}
			f.Str(name.(string), v)
		case float64:
			f.Int(name.(string), int64(v))
		case bool:
			f.True(name.(string), v)
		default:
			var compact bytes.Buffer
			must(json.Compact(&compact, raw))
			f.Raw(name.(string), compact.Bytes())
		}
	}
	return f
}

func TestServerSentEventsOfTheVectors(t *testing.T) {
	vectors.Run(t, "sse.json", "begin", func(t *testing.T, in struct {
		placeVector
		Retry int64 `json:"retry_ms"`
	},
	) (any, error) {
		return string(wire.Priming(time.Duration(in.Retry)*time.Millisecond, idsOf(t, "sse.json", in.Org), in.position())), nil
	})
	vectors.Run(t, "sse.json", "idle", func(t *testing.T, in placeVector) (any, error) {
		return string(wire.KeepAlive(idsOf(t, "sse.json", in.Org), in.position())), nil
	})
	vectors.Run(t, "sse.json", "event", func(t *testing.T, in struct {
		Event         entryVector
		Resume, Named bool
	},
	) (any, error) {
		e := in.Event.entry(t)
		ids := idsOf(t, "sse.json", e.Org)
		return string(wire.AppendBlock(nil, ids, e, wire.AppendEvent(nil, ids, e), in.Resume, in.Named)), nil
	})
	vectors.Run(t, "sse.json", "control", func(t *testing.T, in json.RawMessage) (any, error) {
		return string(serverFrame(t, in).Block()), nil
	})
}

func TestProblemsOfTheVectors(t *testing.T) {
	vectors.Run(t, "problems.json", "problem", func(_ *testing.T, in struct {
		Code   carillon.Code
		Detail string
	},
	) (any, error) {
		e := &carillon.Error{Code: in.Code, Message: in.Detail}
		return map[string]any{
			"status": e.Code.Status(), "content_type": wire.ProblemContentType, "body": json.RawMessage(wire.AppendProblem(nil, e)),
		}, nil
	})
	vectors.Run(t, "problems.json", "retry_after", func(_ *testing.T, in int64) (any, error) {
		return wire.RetryAfter(&carillon.Error{RetryAfter: time.Duration(in) * time.Millisecond}), nil
	})
}

func TestCloseCodesOfTheVectors(t *testing.T) {
	vectors.Run(t, "close_codes.json", "sent", func(_ *testing.T, in wire.CloseCode) (any, error) { return in.Ours(), nil })
}

// FuzzParseClientFrame: what is accepted is JSON with its type and ref, what is
// not is refused in a way that may be shown, with the ref if that can be read.
func FuzzParseClientFrame(f *testing.F) {
	for _, table := range []string{"client", "refused"} {
		for _, s := range vectors.Inputs[vectors.Text](f, "frames.json", table) {
			f.Add([]byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		frame, err := wire.ParseClientFrame(raw, maxEvents)
		if frame.Ref != nil && !json.Valid(frame.Ref) {
			t.Fatalf("the ref %q of %q", frame.Ref, raw)
		}
		if err != nil {
			if code := carillon.AsError(err).Code; code != carillon.CodeBadRequest && code != carillon.CodeTooLarge {
				t.Fatalf("%q is refused: %v", raw, err)
			}
			return
		}
		var sent map[string]any
		if err := json.Unmarshal(raw, &sent); err != nil {
			t.Fatalf("accepted what is not JSON: %q", raw)
		}
		if sent["type"] != frame.Type || (sent["ref"] != nil) != (frame.Ref != nil) {
			t.Fatalf("%q is read as %+v", raw, frame)
		}
	})
}
