package answer_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/answer"
)

func TestTheFormOfEventsIsTheOneThatIsValuedMost(t *testing.T) {
	const cloud, plain, none = "cloud", "plain", "none"
	for _, tc := range []struct{ accept, want string }{
		{"", plain},
		{"*/*", plain},
		{"application/*", plain},
		{"application/json", plain},
		{"application/cloudevents+json", cloud},
		{"Application/CloudEvents+JSON; charset=utf-8", cloud},
		{"application/cloudevents+json, */*", cloud},
		{"application/json, application/cloudevents+json", plain},
		{"application/json;q=0.5, application/cloudevents+json", cloud},
		{"application/json, application/cloudevents+json;q=0.999", plain},
		{"application/cloudevents+json;q=0.1, */*;q=0.2", plain},
		{"application/json;q=0, */*", cloud},
		{"application/cloudevents+json;q=0, */*;q=0.1", plain},
		{"text/html, application/xhtml+xml, */*;q=0.8", plain},
		{"text/html", none},
		{"application/cloudevents-batch+json", none},
		{"*/*;q=0", none},
		{"application/json;q=high", none},
		{", ;q=1, application/cloudevents+json", cloud},
	} {
		h := http.Header{}
		if tc.accept != "" {
			h.Set("Accept", tc.accept)
		}
		got := plain
		switch is, err := answer.TakesCloudEvents(h); {
		case err != nil && carillon.AsError(err).Code == carillon.CodeUnsupportedMedia:
			got = none
		case is:
			got = cloud
		}
		if got != tc.want {
			t.Errorf("Accept %q: %s, want %s", tc.accept, got, tc.want)
		}
	}
	if is, err := answer.TakesCloudEvents(http.Header{"Accept": {"text/html", "application/cloudevents+json"}}); !is || err != nil {
		t.Errorf("in the second of two headers: %v, %v", is, err)
	}
}

func TestABodyIsCompressedAsTheClientTakesIt(t *testing.T) {
	body := []byte(strings.Repeat(`{"type":"event","event_type":"order.paid"},`, 1000))
	var c answer.Compressor
	for _, tc := range []struct{ accept, want string }{
		{"", ""},
		{"gzip", "gzip"},
		{"zstd", "zstd"},
		{"gzip, deflate, br, zstd", "zstd"},
		{"GZIP;q=1.0, zstd;q=0.5", "gzip"},
		{"gzip;q=0", ""},
		{"identity", ""},
		{"identity, gzip;q=0.5", ""},
		{"br", ""},
		{"*", "zstd"},
		{"zstd;q=0, *", "gzip"},
	} {
		request, response := http.Header{}, http.Header{}
		if tc.accept != "" {
			request.Set("Accept-Encoding", tc.accept)
		}
		got := c.Compress(request, response, body)
		if name := response.Get("Content-Encoding"); name != tc.want {
			t.Errorf("Accept-Encoding %q: %q, want %q", tc.accept, name, tc.want)
		} else if back := expand(t, name, got); !bytes.Equal(back, body) {
			t.Errorf("%s: %d bytes are %d after it", name, len(body), len(back))
		}
	}
}

func expand(t *testing.T, encoding string, b []byte) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	switch encoding {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	case "zstd":
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r = z
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestABodyThatGainsNothingIsSentAsItIs(t *testing.T) {
	noise := make([]byte, 10_000)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(noise)
	var c answer.Compressor
	for name, body := range map[string][]byte{"a small one": bytes.Repeat([]byte("x"), answer.MinCompressed-1), "noise": noise} {
		for _, encoding := range []string{"gzip", "zstd"} {
			response := http.Header{}
			if got := c.Compress(http.Header{"Accept-Encoding": {encoding}}, response, body); !bytes.Equal(got, body) || len(response) != 0 {
				t.Errorf("%s: %d bytes, %v", name, len(got), response)
			}
		}
	}
}

func TestTags(t *testing.T) {
	for header, want := range map[string]bool{`"a"`: true, `W/"a"`: true, `"x", "a"`: true, `*`: true, `"x"`: false, `a`: false, ``: false} {
		if got := answer.Has(http.Header{"If-None-Match": {header}}, `"a"`); got != want {
			t.Errorf("If-None-Match %s: %v", header, got)
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	var body []byte
	for i := range 1000 {
		body = fmt.Appendf(body, `{"type":"event","id":"%026X","event_type":"workflow.step.completed","payload":{"n":%d,"workflow":"wf-%d"}},`, i*7919, i, i%10)
	}
	for _, encoding := range []string{"gzip", "zstd"} {
		b.Run(encoding, func(b *testing.B) {
			var c answer.Compressor
			request := http.Header{"Accept-Encoding": {encoding}}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n = len(c.Compress(request, http.Header{}, body))
			}
			b.ReportMetric(float64(len(body))/float64(n), "ratio")
		})
	}
}
