package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	client "github.com/carillon-rt/carillon/clients/go"
)

// PublishCmd publishes one event from flags, or one for every line of NDJSON.
type PublishCmd struct {
	Remote

	What string `arg:"" optional:"" name:"event-type" help:"The event's type, such as order.paid; or '-' for NDJSON on standard input, where every line is one event's data."`

	Type    string   `help:"The type of every event; with --type-field, what comes before the field's value." placeholder:"TYPE"`
	Data    string   `help:"The event's data: JSON, @FILE, or '-' for standard input (default: null)." default:"null" placeholder:"JSON"`
	Subject string   `help:"What the event is about." placeholder:"TEXT"`
	ID      string   `help:"Your own id, which makes publishing it twice harmless." name:"id" placeholder:"ID"`
	ToUser  []string `help:"Send it to this user only; repeatable." name:"to-user" sep:"none" placeholder:"USER"`

	TypeField    string `help:"NDJSON: the field with the type." placeholder:"FIELD"`
	SubjectField string `help:"NDJSON: the field with the subject." placeholder:"FIELD"`
	SkipBad      bool   `help:"NDJSON: leave out lines that cannot be an event, instead of ending there."`
	JSON         bool   `help:"Print the receipts as NDJSON." name:"json"`
}

// Bounds of publishing lines: how many go together, how long the first of them
// waits, and how long one may be.
const (
	publishLines = 500
	publishBytes = 4 << 20
	publishWait  = 100 * time.Millisecond
	maxLine      = 1 << 20
)

// Run publishes.
func (c *PublishCmd) Run(ctx context.Context, std *IO) error {
	for _, u := range c.ToUser { // an empty one must not become everybody
		if _, err := carillon.ParseUser(u); err != nil {
			return fmt.Errorf("--to-user: %s", carillon.AsError(err).Message)
		}
	}
	patient, err := c.client(false, 0)
	if err != nil {
		return err
	}
	first, err := c.client(false, -1)
	if err != nil {
		return err
	}
	p := &publisher{cmd: c, first: first, patient: patient, std: std, began: time.Now()}
	if c.What == "-" || c.What == "" && (c.TypeField != "" || c.SubjectField != "") {
		if c.Type == "" && c.TypeField == "" {
			return hint(errors.New("the lines have no type"), "give --type for all, or --type-field for the field that has it")
		}
		if c.ID != "" || c.Data != "null" {
			return errors.New("--id and --data are for one event; every line is an event with its own data")
		}
		err = p.lines(ctx, std.In)
		p.report(true)
		return c.explain(err)
	}
	draft, err := c.draft(std.In)
	if err != nil {
		return err
	}
	if err := p.publish(ctx, []client.Draft{draft}); err != nil {
		return c.explain(err)
	}
	return nil
}

// draft is the one event of the flags.
func (c *PublishCmd) draft(in io.Reader) (client.Draft, error) {
	typ := c.What
	if typ == "" {
		typ = c.Type
	} else if c.Type != "" {
		return client.Draft{}, errors.New("the type is given twice, as an argument and with --type")
	}
	if typ == "" {
		return client.Draft{}, hint(errors.New("no event type"), "for example: carillon publish workflow.step.completed --data '{\"step\": 3}'")
	}
	if c.TypeField != "" || c.SubjectField != "" || c.SkipBad {
		return client.Draft{}, hint(errors.New("--type-field, --subject-field and --skip-bad are for NDJSON"), "put '-' instead of the type")
	}
	data, err := []byte(c.Data), error(nil)
	if name, ok := strings.CutPrefix(c.Data, "@"); ok {
		data, err = os.ReadFile(name)
	} else if c.Data == "-" {
		data, err = io.ReadAll(io.LimitReader(in, maxLine+1))
		if len(data) > maxLine {
			err = fmt.Errorf("standard input is longer than %d bytes", maxLine)
		}
	}
	if err != nil {
		return client.Draft{}, err
	}
	if !json.Valid(data) {
		return client.Draft{}, hint(errors.New("the data is not JSON"), `text needs quotes of its own: --data '"text"'`)
	}
	id := c.ID
	if id == "" {
		id = client.NewID()
	}
	return client.Draft{Type: typ, Data: json.RawMessage(data), Subject: c.Subject, ID: id, To: client.Audience{Users: c.ToUser}}, nil
}

// publisher sends batches, one after the other, so that the order is kept.
type publisher struct {
	cmd     *PublishCmd
	first   *client.Client // makes one attempt, so that no server at all is said at once
	patient *client.Client // waits for a server that was there
	std     *IO
	began   time.Time

	reached                     bool // first has had an answer
	events, duplicates, skipped int
	shown                       time.Time
}

func (p *publisher) publish(ctx context.Context, drafts []client.Draft) error {
	receipts, err := p.send(ctx, drafts)
	if err != nil {
		return err
	}
	p.events += len(receipts)
	for _, r := range receipts {
		if r.Duplicate {
			p.duplicates++
		}
		if p.cmd.JSON {
			if err := p.std.printJSON(r); err != nil {
				return err
			}
		} else if p.cmd.What != "-" && p.cmd.TypeField == "" {
			if _, err := fmt.Fprintln(p.std.Out, r.ID); err != nil {
				return err
			}
		}
	}
	if p.cmd.What == "-" || p.cmd.TypeField != "" || p.cmd.SubjectField != "" {
		p.report(false)
	}
	return nil
}

// send may send the drafts twice; their ids make that harmless.
func (p *publisher) send(ctx context.Context, drafts []client.Draft) ([]client.Receipt, error) {
	if !p.reached {
		receipts, err := p.first.Publish(ctx, drafts...)
		var e *client.Error
		if !errors.As(err, &e) || !e.Retryable || e.Status == 0 {
			p.reached = err == nil
			return receipts, err
		}
		p.reached = true // it only asks to wait
	}
	return p.patient.Publish(ctx, drafts...)
}

// report says how far it is: at the end, and on a terminal now and then.
func (p *publisher) report(end bool) {
	if !end && (!terminal(p.std.Err) || time.Since(p.shown) < 200*time.Millisecond) {
		return
	}
	p.shown = time.Now()
	took := time.Since(p.began)
	text := fmt.Sprintf("published %s in %.1fs (%s/s), %s", several(p.events, "event"), took.Seconds(), count(int(float64(p.events)/max(took.Seconds(), 1e-3))), several(p.duplicates, "duplicate"))
	if p.skipped > 0 {
		text += ", " + several(p.skipped, "line") + " left out"
	}
	if terminal(p.std.Err) {
		text = "\r" + text
	}
	if end {
		text += "\n"
	}
	_, _ = io.WriteString(p.std.Err, text) // progress is not worth failing for
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// line is one line of the input, and the event it makes.
type line struct {
	number int
	text   []byte
	draft  client.Draft
	err    error // the line cannot be an event
}

// lines publishes an event for every line, in batches of what has come. It
// holds one batch and one line.
func (p *publisher) lines(ctx context.Context, in io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ch := make(chan line)
	failed := make(chan error, 1)
	go func() { // ends with the input; a blocked read of standard input ends with the program
		failed <- readLines(in, func(l line) bool {
			select {
			case ch <- l:
				return true
			case <-ctx.Done():
				return false
			}
		})
		close(ch)
	}()
	var batch []line
	size := 0
	var due <-chan time.Time
	flush := func() error {
		err := p.batch(ctx, batch)
		batch, size, due = batch[:0], 0, nil
		return err
	}
	for {
		select {
		case l, ok := <-ch:
			if !ok {
				return errors.Join(flush(), <-failed)
			}
			if l.err == nil {
				l.draft, l.err = p.cmd.event(l.text)
			}
			if l.err != nil {
				if err := p.bad(l, l.err); err != nil {
					return errors.Join(flush(), err)
				}
				continue
			}
			if batch = append(batch, l); len(batch) == 1 {
				due = time.After(publishWait)
			}
			if size += len(l.text); len(batch) == publishLines || size >= publishBytes {
				if err := flush(); err != nil {
					return err
				}
			}
		case <-due:
			if err := flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return errors.New("interrupted")
		}
	}
}

// batch publishes lines. The server takes a batch whole or not at all, so where
// it is refused for one event, the halves find which.
func (p *publisher) batch(ctx context.Context, lines []line) error {
	if len(lines) == 0 {
		return nil
	}
	drafts := make([]client.Draft, len(lines))
	for i := range lines {
		drafts[i] = lines[i].draft
	}
	err := p.publish(ctx, drafts)
	var e *client.Error
	if !errors.As(err, &e) || e.Code != client.CodeBadRequest && e.Code != client.CodeTooLarge {
		return err
	}
	if len(lines) == 1 {
		return p.bad(lines[0], errors.New(strings.TrimPrefix(e.Message, "event 0: ")))
	}
	if err := p.batch(ctx, lines[:len(lines)/2]); err != nil {
		return err
	}
	return p.batch(ctx, lines[len(lines)/2:])
}

// bad is a line that cannot be an event: the end, unless such lines are left out.
func (p *publisher) bad(l line, err error) error {
	err = fmt.Errorf("line %d: %w", l.number, err)
	if !p.cmd.SkipBad {
		return hint(err, "what came before it is published, the rest is not; --skip-bad leaves such lines out")
	}
	p.skipped++
	fmt.Fprintf(p.std.Err, "carillon: %v; left out\n", err)
	return nil
}

// readLines hands on each line that is not blank, until the input ends or each
// returns false. Of a line that is too long it keeps nothing.
func readLines(in io.Reader, each func(line) bool) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for number := 1; ; number++ {
		l := line{number: number}
		for {
			part, err := r.ReadSlice('\n')
			if len(l.text)+len(part) > maxLine {
				l.text, l.err = nil, fmt.Errorf("longer than %d bytes", maxLine)
			}
			if l.err == nil {
				l.text = append(l.text, part...)
			}
			if err == nil {
				break
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if l.text = bytes.TrimSpace(l.text); len(l.text) > 0 || l.err != nil {
				each(l)
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if l.text = bytes.TrimSpace(l.text); len(l.text) == 0 && l.err == nil {
			continue
		}
		if !each(l) {
			return nil
		}
	}
}

// event makes an event of a line.
func (c *PublishCmd) event(line []byte) (client.Draft, error) {
	if !json.Valid(line) {
		return client.Draft{}, errors.New("not JSON")
	}
	d := client.Draft{Type: c.Type, Subject: c.Subject, Data: json.RawMessage(line), ID: client.NewID(), To: client.Audience{Users: c.ToUser}}
	if c.TypeField == "" && c.SubjectField == "" {
		return d, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil || fields == nil {
		return d, errors.New("not a JSON object, so it has no field for the type or subject")
	}
	if c.TypeField != "" {
		value, err := text(fields, c.TypeField)
		if err != nil || value == "" {
			return d, fmt.Errorf("field %q has no text for the type", c.TypeField)
		}
		if d.Type != "" {
			d.Type += "."
		}
		d.Type += typeOf(value)
		if _, err := carillon.ParseType(d.Type); err != nil {
			return d, errors.New(carillon.AsError(err).Message)
		}
	}
	if c.SubjectField != "" {
		value, err := text(fields, c.SubjectField)
		if err != nil {
			return d, err
		}
		if value != "" {
			d.Subject = value
		}
	}
	return d, nil
}

// text is a field's string or number; "" when it is absent or null.
func text(fields map[string]json.RawMessage, name string) (string, error) {
	raw := fields[name]
	var s string
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String(), nil
	}
	return "", fmt.Errorf("field %q is neither text nor a number", name)
}

// typeOf makes a value a part of an event type: dots stay, what a type may not
// have becomes '_'.
func typeOf(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
}
