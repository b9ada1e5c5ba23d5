package provider_test

import (
	"crypto/sha1"
	"encoding/hex"
	"net/http"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

func TestGitHubTakesSHA1OnlyWhereItIsSwitchedOn(t *testing.T) {
	const body, secret = "x", "a secret"
	old := "sha1=" + hex.EncodeToString(mac(sha1.New, secret, body))
	request := func(pairs ...string) http.Header {
		return header(append(pairs, "X-GitHub-Event", "push", "X-GitHub-Delivery", "1")...)
	}
	good := "sha256=" + hexMAC(secret, body)
	for _, tt := range []struct {
		what string
		h    http.Header
		on   bool
		want provider.Reason
	}{
		{"off, the old alone", request("X-Hub-Signature", old), false, provider.SignatureMissing},
		{"on, the old alone", request("X-Hub-Signature", old), true, ""},
		{"on, the new alone", request("X-Hub-Signature-256", good), true, ""},
		{"on, both, the new wrong", request("X-Hub-Signature", old, "X-Hub-Signature-256", "sha256="+hexMAC("wrong", body)), true, provider.SignatureMismatch},
		{"on, both, the old wrong", request("X-Hub-Signature", "sha1=0", "X-Hub-Signature-256", good), true, ""},
		{"on, the old in the new's place", request("X-Hub-Signature-256", old), true, provider.SignatureMalformed},
		{"off, the old in the new's place", request("X-Hub-Signature-256", old), false, provider.SignatureMalformed},
		{"on, the new in the old's place", request("X-Hub-Signature", good), true, provider.SignatureMalformed},
	} {
		p := newProvider(t, provider.Config{Kind: provider.KindGitHub, SHA1: tt.on})
		if why := judge(p, tt.h, body, now, secret); why != tt.want {
			t.Errorf("%s: it is %q, want %q", tt.what, why, tt.want)
		}
	}
	p, h := newProvider(t, provider.Config{Kind: provider.KindGitHub, SHA1: true}), http.Header{}
	if err := p.Sign(h, []byte(body), "1", "push", secrets(secret)[0], now); err != nil || h.Get("X-Hub-Signature") != old || h.Get("X-Hub-Signature-256") != good {
		t.Errorf("it is signed with %v, %v", h, err)
	}
}
