package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// HooksShowCmd shows one delivery.
type HooksShowCmd struct {
	Remote

	ID      string `arg:"" help:"The delivery: its id, or the one that the provider gave it; then the newest."`
	Headers bool   `help:"Print only its headers; with --body an empty line and the body follow."`
	Body    bool   `help:"Print only its body, the bytes as they came."`
	JSON    bool   `help:"Print JSON; the body is in base64." name:"json"`
}

// Run shows it.
func (c *HooksShowCmd) Run(ctx context.Context, std *IO) error {
	if c.JSON && (c.Headers || c.Body) {
		return errors.New("--json has headers and body; leave out --headers and --body")
	}
	api, err := c.hooks()
	if err != nil {
		return err
	}
	raw, d, err := api.delivery(ctx, c.ID)
	if err != nil {
		return c.explain(err)
	}
	switch {
	case c.JSON:
		return std.printJSON(raw)
	case !c.Headers && !c.Body:
		return d.print(std.Out)
	case d.Body == nil:
		return fmt.Errorf("what came is not kept: the delivery is %s, or older than hooks.retention", d.State)
	}
	if c.Headers {
		if err := printHeader(std.Out, "", d.Headers); err != nil {
			return err
		}
	}
	if c.Headers && c.Body {
		if _, err := fmt.Fprintln(std.Out); err != nil {
			return err
		}
	}
	if c.Body {
		_, err = std.Out.Write(d.Body)
	}
	return err
}

func (d *hookDetails) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, visible(value))
		}
	}
	row("id", d.ID)
	row("delivery", d.Delivery)
	row("source", d.Source+" ("+d.Kind+")")
	row("event", d.Event)
	row("state", d.State)
	if d.State == stateRefused {
		row("answered", strconv.Itoa(d.Status))
	}
	row("error", d.Error)
	row("published", d.EventType)
	row("event id", d.EventID)
	row("duplicate of", d.DuplicateOf)
	row("received", timeOf(d.Received))
	row("from", d.Remote)
	row("signature", d.Signature)
	row("secret", d.Secret)
	row("size", fmt.Sprintf("%s bytes", count(int(d.Size))))
	if d.Spooled {
		row("spooled", "it lay on the node's disk while the log was away")
	}
	if d.State != stateRefused {
		row("attempts", strconv.Itoa(d.Attempts))
		row("took", fmt.Sprintf("%.1f ms", d.ProcessingMS))
	}
	row("query", d.Query)
	row("output", d.Output)
	if err := w.Flush(); err != nil {
		return err
	}
	if len(d.History) > 0 {
		fmt.Fprintln(out, "\nhistory")
		for _, h := range d.History {
			line := "  " + timeOf(h.At) + "  " + h.What
			if h.Outcome != "" {
				line += ": " + h.Outcome
			}
			if h.Error != "" {
				line += ": " + h.Error
			}
			if h.RetryMS > 0 {
				line += fmt.Sprintf("; again in %v", time.Duration(h.RetryMS)*time.Millisecond)
			}
			if h.By != "" {
				line += ", asked for by " + h.By
			}
			fmt.Fprintln(out, visible(line))
		}
	}
	if d.Body == nil {
		return nil
	}
	fmt.Fprintln(out, "\nheaders")
	return printHeader(out, "  ", d.Headers)
}

func printHeader(out io.Writer, indent string, h http.Header) error {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			if _, err := fmt.Fprintf(out, "%s%s: %s\n", indent, name, visible(value)); err != nil {
				return err
			}
		}
	}
	return nil
}

func timeOf(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }
