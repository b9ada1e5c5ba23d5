package provider_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

func TestCredentialsAndTheConnectionAreNotKept(t *testing.T) {
	h := header(
		"Authorization", "Basic x", "Cookie", "a=b", "Proxy-Authorization", "x", "Proxy-Connection", "x",
		"Connection", "close", "Keep-Alive", "x", "TE", "x", "Trailer", "x", "Transfer-Encoding", "chunked", "Upgrade", "x", "Content-Length", "2",
		"X-Api-Key", "x", "X-Auth-Token", "x", "X-Gitlab-Token", "x", "X-Forwarded-Authorization", "x", "X-Webhook-Secret", "x", "X-Forwarded-Client-Cert", "x",
		"Content-Type", "application/json", "User-Agent", "GitHub-Hookshot/1", "X-GitHub-Event", "push", "X-GitHub-Delivery", "d1",
		"X-Hub-Signature-256", "sha256=00", "X-Forwarded-For", "192.0.2.1", "X-Forwarded-For", "192.0.2.2", "Idempotency-Key", "k", "X-Event-Key", "repo:push",
	)
	kept, cut := of(t, provider.KindGitHub).Keep(h)
	want := header(
		"Content-Type", "application/json", "User-Agent", "GitHub-Hookshot/1", "X-GitHub-Event", "push", "X-GitHub-Delivery", "d1",
		"X-Hub-Signature-256", "sha256=00", "X-Forwarded-For", "192.0.2.1", "X-Forwarded-For", "192.0.2.2", "Idempotency-Key", "k", "X-Event-Key", "repo:push",
	)
	if diff := cmp.Diff(want, kept); diff != "" || cut != nil {
		t.Errorf("kept (-want +got):\n%s, cut %q", diff, cut)
	}
}

// Of kind generic the configuration says which header has the secret, and which the
// id, whatever they are called.
func TestTheHeaderWithTheSecretIsNotKept(t *testing.T) {
	p := newProvider(t, generic(provider.Generic{Header: "X-Harmless", Algorithm: "plain", IDHeader: "X-Id-Token", EventHeader: "X-Kind"}))
	kept, _ := p.Keep(header("X-Harmless", "a secret", "X-Id-Token", "1", "X-Kind", "a"))
	if diff := cmp.Diff(header("X-Id-Token", "1", "X-Kind", "a"), kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	p = newProvider(t, generic(provider.Generic{Header: "X-Harmless"}))
	if kept, _ := p.Keep(header("X-Harmless", "a signature")); len(kept) != 1 {
		t.Errorf("the signature is not kept: %v", kept)
	}
	p = newProvider(t, generic(provider.Generic{Header: "Authorization", Algorithm: "plain", Prefix: "Bearer ", IDHeader: "Authorization"}))
	if kept, _ := p.Keep(header("Authorization", "Bearer x")); len(kept) != 0 {
		t.Errorf("a secret that is an id too is kept: %v", kept)
	}
}

func TestHeadersAreKeptUpToALimit(t *testing.T) {
	h := header("X-GitHub-Event", "push", "X-GitHub-Delivery", "d1", "X-Hub-Signature-256", "sha256=00", "Content-Type", "application/json", "Zz", "last")
	for i := range 20 {
		h.Set(fmt.Sprintf("A-%02d", i), strings.Repeat("x", 1000))
	}
	h.Set("B", strings.Repeat("x", provider.MaxKept))
	before := h.Clone()
	kept, cut := of(t, provider.KindGitHub).Keep(h)
	size := 0
	for name, values := range kept {
		for _, v := range values {
			size += len(name) + len(v)
		}
	}
	if size > provider.MaxKept || size < provider.MaxKept-1100 {
		t.Errorf("%d bytes are kept", size)
	}
	for _, name := range []string{"X-Github-Event", "X-Github-Delivery", "X-Hub-Signature-256", "Content-Type", "A-00", "Zz"} {
		if kept[name] == nil {
			t.Errorf("%s is not kept", name)
		}
	}
	if want := []string{"A-16", "A-17", "A-18", "A-19", "B"}; !slices.Equal(cut, want) {
		t.Errorf("cut are %q, want %q", cut, want)
	}
	if diff := cmp.Diff(before, h); diff != "" {
		t.Errorf("the request changed: %s", diff)
	}
	if kept, cut := of(t, provider.KindSlack).Keep(nil); len(kept) != 0 || kept == nil || cut != nil {
		t.Errorf("of nothing %v is kept, %q cut", kept, cut)
	}
}

// What is kept of a delivery is enough to verify and read it again.
func TestWhatIsKeptCanBeReadAgain(t *testing.T) {
	for _, kind := range provider.Kinds() {
		p, h := of(t, kind), http.Header{}
		right, _ := keys(kind)
		body := []byte(`{"id":"1","event_id":"1","type":"a"}`)
		if err := p.Sign(h, body, "1", "a", secrets(right)[0], now); err != nil {
			t.Fatal(err)
		}
		h.Set("Authorization", "x")
		for i := range provider.MaxKept / 128 { // they come before the others by name
			h.Set(fmt.Sprintf("A-%03d", i), strings.Repeat("x", 123))
		}
		kept, cut := p.Keep(h)
		if why := judge(p, kept, string(body), now, right); why != "" || len(cut) == 0 || !strings.HasPrefix(cut[0], "A-") {
			t.Errorf("%s: it is refused: %s, cut are %q", kind, why, cut)
		}
	}
}
