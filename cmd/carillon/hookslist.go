package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/carillon-rt/carillon/internal/config"
)

// HooksListCmd lists deliveries, the newest first.
type HooksListCmd struct {
	Remote

	Source   string   `help:"Only of this source." placeholder:"NAME"`
	State    []string `help:"Only in these states: pending, published, filtered, ran, duplicate, dead, discarded, refused." placeholder:"STATE"`
	Event    string   `help:"Only what the provider calls so; 'pull_request.*' is all that begin so." placeholder:"EVENT"`
	Delivery string   `help:"Only what the provider gave this id." placeholder:"ID"`
	From     string   `help:"Only from this client address." placeholder:"ADDR"`
	Since    string   `help:"Received since then: how long ago, such as -1h or -7d, or a time such as 2025-07-09T10:30:00Z." placeholder:"TIME"`
	Until    string   `help:"Received before then, written like --since." placeholder:"TIME"`
	Limit    int      `help:"How many (default: 50)." default:"50" placeholder:"N"`
	All      bool     `help:"All there are, instead of --limit."`
	JSON     bool     `help:"Print each as a line of JSON." name:"json"`
}

// Run lists them.
func (c *HooksListCmd) Run(ctx context.Context, std *IO) error {
	if c.Limit < 1 {
		return errors.New("--limit is a number of deliveries, 1 or more; --all lists all")
	}
	query, err := c.query()
	if err != nil {
		return err
	}
	api, err := c.hooks()
	if err != nil {
		return err
	}
	most := c.Limit + 1 // to know whether there are more
	if c.All {
		most = 0
	}
	table := &deliveryTable{std: std}
	n := 0
	for raw, err := range api.deliveries(ctx, query, most) {
		if err != nil {
			return c.explain(errors.Join(err, table.flush()))
		}
		if n++; !c.All && n > c.Limit {
			defer std.say("there are more; --all lists all, --limit more of them")
			break
		}
		if c.JSON {
			err = std.printJSON(raw)
		} else {
			err = table.add(raw)
		}
		if err != nil {
			return err
		}
	}
	if n == 0 && !c.JSON {
		std.say("there are no such deliveries")
	}
	return table.flush()
}

func (c *HooksListCmd) query() (url.Values, error) {
	q := url.Values{}
	since, err := momentOf("--since", c.Since)
	if err != nil {
		return nil, err
	}
	until, err := momentOf("--until", c.Until)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{
		"source": c.Source, "event": c.Event, "delivery": c.Delivery, "remote": c.From, "since": since, "until": until,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for _, state := range c.State {
		q.Add("state", state)
	}
	return q, nil
}

// momentOf checks a time, and writes it as the server reads it: in seconds, where it is
// a time back.
func momentOf(flag, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if back, ok := strings.CutPrefix(text, "-"); ok {
		if d, err := config.ParseDuration(back); err == nil {
			return fmt.Sprintf("-%ds", int64(d.D().Seconds())), nil
		}
	}
	if _, err := time.Parse(time.RFC3339, text); err != nil {
		return "", fmt.Errorf("%s %q: it is how long ago, such as -10m, -1h or -7d, or a time such as 2025-07-09T10:30:00Z", flag, text)
	}
	return text, nil
}

// deliveryTable writes deliveries for people. Its columns are as wide as what stands
// in a few hundred rows.
type deliveryTable struct {
	std  *IO
	w    *tabwriter.Writer
	rows int
}

func (t *deliveryTable) add(raw json.RawMessage) error {
	var d hookDelivery
	if err := json.Unmarshal(raw, &d); err != nil {
		return err
	}
	if t.w == nil {
		t.w = tabwriter.NewWriter(t.std.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t.w, "TIME\tSOURCE\tEVENT\tDELIVERY\tSTATE\tTRIES\tSIZE\tFROM\tMS\tERROR")
	}
	ms := ""
	if d.State != stateRefused && d.State != statePending {
		ms = strconv.FormatFloat(d.ProcessingMS, 'f', 1, 64)
	}
	fmt.Fprintf(t.w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
		d.Received.Local().Format("2006-01-02 15:04:05"), d.Source, dash(visible(d.Event)), visible(either(d.Delivery, d.ID)),
		d.State, d.Attempts, bytesOf(d.Size), dash(d.Remote), dash(ms), visible(clipped(d.trouble(), 80)))
	if t.rows++; t.rows%hookPage == 0 {
		return t.w.Flush()
	}
	return nil
}

func (t *deliveryTable) flush() error {
	if t.w == nil {
		return nil
	}
	return t.w.Flush()
}

// trouble is what is wrong with it, if anything.
func (d *hookDelivery) trouble() string {
	if d.State == stateRefused {
		return fmt.Sprintf("%d %s", d.Status, d.Signature)
	}
	return d.Error
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func dash(s string) string { return either(s, "-") }

// clipped is a text of at most so many characters.
func clipped(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return s
}

// bytesOf prints a size.
func bytesOf(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
