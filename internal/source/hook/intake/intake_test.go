package intake_test

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 123_000_000, time.UTC)

func received(body []byte) *intake.Received {
	return &intake.Received{
		Source: "github", Delivery: "72d3162e-cc78-11e3-81ab-4c9367dc0958", Remote: "192.0.2.7", At: noon, Body: body,
		Meta: intake.Meta{
			Provider: "github", Event: "pull_request.opened", Query: "a=1&b", Header: http.Header{"X-Github-Event": {"pull_request"}},
			Digest: strings.Repeat("ab", 32), Secret: "2026", Spooled: true,
		},
	}
}

func random(n int) []byte {
	body := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(body)
	return body
}

func TestABodyComesBackByteForByteFromAsManyEntriesAsItNeeds(t *testing.T) {
	for _, c := range []struct {
		what          string
		size, entries int
	}{
		{"nothing", 0, 1},
		{"one byte", 1, 1},
		{"just one part", intake.Part, 1},
		{"a byte more", intake.Part + 1, 2},
		{"just two parts", 2 * intake.Part, 2},
		{"the largest", intake.MaxBody, 34},
	} {
		t.Run(c.what, func(t *testing.T) {
			body := random(c.size)
			events, err := received(body).Events(nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(events) != c.entries {
				t.Errorf("%d entries, not %d", len(events), c.entries)
			}
			first, err := intake.ParseReceived(events[0])
			if err != nil {
				t.Fatal(err)
			}
			if first.Meta.Parts != len(events)-1 || first.Meta.Size != int64(c.size) {
				t.Errorf("it says %d parts and %d bytes", first.Meta.Parts, first.Meta.Size)
			}
			got := bytes.Clone(first.Body)
			for _, e := range events[1:] {
				if e.Type != intake.TypePart || len(e.Data) == 0 || len(e.Data) > intake.Part || e.Source != "github" {
					t.Errorf("a part is %s of %s, of %d bytes", e.Type, e.Source, len(e.Data))
				}
				got = append(got, e.Data...)
			}
			if !bytes.Equal(got, body) {
				t.Error("the body is another one")
			}
		})
	}
}

func TestABodyThatIsTooLargeIsRefusedWithTheLimit(t *testing.T) {
	_, err := received(make([]byte, intake.MaxBody+1)).Events(nil)
	if err == nil || !strings.Contains(err.Error(), "at most 26214400") {
		t.Errorf("the error is %v", err)
	}
}

func TestADeliveryComesBackAsItWas(t *testing.T) {
	in := received([]byte("{\"a\":\x00 1}\xff"))
	events, err := in.Events(nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := intake.ParseReceived(events[0])
	if err != nil {
		t.Fatal(err)
	}
	in.Meta.Size = int64(len(in.Body))
	if diff := cmp.Diff(in, out); diff != "" {
		t.Error(diff)
	}
}

func TestADeliverySaysItsOwnSizeWhateverItWasTold(t *testing.T) {
	in := received([]byte("12345"))
	in.Meta.Size, in.Meta.Parts = 99, 7
	events, err := in.Events(nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := intake.ParseReceived(events[0])
	if err != nil {
		t.Fatal(err)
	}
	if out.Meta.Size != 5 || out.Meta.Parts != 0 {
		t.Errorf("%d bytes, %d parts", out.Meta.Size, out.Meta.Parts)
	}
}

func TestTimesAreInUTCAndWholeMilliseconds(t *testing.T) {
	in := received(nil)
	in.At = noon.Add(789 * time.Microsecond).In(time.FixedZone("east", 3600))
	events, err := in.Events(nil)
	if err != nil {
		t.Fatal(err)
	}
	refused, err := (&intake.Refused{At: in.At}).Entry()
	if err != nil {
		t.Fatal(err)
	}
	note, err := (&intake.Note{}).Entry(intake.TypeDead, in.At, "s")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range append(events, refused, note) {
		if e.Time != noon {
			t.Errorf("%s: %v", e.Type, e.Time)
		}
	}
}

func TestARefusalComesBackAsItWas(t *testing.T) {
	in := &intake.Refused{
		Source: "stripe", Remote: "2001:db8::1", At: noon, Provider: "stripe", Delivery: "evt_1", Event: "invoice.paid",
		Size: 1 << 40, Status: 401, Reason: "signature",
	}
	e, err := in.Entry()
	if err != nil {
		t.Fatal(err)
	}
	if e.Type != intake.TypeRefused {
		t.Errorf("its type is %s", e.Type)
	}
	out, err := intake.ParseRefused(e)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Error(diff)
	}
}

func TestANoteComesBackAsItWas(t *testing.T) {
	for _, c := range []struct {
		of   carillon.Type
		note intake.Note
	}{
		{intake.TypeDone, intake.Note{Ref: 1, Outcome: intake.Published, Type: "github.push", Event: &carillon.Position{Partition: 3, Seq: 1 << 60, Check: 7}, Attempts: 2, Micros: 1500}},
		{intake.TypeDone, intake.Note{Ref: 1, Outcome: intake.Ran, Text: "exit 0\n<&>\u2028", Attempts: 1}},
		{intake.TypeFailed, intake.Note{Ref: 1<<64 - 1, Error: "exit 1", Attempts: 1, RetryMS: 30_000}},
		{intake.TypeDead, intake.Note{Ref: 9, Error: "exit 1", Attempts: 10}},
		{intake.TypeRetry, intake.Note{Ref: 9, By: "ada"}},
		{intake.TypeDiscarded, intake.Note{Ref: 9, By: "key1"}},
	} {
		t.Run(string(c.of), func(t *testing.T) {
			e, err := c.note.Entry(c.of, noon, "github")
			if err != nil {
				t.Fatal(err)
			}
			if e.Type != c.of || e.Source != "github" {
				t.Errorf("it is %s of %q", e.Type, e.Source)
			}
			out, err := intake.ParseNote(e)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&c.note, out); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnEntryThatIsNotWhatItsTypeSaysIsAnErrorThatNamesTheType(t *testing.T) {
	for _, c := range []struct {
		what  string
		parse func(*carillon.Event) error
	}{
		{"hook.received", func(e *carillon.Event) error { _, err := intake.ParseReceived(e); return err }},
		{"hook.refused", func(e *carillon.Event) error { _, err := intake.ParseRefused(e); return err }},
		{"hook.dead", func(e *carillon.Event) error { _, err := intake.ParseNote(e); return err }},
	} {
		for _, data := range []string{"", "{", "[]", "7", `{"ref":-1,"size":"x"}`} {
			err := c.parse(&carillon.Event{Type: carillon.Type(c.what), CE: []byte(data), Data: []byte(data)})
			if err == nil || !strings.Contains(err.Error(), "intake: an entry of type "+c.what) {
				t.Errorf("%s of %q: %v", c.what, data, err)
			}
		}
	}
}

func FuzzWhatIsReadCanBeWrittenAndReadAgain(f *testing.F) {
	f.Add([]byte(`{"provider":"github","event":"push","header":{"A":["b"]},"size":3,"digest":"00"}`), []byte("raw"))
	f.Add([]byte(`{"ref":7,"outcome":"published","event":{"Partition":1,"Seq":2,"Check":3}}`), []byte(`{"ref":7,"attempts":1}`))
	f.Add([]byte(`{"provider":"stripe"}`), bytes.Repeat([]byte("%"), 4096))
	f.Add([]byte(`{`), []byte(`{"provider":"slack","size":-1,"status":401,"reason":"stale"}`))
	f.Fuzz(func(t *testing.T, meta, data []byte) {
		e := &carillon.Event{Time: noon, Source: "s", Delivery: "d", From: "192.0.2.1", CE: meta, Data: data}
		if r, err := intake.ParseReceived(e); err == nil && whole(r) == nil && len(r.Body) <= intake.Part {
			r.Meta.Size, r.Meta.Parts = int64(len(r.Body)), 0
			events, err := r.Events(nil)
			if err != nil {
				t.Fatal(err)
			}
			again, err := intake.ParseReceived(events[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := whole(again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, again); diff != "" {
				t.Error(diff)
			}
		}
		if r, err := intake.ParseRefused(e); err == nil {
			written, err := r.Entry()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := intake.ParseRefused(written); err != nil || *again != *r {
				t.Errorf("%v became %v, %v", r, again, err)
			}
		}
		if n, err := intake.ParseNote(e); err == nil {
			written, err := n.Entry(intake.TypeDone, noon, "s")
			if err != nil {
				t.Fatal(err)
			}
			again, err := intake.ParseNote(written)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(n, again); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// A body that packs well is stored packed, and comes back as it was; one that does not,
// or is small, is stored as it is.
func TestABodyIsStoredPackedWhereThatIsSmaller(t *testing.T) {
	for name, tc := range map[string]struct {
		body   []byte
		packed bool
	}{
		"JSON":           {bytes.Repeat([]byte(`{"action":"opened","number":1},`), 300), true},
		"many parts":     {bytes.Repeat([]byte("0123456789abcdef"), intake.MaxBody/16), true},
		"what is random": {random(5000), false},
		"a small one":    {bytes.Repeat([]byte("a"), 100), false},
		"none":           {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			events, err := received(bytes.Clone(tc.body)).Events(nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := intake.ParseReceived(events[0])
			if err != nil {
				t.Fatal(err)
			}
			if got.Meta.Packed != tc.packed || got.Meta.Size != int64(len(tc.body)) {
				t.Errorf("packed %v, %d bytes; want %v, %d", got.Meta.Packed, got.Meta.Size, tc.packed, len(tc.body))
			}
			for _, part := range events[1:] {
				got.Body = append(bytes.Clone(got.Body), part.Data...)
			}
			if err := whole(got); err != nil || !bytes.Equal(got.Body, tc.body) {
				t.Errorf("it came back as %d bytes: %v", len(got.Body), err)
			}
		})
	}
}

func TestAPackedBodyThatIsDamagedIsAnError(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 100)
	stored := func() *intake.Received {
		events, err := received(body).Events(nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := intake.ParseReceived(events[0])
		if err != nil {
			t.Fatal(err)
		}
		r.Body = bytes.Clone(r.Body)
		return r
	}
	for name, damage := range map[string]func(*intake.Received){
		"cut":             func(r *intake.Received) { r.Body = r.Body[:len(r.Body)-3] },
		"empty":           func(r *intake.Received) { r.Body = nil },
		"of another size": func(r *intake.Received) { r.Meta.Size++ },
		"said to be very large": func(r *intake.Received) {
			r.Body = append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, r.Body...)
			r.Meta.Size = 1<<32 - 1
		},
		"no packed one": func(r *intake.Received) { r.Body = []byte("plain text, not packed") },
	} {
		r := stored()
		damage(r)
		if err := whole(r); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func whole(r *intake.Received) error {
	_, err := r.Whole(nil)
	return err
}

// A buffer that is returned may be written to at once: nothing of a delivery is in it.
func TestNoEventIsInABufferThatIsReturned(t *testing.T) {
	for what, body := range map[string][]byte{
		"packed": bytes.Repeat([]byte("all the same "), 500), "not worth it": random(5000), "small": []byte("{}"),
	} {
		t.Run(what, func(t *testing.T) {
			var b intake.Buffers
			for range 100 { // a pool may drop what it is given
				lent := b.Lend(len(body))
				copy(lent, body)
				events, err := received(lent).Events(&b)
				if err != nil {
					t.Fatal(err)
				}
				spoil(lent)
				b.Return(lent)
				for range 3 {
					spoil(b.Lend(len(body)))
					spoil(b.Lend(2 * len(body)))
				}
				got, err := intake.ParseReceived(events[0])
				if err != nil {
					t.Fatal(err)
				}
				again, err := got.Whole(&b)
				if err != nil || !bytes.Equal(got.Body, body) {
					t.Fatalf("another body came back: %v", err)
				}
				b.Return(again)
			}
		})
	}
}

func spoil(buf []byte) {
	for i := range buf {
		buf[i] = 0xff
	}
}

func TestWhatIsLentIsAsLongAsWasAskedFor(t *testing.T) {
	var b intake.Buffers
	for _, n := range []int{10, 5000, 0, 1, 7000, intake.MaxLent, intake.MaxLent + 1, 300} {
		for range 20 {
			buf := b.Lend(n)
			if len(buf) != n {
				t.Fatalf("%d bytes, not %d", len(buf), n)
			}
			b.Return(buf)
		}
	}
	if buf := (*intake.Buffers)(nil).Lend(7); len(buf) != 7 {
		t.Errorf("%d bytes of no buffers", len(buf))
	}
}
