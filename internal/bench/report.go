package bench

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Report is what one scenario measured.
type Report struct {
	Command  string   `json:"command,omitempty"` // that measured it, for whoever wants to again
	Scenario string   `json:"scenario"`
	Params   Values   `json:"params"`
	Machine  Values   `json:"machine"`
	Rows     []Row    `json:"rows"`
	Checks   Checks   `json:"checks"`
	Notes    []string `json:"notes,omitempty"`

	ratio [2]string // of which rows the table shows one; default carillon and floor
}

// Row is one thing measured: the server, the floor, a bystander.
type Row struct {
	Name   string `json:"name"`
	Values Values `json:"values"`
}

// Values is an object that keeps its order.
type Values []Value

// Value is a number with a unit, or a text.
type Value struct {
	Name   string
	Unit   string
	Number float64
	Text   string
}

// MarshalJSON writes an object; a unit is part of the member's name.
func (v Values) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, x := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(x.key())
		if err != nil {
			return nil, fmt.Errorf("bench: report: %w", err)
		}
		var value any = x.Number
		if x.Text != "" {
			value = x.Text
		}
		val, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("bench: report: %w", err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(val)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON wrote: each name with its unit in it, as it
// was written.
func (v *Values) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(errors.New("bench: report: not an object of values"), err)
	}
	*v = nil
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return fmt.Errorf("bench: report: %w", err)
		}
		value, err := dec.Token()
		if err != nil {
			return fmt.Errorf("bench: report: %w", err)
		}
		x := Value{Name: fmt.Sprint(name)}
		switch value := value.(type) {
		case float64:
			x.Number = value
		case string:
			x.Text = value
		default:
			return fmt.Errorf("bench: report: %s is neither a number nor a text", x.Name)
		}
		*v = append(*v, x)
	}
	return nil
}

// key is the value's name in JSON.
func (x Value) key() string {
	return strings.NewReplacer(" ×", "", "'", "", " / ", "_over_", " /", "_per_", " ", "_", "/", "_per_", "µ", "u", "%", "percent").Replace(x.label())
}

func (x Value) label() string {
	if x.Unit == "" {
		return x.Name
	}
	return x.Name + " " + x.Unit
}

func (v *Values) add(name, unit string, n float64) {
	*v = append(*v, Value{Name: name, Unit: unit, Number: n})
}

func (v *Values) addText(name, text string) { *v = append(*v, Value{Name: name, Text: text}) }

// addLatency adds a histogram's quantiles, in milliseconds.
func (v *Values) addLatency(name string, h *Histogram) {
	if h.Count() == 0 {
		return
	}
	if name != "" {
		name += " "
	}
	v.add(name+"p50", "ms", ms(h.Quantile(0.5)))
	v.add(name+"p99", "ms", ms(h.Quantile(0.99)))
	v.add(name+"p999", "ms", ms(h.Quantile(0.999)))
	v.add(name+"max", "ms", ms(h.Max()))
}

func (v Values) get(label string) (float64, bool) {
	for _, x := range v {
		if x.label() == label && x.Text == "" {
			return x.Number, true
		}
	}
	return 0, false
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}

// WriteTable writes the report for people: one column per row, and a ratio: of the
// server to the floor where both stand, or of what else is to be compared.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", r.Scenario)
	for _, p := range r.Params {
		fmt.Fprintf(&b, " %s %s", p.label(), p.value())
	}
	b.WriteString("\n\n")

	over, under := r.row(cmp.Or(r.ratio[0], "carillon")), r.row(cmp.Or(r.ratio[1], "floor"))
	var labels []string
	seen := map[string]bool{}
	width := 0
	for _, row := range r.Rows {
		for _, v := range row.Values {
			if l := v.label(); !seen[l] {
				seen[l] = true
				labels = append(labels, l)
				width = max(width, len([]rune(l)))
			}
		}
	}
	fmt.Fprintf(&b, "%-*s", width, "")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "  %14s", row.Name)
	}
	if over != nil && under != nil {
		fmt.Fprintf(&b, "  %8s", "ratio")
	}
	b.WriteByte('\n')
	for _, l := range labels {
		fmt.Fprintf(&b, "%-*s", width, l)
		for _, row := range r.Rows {
			cell := ""
			for _, v := range row.Values {
				if v.label() == l {
					cell = v.value()
				}
			}
			fmt.Fprintf(&b, "  %14s", cell)
		}
		if over != nil && under != nil {
			s, ok1 := over.Values.get(l)
			f, ok2 := under.Values.get(l)
			if ok1 && ok2 && f != 0 {
				fmt.Fprintf(&b, "  %8.2f", s/f)
			}
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\nchecked %s events:", grouped(float64(r.Checks.Received), 0))
	for i, c := range r.Checks.list() {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %d %s", c.n, c.name)
	}
	b.WriteByte('\n')
	if r.Checks.First != "" {
		fmt.Fprintf(&b, "first problem: %s\n", r.Checks.First)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}

func (r *Report) row(name string) *Row {
	for i := range r.Rows {
		if r.Rows[i].Name == name {
			return &r.Rows[i]
		}
	}
	return nil
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (x Value) value() string {
	if x.Text != "" {
		return x.Text
	}
	switch a := max(x.Number, -x.Number); {
	case x.Number == float64(int64(x.Number)), a >= 1000:
		return grouped(x.Number, 0)
	case a >= 100:
		return grouped(x.Number, 1)
	case a >= 1:
		return grouped(x.Number, 2)
	}
	return grouped(x.Number, 3)
}

// grouped prints a number with commas between thousands.
func grouped(n float64, digits int) string {
	s := fmt.Sprintf("%.*f", digits, n)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	whole, frac, hasFrac := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if hasFrac {
		whole += "." + frac
	}
	return sign + whole
}
