package transport_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/transport"
)

func TestWhatFailedIsLoggedWithItsClientAndWithoutItsQuery(t *testing.T) {
	var out bytes.Buffer
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/poll?token=secret", nil)
	r.RemoteAddr = "192.0.2.7:55"
	err := &carillon.Error{Code: carillon.CodeInternal, Message: "for the client", Err: errors.New("for the operator")}
	transport.Problem(httptest.NewRecorder(), r, slog.New(slog.NewTextHandler(&out, nil)), err)
	for _, want := range []string{"client=192.0.2.7", "path=/v1/poll ", `err="for the operator"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log has no %s: %s", want, &out)
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("the log has the token: %s", &out)
	}
}

func TestAnAddressIsThatOfTheClient(t *testing.T) {
	for remote, want := range map[string]netip.Addr{
		"192.0.2.7:55": netip.MustParseAddr("192.0.2.7"), "[2001:db8::7]:0": netip.MustParseAddr("2001:db8::7"), "@": {}, "": {},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.RemoteAddr = remote
		if got := transport.Address(r); got != want {
			t.Errorf("%q is %v, want %v", remote, got, want)
		}
	}
}
