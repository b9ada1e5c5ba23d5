package safenet_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"code.dny.dev/ssrf"
	"go.uber.org/goleak"

	"github.com/carillon-rt/carillon/internal/safenet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, c *http.Client, url string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err == nil {
		t.Cleanup(func() { _ = resp.Body.Close(); c.CloseIdleConnections() })
	}
	return resp, err
}

func TestPrivateAddressesAreNotDialed(t *testing.T) {
	dialed := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { dialed <- struct{}{} }))
	defer s.Close()
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := safenet.Client(safenet.Config{Timeout: time.Minute})
	for _, host := range []string{
		"127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]",
		"10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255",
		"[fe80::1]", "[fe80::1%25lo]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2001::1]",
	} {
		_, err := get(t, c, "http://"+host+":"+at.Port()+"/")
		if !errors.Is(err, ssrf.ErrProhibitedIP) {
			t.Errorf("%s: %v, want that it is not permitted", host, err)
		}
	}
	select {
	case <-dialed:
		t.Error("something arrived")
	default:
	}
	resp, err := get(t, safenet.Client(safenet.Config{Timeout: time.Minute, Private: true}), s.URL)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("allowed, it was not called: %v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	followed := false
	mux := http.NewServeMux()
	mux.HandleFunc("/a", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/b", http.StatusFound) })
	mux.HandleFunc("/b", func(http.ResponseWriter, *http.Request) { followed = true })
	s := httptest.NewServer(mux)
	defer s.Close()
	resp, err := get(t, safenet.Client(safenet.Config{Timeout: time.Minute, Private: true}), s.URL+"/a")
	if err != nil || resp.StatusCode != http.StatusFound || followed {
		t.Errorf("%+v, %v", resp, err)
	}
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	if tr, ok := safenet.Client(safenet.Config{Timeout: time.Second}).Transport.(*http.Transport); !ok || tr.Proxy != nil {
		t.Error("it has a proxy, which would dial in its place")
	}
}

func TestAnAnswerThatTakesTooLongIsGivenUp(t *testing.T) {
	gone := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); close(gone) }))
	defer s.Close()
	_, err := get(t, safenet.Client(safenet.Config{Timeout: 20 * time.Millisecond, Private: true}), s.URL)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("error is %v, want a timeout", err)
	}
	<-gone
}
