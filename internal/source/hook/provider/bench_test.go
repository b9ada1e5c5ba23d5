package provider_test

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// BenchmarkDelivery is what a delivery of GitHub of 7 KB costs: what is done before it
// is stored, and what is done afterwards.
func BenchmarkDelivery(b *testing.B) {
	body := largeBody(b, 7<<10)
	p, h := of(b, provider.KindGitHub), http.Header{}
	all := secrets("a secret of the usual length, 40 bytes..", "the one before it, which is as long.....")
	if err := p.Sign(h, body, "d1", "push", all[0], now); err != nil {
		b.Fatal(err)
	}
	verify := func(b *testing.B, secrets []provider.Secret) {
		c, r := p.Look(h, now)
		if r != nil {
			b.Fatal(r)
		}
		if _, r := c.Verify(body, secrets); r != nil {
			b.Fatal(r)
		}
	}
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			verify(b, all[:1])
		}
	})
	b.Run("verify two secrets", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			verify(b, all)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Read(h, "application/json", body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify and read", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			verify(b, all[:1])
			if _, err := p.Read(h, "application/json", body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkID is what asking for an id costs that is the last field of 7 KB.
func BenchmarkID(b *testing.B) {
	body := bytes.Replace(largeBody(b, 7<<10), []byte(`{"ref":`), []byte(`{"refs":`), 1)
	body = append(body[:len(body)-1], `,"id":"evt_1"}`...)
	p := of(b, provider.KindStripe)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if p.ID(nil, "application/json", body) != "evt_1" {
			b.Fatal("no id")
		}
	}
}

// largeBody is a push with commits until it has about n bytes.
func largeBody(tb testing.TB, n int) []byte {
	tb.Helper()
	_, body, err := provider.Sample(provider.KindGitHub, "push", "")
	if err != nil {
		tb.Fatal(err)
	}
	begin, end, ok := bytes.Cut(body, []byte(`"commits":[`))
	if !ok {
		tb.Fatal("the sample has no commits")
	}
	out := append(bytes.Clone(begin), `"commits":[`...)
	for i := 0; len(out)+len(end) < n; i++ {
		out = fmt.Appendf(out, `{"id":"%040d","message":"Ring the hour, \"not\" the minute","timestamp":"2026-03-02T10:15:42+01:00","author":{"name":"Noor","email":"noor@lantern.example","username":"noor"},"added":["hours.go"],"modified":["bell.go"]},`, i)
	}
	return append(out, end...)
}
