package auth

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTheQuerysCredentialsAreThoseThatParseQueryFinds(t *testing.T) {
	piece := rapid.OneOf(rapid.SampledFrom([]string{"token", "ticket", "tok%65n", "token=", "ticket=a", "token=a=b", "after=now", "token=a+b", "a;b", "%zz", "Token=x", "=token", ""}),
		rapid.StringOf(rapid.SampledFrom([]rune("tokenicket=&%26+;é"))))
	rapid.Check(t, func(t *rapid.T) {
		raw := strings.Join(rapid.SliceOfN(piece, 0, 30).Draw(t, "query"), "&")
		tokens, tickets, err := queried(raw)
		want, wantErr := url.ParseQuery(raw)
		if (err != nil) != (wantErr != nil) || !slices.Equal(tokens, want["token"]) || !slices.Equal(tickets, want["ticket"]) {
			t.Fatalf("%q: %q, %q, %v, want %q, %v", raw, tokens, tickets, err, want, wantErr)
		}
	})
	long := strings.Repeat("a&", 20_000)
	_, _, err := queried(long)
	if _, want := url.ParseQuery(long); (err != nil) != (want != nil) {
		t.Errorf("%v, want %v", err, want)
	}
}
