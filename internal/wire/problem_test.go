package wire_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/wire"
)

func TestProblemSaysWhatMayBeShown(t *testing.T) {
	e := &carillon.Error{Code: carillon.CodeRateLimited, Message: "slow \"down\"", Err: errors.New("secret")}
	const want = `{"type":"about:blank","title":"Too Many Requests","status":429,"code":"rate_limited","detail":"slow \"down\""}`
	if got := string(wire.AppendProblem(nil, e)); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestEveryCodeIsAProblem(t *testing.T) {
	for _, code := range []carillon.Code{
		carillon.CodeBadRequest, carillon.CodeUnauthenticated, carillon.CodeForbidden, carillon.CodeNotFound,
		carillon.CodeMethodNotAllowed, carillon.CodeConflict, carillon.CodeGone, carillon.CodeTooLarge,
		carillon.CodeUnsupportedMedia, carillon.CodeRateLimited, carillon.CodeQuotaExceeded, carillon.CodeInternal,
		carillon.CodeUnavailable,
	} {
		var got struct {
			Title, Code, Detail string
			Status              int
		}
		if err := json.Unmarshal(wire.AppendProblem(nil, carillon.Errorf(code, "x")), &got); err != nil {
			t.Fatal(err)
		}
		title := http.StatusText(code.Status())
		if got.Status == http.StatusRequestEntityTooLarge {
			title = "Content Too Large" // its name since RFC 9110
		}
		if got.Title != title || got.Code != string(code) || got.Status != code.Status() || got.Detail != "x" {
			t.Errorf("%s: %+v", code, got)
		}
	}
}

func TestRetryAfterIsWholeSecondsAndAtLeastOne(t *testing.T) {
	for wait, want := range map[time.Duration]string{0: "", -1: "", time.Millisecond: "1", time.Second: "1", 1500 * time.Millisecond: "2"} {
		if got := wire.RetryAfter(&carillon.Error{RetryAfter: wait}); got != want {
			t.Errorf("%v: %q, want %q", wait, got, want)
		}
	}
}
