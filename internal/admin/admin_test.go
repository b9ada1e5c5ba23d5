package admin_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/admin"
)

func get(t *testing.T, h http.Handler, path, site string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	if site != "" {
		r.Header.Set("Sec-Fetch-Site", site)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func status(context.Context) admin.Status { return admin.Status{Version: "v1", Ready: true} }

func TestPageMayTalkToThePublicPortOnly(t *testing.T) {
	h := admin.New(admin.Config{Status: status, Live: func() *admin.Live { return &admin.Live{URL: "http://127.0.0.1:9", Token: "secret"} }})
	w := get(t, h, "/", "")
	csp := w.Header().Get("Content-Security-Policy")
	if w.Code != http.StatusOK || !strings.Contains(csp, "default-src 'none'; script-src 'self'; style-src 'self'") ||
		!strings.Contains(csp, "connect-src 'self' http://127.0.0.1:9 ws://127.0.0.1:9;") {
		t.Errorf("status %d, policy %q", w.Code, csp)
	}
	if body := w.Body.String(); strings.Contains(body, "secret") || strings.Contains(body, "onclick") || strings.Contains(body, "<style") {
		t.Error("the page holds a token, or what its policy forbids")
	}
	for path, kind := range map[string]string{"/app.js": "javascript", "/style.css": "css"} {
		if w := get(t, h, path, ""); w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Content-Type"), kind) {
			t.Errorf("%s: %d, %v", path, w.Code, w.Header())
		}
	}
}

func TestTokenIsForThePageItselfAndOnlyForDevelopment(t *testing.T) {
	h := admin.New(admin.Config{Status: status, Live: func() *admin.Live { return &admin.Live{URL: "http://127.0.0.1:9", Token: "secret"} }})
	for site, want := range map[string]int{"": 200, "same-origin": 200, "none": 200, "same-site": 403, "cross-site": 403} {
		if w := get(t, h, "/dev/config.json", site); w.Code != want || strings.Contains(w.Body.String(), "secret") != (want == 200) {
			t.Errorf("Sec-Fetch-Site %q: %d", site, w.Code)
		}
	}
	if w := get(t, admin.New(admin.Config{Status: status}), "/dev/config.json", ""); w.Code != http.StatusNotFound {
		t.Errorf("a node that serves answers %d", w.Code)
	}
	if w := get(t, admin.New(admin.Config{Status: status, Live: func() *admin.Live { return nil }}), "/dev/config.json", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a node that starts answers %d", w.Code)
	}
}

func TestStatusIsJSON(t *testing.T) {
	w := get(t, admin.New(admin.Config{Status: status}), "/status.json", "")
	var s admin.Status
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || !s.Ready || s.Version != "v1" {
		t.Errorf("%s: %v", w.Body, err)
	}
}
