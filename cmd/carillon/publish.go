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

	client "github.com/carillon-rt/carillon/clients/go"
)

// PublishCmd publishes one event from flags, or one for every line of NDJSON.
type PublishCmd struct {
	Remote

	What string `arg:"" optional:"" help:"An event type; or '-' for NDJSON on standard input, one event's data a line." placeholder:"TYPE|-"`

	Type    string   `help:"The event type; with --type-field, what comes before the field's value." placeholder:"TYPE"`
	Data    string   `help:"The data: JSON, or @FILE." default:"null" placeholder:"JSON"`
	Subject string   `help:"What the event is about." placeholder:"TEXT"`
	ID      string   `help:"Your own id, which makes publishing it twice harmless." name:"id" placeholder:"ID"`
	ToUser  []string `help:"Only to this user (repeatable)." name:"to-user" placeholder:"USER"`

	TypeField    string `help:"NDJSON: the field with the type." placeholder:"FIELD"`
	SubjectField string `help:"NDJSON: the field with the subject." placeholder:"FIELD"`
	SkipBad      bool   `help:"NDJSON: leave out lines that cannot be an event."`
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
	cl, err := c.client(false)
	if err != nil {
		return err
	}
	p := &publisher{cmd: c, client: cl, std: std, began: time.Now()}
	if c.What == "-" || c.What == "" && (c.TypeField != "" || c.SubjectField != "") {
		if c.Type == "" && c.TypeField == "" {
			return hint(errors.New("the lines have no type"), "give --type for all, or --type-field for the field that has it")
		}
		err = p.lines(ctx, std.In)
		p.report(true)
		return c.explain(err)
	}
	draft, err := c.draft()
	if err != nil {
		return err
	}
	if err := p.publish(ctx, []client.Draft{draft}); err != nil {
		return c.explain(err)
	}
	return nil
}

// draft is the one event of the flags.
func (c *PublishCmd) draft() (client.Draft, error) {
	typ := c.What
	if typ == "" {
		typ = c.Type
	} else if c.Type != "" {
		return client.Draft{}, errors.New("the type is given twice, as an argument and with --type")
	}
	if typ == "" {
		return client.Draft{}, hint(errors.New("no event type"), "carillon publish workflow.step.completed --data '{\"step\": 3}'")
	}
	if c.TypeField != "" || c.SubjectField != "" || c.SkipBad {
		return client.Draft{}, hint(errors.New("--type-field, --subject-field and --skip-bad are for NDJSON"), "put '-' instead of the type")
	}
	data := []byte(c.Data)
	if name, ok := strings.CutPrefix(c.Data, "@"); ok {
		var err error
		if data, err = os.ReadFile(name); err != nil {
			return client.Draft{}, err
		}
	}
	if !json.Valid(data) {
		return client.Draft{}, hint(errors.New("the data is not JSON"), `text needs quotes of its own: --data '"text"'`)
	}
	return client.Draft{Type: typ, Data: json.RawMessage(data), Subject: c.Subject, ID: c.ID, To: client.Audience{Users: c.ToUser}}, nil
}

// publisher sends batches, one after the other, so that the order is kept.
type publisher struct {
	cmd    *PublishCmd
	client *client.Client
	std    *IO
	began  time.Time

	events, duplicates, skipped int
	shown                       time.Time
}

func (p *publisher) publish(ctx context.Context, drafts []client.Draft) error {
	receipts, err := p.client.Publish(ctx, drafts...)
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
	p.report(false)
	return nil
}

// report says how far it is: at the end, and on a terminal now and then.
func (p *publisher) report(end bool) {
	if !end && (!terminal(p.std.Err) || time.Since(p.shown) < 200*time.Millisecond) {
		return
	}
	p.shown = time.Now()
	took := time.Since(p.began)
	text := fmt.Sprintf("published %s events in %.1fs (%s/s), %s duplicates", count(p.events), took.Seconds(), count(int(float64(p.events)/max(took.Seconds(), 1e-3))), count(p.duplicates))
	if p.skipped > 0 {
		text += fmt.Sprintf(", %s lines left out", count(p.skipped))
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

// read is one line of the input, or its end.
type read struct {
	line []byte
	err  error
}

// lines publishes an event for every line, in batches of what has come.
func (p *publisher) lines(ctx context.Context, in io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ch := make(chan read, publishLines)
	go func() { // ends with the input; a blocked read of standard input ends with the program
		defer close(ch)
		sc := bufio.NewScanner(in)
		sc.Buffer(make([]byte, 64<<10), maxLine)
		for sc.Scan() {
			select {
			case ch <- read{line: bytes.Clone(sc.Bytes())}:
			case <-ctx.Done():
				return
			}
		}
		err := sc.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", maxLine)
		}
		select {
		case ch <- read{err: err}:
		case <-ctx.Done():
		}
	}()
	var batch []client.Draft
	size, number := 0, 0
	var due <-chan time.Time
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := p.publish(ctx, batch)
		batch, size, due = batch[:0], 0, nil
		return err
	}
	for {
		select {
		case r, ok := <-ch:
			if !ok || r.line == nil {
				if r.err != nil {
					r.err = fmt.Errorf("line %d: %w", number+1, r.err)
				}
				return errors.Join(flush(), r.err)
			}
			number++
			if len(bytes.TrimSpace(r.line)) == 0 {
				continue
			}
			d, err := p.cmd.event(r.line)
			if err != nil {
				err = fmt.Errorf("line %d: %w", number, err)
				if !p.cmd.SkipBad {
					return errors.Join(flush(), err)
				}
				p.skipped++
				fmt.Fprintf(p.std.Err, "carillon: %v; left out\n", err)
				continue
			}
			if batch = append(batch, d); len(batch) == 1 {
				due = time.After(publishWait)
			}
			if size += len(r.line); len(batch) == publishLines || size >= publishBytes {
				if err := flush(); err != nil {
					return err
				}
			}
		case <-due:
			if err := flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// event makes an event of a line.
func (c *PublishCmd) event(line []byte) (client.Draft, error) {
	if !json.Valid(line) {
		return client.Draft{}, errors.New("not JSON")
	}
	d := client.Draft{Type: c.Type, Subject: c.Subject, Data: json.RawMessage(line), To: client.Audience{Users: c.ToUser}}
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
	}
	if c.SubjectField != "" {
		value, err := text(fields, c.SubjectField)
		if err != nil {
			return d, err
		}
		d.Subject = value
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
