package carillon_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
)

func TestEveryCodeHasItsStatus(t *testing.T) {
	for code, want := range map[carillon.Code]int{
		carillon.CodeBadRequest: 400, carillon.CodeUnauthenticated: 401, carillon.CodeForbidden: 403, carillon.CodeNotFound: 404,
		carillon.CodeMethodNotAllowed: 405, carillon.CodeConflict: 409, carillon.CodeGone: 410, carillon.CodeTooLarge: 413,
		carillon.CodeUnsupportedMedia: 415, carillon.CodeRateLimited: 429, carillon.CodeQuotaExceeded: 429, carillon.CodeInternal: 500,
		carillon.CodeUnavailable: 503, "no such code": 500,
	} {
		if got := code.Status(); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}

func TestAnErrorInAChainIsFound(t *testing.T) {
	inner := carillon.Errorf(carillon.CodeForbidden, "not %s", "you")
	got := carillon.AsError(fmt.Errorf("gate: publish: %w", inner))
	if got != inner || got.Message != "not you" {
		t.Errorf("got %v", got)
	}
}

func TestAnyOtherErrorTellsTheClientNothing(t *testing.T) {
	secret := errors.New("dial 10.0.0.7: password hunter2")
	got := carillon.AsError(secret)
	if got.Code != carillon.CodeInternal || strings.Contains(got.Message, "hunter2") || strings.Contains(got.Message, "10.0") {
		t.Errorf("code %s, message %q", got.Code, got.Message)
	}
	if !errors.Is(got, secret) || !strings.Contains(got.Error(), "hunter2") {
		t.Errorf("the log gets %q", got)
	}
}

func TestUnavailableSaysWhenToComeBack(t *testing.T) {
	got := carillon.Unavailable(2*time.Second, io.ErrUnexpectedEOF, "the log is starting")
	if got.Code != carillon.CodeUnavailable || got.RetryAfter != 2*time.Second || got.Message != "the log is starting" || !errors.Is(got, io.ErrUnexpectedEOF) {
		t.Errorf("got %+v", got)
	}
	if want := "unavailable: the log is starting: unexpected EOF"; got.Error() != want {
		t.Errorf("got %q, want %q", got.Error(), want)
	}
}

func TestAnErrorWithoutACauseReadsWell(t *testing.T) {
	err := carillon.BadRequest("limit is 1–%d", 1000)
	if want := "bad_request: limit is 1–1000"; err.Error() != want {
		t.Errorf("got %q, want %q", err.Error(), want)
	}
	if errors.Unwrap(err) != nil {
		t.Error("it unwraps to something")
	}
}

// wantBadRequest checks that err, for the input s, may be shown to a client
// that sent it.
func wantBadRequest(t *testing.T, s string, err error) {
	t.Helper()
	var e *carillon.Error
	switch {
	case err == nil:
		t.Errorf("%q: accepted", s)
	case !errors.As(err, &e):
		t.Errorf("%q: %T, want *carillon.Error", s, err)
	case e.Code != carillon.CodeBadRequest || e.Message == "":
		t.Errorf("%q: %v, want %s with a message", s, e, carillon.CodeBadRequest)
	}
}
