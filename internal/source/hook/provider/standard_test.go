package provider_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// The public key verifies v1a alone, and the shared one v1 alone.
func TestStandardVerifiesWithPublicKeys(t *testing.T) {
	seed := []byte(strings.Repeat("k", ed25519.SeedSize))
	private := ed25519.NewKeyFromSeed(seed)
	public := "whpk_" + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	p := of(t, provider.KindStandard)
	for name, text := range map[string]string{
		"seed":     "whsk_" + base64.StdEncoding.EncodeToString(seed),
		"full key": "whsk_" + base64.StdEncoding.EncodeToString(private),
	} {
		h := http.Header{}
		if err := p.Sign(h, []byte("x"), "m1", "", provider.Secret{Key: []byte(text)}, now); err != nil {
			t.Fatal(err)
		}
		want := "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte("m1.1800000000.x")))
		if got := h.Get("Webhook-Signature"); got != want {
			t.Fatalf("%s: it is signed with %s", name, got)
		}
		c, r := p.Look(h, now)
		if r != nil {
			t.Fatal(r)
		}
		if which, r := c.Verify([]byte("x"), secrets(shared, public)); r != nil || which != 1 {
			t.Errorf("%s: which = %d, %v", name, which, r)
		}
		if why := judge(p, h, "y", now, public); why != provider.SignatureMismatch {
			t.Errorf("%s: with another body it is %q", name, why)
		}
		if why := judge(p, h, "x", now, shared); why != provider.SignatureMismatch {
			t.Errorf("%s: with a shared key it is %q", name, why)
		}
	}
	// A public key is no secret: a MAC with it proves nothing.
	forged := header("Webhook-Id", "m1", "Webhook-Timestamp", "1800000000",
		"Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac(sha256.New, string(private.Public().(ed25519.PublicKey)), "m1.1800000000.x")))
	if why := judge(p, forged, "x", now, public); why != provider.SignatureMismatch {
		t.Errorf("a MAC with the public key is %q", why)
	}
	if err := p.Sign(http.Header{}, nil, "m1", "", provider.Secret{Key: []byte(public)}, now); err == nil {
		t.Error("something is signed with a public key")
	}
}
