package provider_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

func TestWhatCanBeASecret(t *testing.T) {
	public := "whpk_" + base64.StdEncoding.EncodeToString(make([]byte, ed25519.PublicKeySize))
	size := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, tt := range []struct {
		kind      provider.Kind
		secret    string
		wantError string // a part; "": it can be one
	}{
		{provider.KindGitHub, "x", ""},
		{provider.KindGitHub, " spaces are part of it ", ""},
		{provider.KindGitHub, "", "at least one character"},
		{provider.KindGitHub, "x\n", "control characters"},
		{provider.KindGitHub, strings.Repeat("x", 4097), "at most 4096"},
		{provider.KindStripe, "whsec_anything", ""},
		{provider.KindSlack, "8f742231b10e8888abcd99yyyzzz85a5", ""},
		{provider.KindStandard, shared, ""},
		{provider.KindStandard, other, ""},
		{provider.KindStandard, strings.TrimRight(other, "="), ""},
		{provider.KindStandard, size(24), ""},
		{provider.KindStandard, size(64), ""},
		{provider.KindStandard, size(23), "24 to 64 bytes, not 23"},
		{provider.KindStandard, size(65), "24 to 64 bytes, not 65"},
		{provider.KindStandard, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_"},
		{provider.KindStandard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaL_-w", "not base64"},
		{provider.KindStandard, public, ""},
		{provider.KindStandard, public[:len(public)-4], "32 bytes in base64"},
		{provider.KindStandard, "whsk_" + public[5:], "not the private key"},
		{provider.KindGeneric, "x", ""},
	} {
		err := of(t, tt.kind).CheckSecret(tt.secret)
		if tt.wantError == "" && err != nil {
			t.Errorf("%s, %q: %v", tt.kind, tt.secret, err)
		}
		if tt.wantError != "" && (err == nil || !strings.Contains(err.Error(), tt.wantError) || !strings.HasPrefix(err.Error(), "provider: ")) {
			t.Errorf("%s, %q: the error is %v, want one with %q", tt.kind, clip(tt.secret), err, tt.wantError)
		}
	}
	token := newProvider(t, provider.Config{Kind: provider.KindGeneric, Generic: provider.Generic{Preset: "gitlab"}})
	if err := token.CheckSecret("x "); err == nil {
		t.Error("a token that a header cannot have is taken")
	}
}

func clip(s string) string { return s[:min(len(s), 80)] }
