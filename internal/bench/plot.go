package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// ReadReports reads what WriteJSON wrote: reports, or lists of them, one after the
// other.
func ReadReports(r io.Reader) ([]*Report, error) {
	var all []*Report
	dec := json.NewDecoder(r)
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("bench: reports: %w", err)
		}
		if raw[0] != '[' {
			raw = slices.Concat([]byte("["), raw, []byte("]"))
		}
		var some []*Report
		if err := json.Unmarshal(raw, &some); err != nil {
			return nil, fmt.Errorf("bench: reports: %w", err)
		}
		all = append(all, some...)
	}
}

// WriteReports writes a list of reports.
func WriteReports(w io.Writer, reports []*Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(reports); err != nil {
		return fmt.Errorf("bench: reports: %w", err)
	}
	return nil
}

// costs is what is drawn, of which scenario.
func costs() []cost {
	return []cost{
		{"idle", "RSS_per_connection_B"},
		{"idle", "memory_in_use_B_per_conn"},
		{"idle", "live_heap_B_per_conn"},
		{"idle", "server_CPU_per_handshake_us"},
		{"idle", "idle_CPU_percent"},
		{"storm", "first_dial_to_all_subscribed_ms"},
		{"storm", "server_CPU_per_handshake_us"},
		{"storm", "RSS_growth_percent"},
		{"fanout", "server_CPU_per_delivery_us"},
		{"fanout", "p99_ms"},
		{"many", "server_CPU_per_delivery_us"},
		{"many", "p99_ms"},
		{"slow", "p99_ms"},
		{"resume", "first_dial_to_last_event_ms"},
		{"resume", "server_CPU_per_delivery_us"},
		{"publish", "events_per_s"},
		{"publish", "server_CPU_per_event_us"},
	}
}

type cost struct{ scenario, value string }

// against is what costs are drawn against: the parameters that a run is given.
func against() []string {
	return []string{"connections", "subscribers", "clients", "orgs", "rate_per_s", "batch", "missed", "publishers"}
}

// curve is one line of a panel.
type curve struct {
	name   string
	x, y   []float64
	params map[string]string // of its reports, but for what it is drawn against
}

// panel is one cost against one parameter.
type panel struct {
	cost
	x      string
	curves []*curve
}

// ErrNothingToDraw says that no two reports differ in one number only.
var ErrNothingToDraw = errors.New("bench: nothing to draw: two reports of a scenario must differ in one number only, such as connections or rate")

// WritePlot draws, as SVG, each cost against each parameter in which two of the
// reports differ that are otherwise alike. If there are none that is
// [ErrNothingToDraw].
func WritePlot(w io.Writer, reports []*Report) error {
	var panels []*panel
	for _, c := range costs() {
		for _, x := range against() {
			if p := newPanel(c, x, reports); len(p.curves) > 0 {
				panels = append(panels, p)
			}
		}
	}
	if len(panels) == 0 {
		return ErrNothingToDraw
	}
	const columns = 2
	var b bytes.Buffer
	rows, curves := (len(panels)+columns-1)/columns, 0
	for _, p := range panels {
		curves = max(curves, len(p.curves))
	}
	panelHeight := legendTop + curves*legendLine + plotTop/2
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", columns*panelWidth, rows*panelHeight)
	b.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%columns*panelWidth, i/columns*panelHeight)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("bench: plot: %w", err)
	}
	return nil
}

// newPanel collects the curves with more than one place.
func newPanel(c cost, x string, reports []*Report) *panel {
	p := &panel{cost: c, x: x}
	for _, rep := range reports {
		if rep.Scenario != c.scenario {
			continue
		}
		params := map[string]string{}
		at := 0.0
		for _, v := range rep.Params {
			switch k := v.key(); k {
			case x:
				at = v.Number
			case "runs", "duration", "settle": // how long, not what
			default:
				params[k] = v.value()
			}
		}
		if at <= 0 {
			continue
		}
		for _, row := range rep.Rows {
			for _, v := range row.Values {
				if v.key() == c.value && v.Text == "" {
					p.curve(row.Name, params).add(at, v.Number)
				}
			}
		}
	}
	p.curves = slices.DeleteFunc(p.curves, func(c *curve) bool { return len(c.x) < 2 })
	p.name()
	return p
}

// curve is the one of these parameters, made if there is none.
func (p *panel) curve(row string, params map[string]string) *curve {
	for _, c := range p.curves {
		if c.name == row && equal(c.params, params) {
			return c
		}
	}
	c := &curve{name: row, params: params}
	p.curves = append(p.curves, c)
	return c
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// add puts a place into a curve; of several at one x the last counts.
func (c *curve) add(x, y float64) {
	i, found := slices.BinarySearch(c.x, x)
	if found {
		c.y[i] = y
		return
	}
	c.x, c.y = slices.Insert(c.x, i, x), slices.Insert(c.y, i, y)
}

// name adds to each curve's name what tells it from the others.
func (p *panel) name() {
	var keys []string
	for _, c := range p.curves {
		for k := range c.params {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		differ := slices.ContainsFunc(p.curves, func(c *curve) bool { return c.params[k] != p.curves[0].params[k] })
		if !differ {
			continue
		}
		for _, c := range p.curves {
			if v := c.params[k]; v != "" {
				c.name += ", " + strings.ReplaceAll(k, "_", " ") + " " + v
			}
		}
	}
}

const (
	panelWidth            = 520
	plotLeft, plotTop     = 60, 34
	plotWidth, plotHeight = 430, 180
	legendTop             = plotTop + plotHeight + 44
	legendLine            = 14
)

// draw draws a panel: y from 0, x logarithmic.
func (p *panel) draw(b *bytes.Buffer) {
	colors := []string{"#2563eb", "#dc2626", "#16a34a", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563"}
	var ticks []float64
	low, high, most := math.Inf(1), 0.0, 0.0
	for _, c := range p.curves {
		low, high, most = min(low, c.x[0]), max(high, c.x[len(c.x)-1]), max(most, slices.Max(c.y))
		for _, x := range c.x {
			if !slices.Contains(ticks, x) {
				ticks = append(ticks, x)
			}
		}
	}
	top := niceAbove(most)
	px := func(x float64) float64 { return plotLeft + plotWidth*math.Log(x/low)/math.Log(high/low) }
	py := func(y float64) float64 { return plotTop + plotHeight*(1-max(y, 0)/top) }

	fmt.Fprintf(b, `<text x="%d" y="20" font-weight="bold">%s: %s</text>`+"\n", plotLeft, p.scenario, words(p.value))
	for k := range 5 {
		y := top * float64(k) / 4
		fmt.Fprintf(b, `<path d="M%d %.1fh%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%s</text>`+"\n",
			plotLeft, py(y), plotWidth, plotLeft-6, py(y)+4, (Value{Number: y}).value())
	}
	for _, x := range ticks {
		fmt.Fprintf(b, `<path d="M%.1f %dv5" stroke="#555"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555">%s</text>`+"\n",
			px(x), plotTop+plotHeight, px(x), plotTop+plotHeight+17, (Value{Number: x}).value())
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" fill="#555">%s</text>`+"\n", plotLeft+plotWidth, plotTop+plotHeight+31, words(p.x))
	for i, c := range p.curves {
		color := colors[i%len(colors)]
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.6" points="`, color)
		for k := range c.x {
			fmt.Fprintf(b, "%.1f,%.1f ", px(c.x[k]), py(c.y[k]))
		}
		b.WriteString(`"/>` + "\n")
		for k := range c.x {
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="2.6" fill="%s"><title>%s: %s</title></circle>`+"\n",
				px(c.x[k]), py(c.y[k]), color, html.EscapeString(c.name), (Value{Number: c.y[k]}).value())
		}
		fmt.Fprintf(b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", plotLeft, legendTop+i*legendLine, color, html.EscapeString(c.name))
	}
}

// words is a value's name in JSON for people.
func words(key string) string {
	return html.EscapeString(strings.NewReplacer("_per_s", " per second", "_us", ", µs", "_ms", ", ms", "_B_per_conn", ", B per connection",
		"_B", ", B", "_percent", ", %", "_", " ").Replace(key))
}

// niceAbove is the next round number that is no less.
func niceAbove(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, k := range []float64{1, 2, 4, 5, 8} {
		if v <= k*unit {
			return k * unit
		}
	}
	return 10 * unit
}
