package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/carillon-rt/carillon"
	client "github.com/carillon-rt/carillon/clients/go"
)

// TailCmd prints events as they come.
type TailCmd struct {
	Remote

	Patterns []string `arg:"" optional:"" help:"Which event types, such as order.paid, 'order.*' or '>' for all; without any, only what is sent to the user by name." placeholder:"PATTERN"`

	Since   string `help:"Where to start: now, earliest, a time back such as -10m, or after an event id (default: now)." default:"now" placeholder:"CURSOR"`
	Subject string `help:"Only events with this subject." placeholder:"TEXT"`
	Limit   int    `help:"End after N events." placeholder:"N"`
	JSON    bool   `help:"Print each event as a line of JSON." name:"json"`
}

// idLen is the length of an event id.
const idLen = 26

// Run prints until the limit, or until it is interrupted.
func (c *TailCmd) Run(ctx context.Context, std *IO) error {
	cl, err := c.client(true, 0)
	if err != nil {
		return err
	}
	if c.Limit < 0 {
		return errors.New("--limit is a number of events, 1 or more")
	}
	if _, named := carillon.ParseNamedCursor(c.Since); !named && len(c.Since) != idLen {
		return fmt.Errorf("--since %q: it is now, earliest, a time back such as -10m (s, m, h, d), or an event id", c.Since)
	}
	say := func(format string, args ...any) { fmt.Fprintf(std.Err, "carillon: "+format+"\n", args...) }
	sub, err := cl.Subscribe(ctx, c.Patterns, client.SubscribeOptions{
		After: c.Since, Subject: c.Subject,
		OnGap: func(g client.Gap) { say("%v", g.Error()) },
		OnConnect: func(n client.Connection) {
			who := n.User
			if who == "" {
				who = "an API key"
			}
			say("listening in %s as %s", n.Org, who)
		},
		OnDisconnect: func(err *client.Error, in time.Duration) {
			say("%v; back in %s", err, in.Round(10*time.Millisecond))
		},
	})
	if ctx.Err() != nil {
		return nil // interrupted: the orderly end
	}
	if err != nil {
		return c.explain(err)
	}
	defer func() { _ = sub.Close() }() // the end is already decided
	for n := 0; c.Limit == 0 || n < c.Limit; n++ {
		e, err := sub.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil // as above
			}
			return c.explain(err)
		}
		if c.JSON {
			err = std.printJSON(e)
		} else {
			err = printEvent(std, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// printEvent prints one readable line.
func printEvent(std *IO, e client.Event) error {
	line := e.Time.Local().Format("15:04:05.000") + "  " + e.Type
	if e.Subject != "" {
		line += "  " + fmt.Sprintf("%q", e.Subject)
	}
	if e.From != "" {
		line += "  from " + fmt.Sprintf("%q", e.From)
	}
	if e.Direct {
		line += "  direct"
	}
	_, err := fmt.Fprintf(std.Out, "%s  %s\n", line, visible(string(e.Data)))
	return err
}

// visible escapes what could steer a terminal or hide text in it. JSON itself
// lets through all but the first 32 control characters.
func visible(s string) string {
	hidden := func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
