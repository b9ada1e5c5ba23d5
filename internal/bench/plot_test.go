package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// measured is a report of a scenario with one parameter and one value per row.
func measured(scenario, transport string, params map[string]float64, value string, rows map[string]float64) *Report {
	r := &Report{Scenario: scenario}
	r.Params.addText("transport", transport)
	for _, k := range []string{"connections", "subscribers", "rate", "orgs"} {
		if n, ok := params[k]; ok {
			unit := ""
			if k == "rate" {
				unit = "/s"
			}
			r.Params.add(k, unit, n)
		}
	}
	for _, name := range []string{"carillon", "floor"} {
		if n, ok := rows[name]; ok {
			row := Row{Name: name}
			name, unit, _ := strings.Cut(value, "|")
			row.Values.add(name, unit, n)
			r.Rows = append(r.Rows, row)
		}
	}
	return r
}

func idleAt(transport string, connections, orgs, rss float64) *Report {
	return measured("idle", transport, map[string]float64{"connections": connections, "orgs": orgs},
		"RSS per connection|B", map[string]float64{"carillon": rss, "floor": 100})
}

// throughJSON is what a file gives back of reports that were written to it.
func throughJSON(t *testing.T, reports ...*Report) []*Report {
	t.Helper()
	var one, many bytes.Buffer
	if err := errors.Join(reports[0].WriteJSON(&one), WriteReports(&many, reports[1:])); err != nil {
		t.Fatal(err)
	}
	back, err := ReadReports(io.MultiReader(&one, &many))
	if err != nil {
		t.Fatal(err)
	}
	if len(back) != len(reports) {
		t.Fatalf("%d reports came back of %d", len(back), len(reports))
	}
	return back
}

func TestAPlotHasACurveForWhatDiffersInOneNumberOnly(t *testing.T) {
	reports := throughJSON(t,
		idleAt("ws", 15000, 1, 700), idleAt("ws", 1000, 1, 900), idleAt("ws", 5000, 1, 800),
		idleAt("sse", 1000, 1, 600), idleAt("sse", 15000, 1, 500), idleAt("sse", 15000, 100, 400),
		measured("fanout", "ws", map[string]float64{"subscribers": 1000, "rate": 10}, "server CPU per delivery|µs", map[string]float64{"carillon": 9}),
		measured("fanout", "ws", map[string]float64{"subscribers": 1000, "rate": 50}, "server CPU per delivery|µs", map[string]float64{"carillon": 8}),
		measured("fanout", "ws", map[string]float64{"subscribers": 10, "rate": 7}, "server CPU per delivery|µs", map[string]float64{"carillon": 1}),
	)
	type line struct {
		panel, name string
		x, y        []float64
	}
	want := []line{
		{"RSS_per_connection_B connections", "carillon, transport ws", []float64{1000, 5000, 15000}, []float64{900, 800, 700}},
		{"RSS_per_connection_B connections", "floor, transport ws", []float64{1000, 5000, 15000}, []float64{100, 100, 100}},
		{"RSS_per_connection_B connections", "carillon, transport sse", []float64{1000, 15000}, []float64{600, 500}},
		{"RSS_per_connection_B connections", "floor, transport sse", []float64{1000, 15000}, []float64{100, 100}},
		{"RSS_per_connection_B orgs", "carillon", []float64{1, 100}, []float64{500, 400}},
		{"RSS_per_connection_B orgs", "floor", []float64{1, 100}, []float64{100, 100}},
		{"server_CPU_per_delivery_us rate_per_s", "carillon", []float64{10, 50}, []float64{9, 8}},
	}
	var got []line
	for _, c := range costs() {
		for _, x := range against() {
			for _, k := range newPanel(c, x, reports).curves {
				got = append(got, line{c.value + " " + x, k.name, k.x, k.y})
			}
		}
	}
	if !slices.EqualFunc(got, want, func(a, b line) bool {
		return a.panel == b.panel && a.name == b.name && slices.Equal(a.x, b.x) && slices.Equal(a.y, b.y)
	}) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestAPlotIsAnSVG(t *testing.T) {
	var b bytes.Buffer
	if err := WritePlot(&b, []*Report{idleAt("<ws>", 1000, 1, 900), idleAt("<ws>", 15000, 1, 700), idleAt("sse", 1, 1, 0), idleAt("sse", 2, 1, 0)}); err != nil {
		t.Fatal(err)
	}
	lines := 0
	dec := xml.NewDecoder(&b)
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
			for _, a := range e.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s: %s", a.Name.Local, a.Value)
				}
			}
		}
	}
	if lines != 4 {
		t.Errorf("%d curves, want 4", lines)
	}
}

func TestNothingToDrawIsSaid(t *testing.T) {
	for _, reports := range [][]*Report{nil, {idleAt("ws", 1000, 1, 900)}, {idleAt("ws", 1000, 1, 900), idleAt("sse", 5000, 1, 900)}} {
		var b bytes.Buffer
		if err := WritePlot(&b, reports); !errors.Is(err, ErrNothingToDraw) || b.Len() > 0 {
			t.Errorf("%d reports: %v", len(reports), err)
		}
	}
}

func TestWhatIsNoReportIsRefused(t *testing.T) {
	for _, text := range []string{"{", `{"params":[1]}`, `{"params":{"a":{}}}`, "[1]", "7"} {
		if _, err := ReadReports(strings.NewReader(text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}
