package action_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/safenet"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// forwarder is a runner that may call private addresses.
func forwarder(t *testing.T, timeout time.Duration) *action.Runner {
	t.Helper()
	client := safenet.Client(safenet.Config{Timeout: long, Private: true})
	t.Cleanup(client.CloseIdleConnections)
	return runner(t, action.Config{Client: client, ForwardTimeout: timeout, Total: 1, PerHook: 1})
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestARequestHasTheBodyAsItCameAndWhatIsChosen(t *testing.T) {
	const body = "{\"a\" : 1.0,\n\"a\":\xff}"
	var got *http.Request
	var text []byte
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		text, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, "thanks")
	})
	req := request(body, "application/json; charset=x")
	req.Header["X-Sig"] = []string{"1", "2"}
	req.Header.Set("Cookie", "secret")
	a := &action.Action{Forward: url + "/in?x=y", Header: map[string]string{"authorization": "Bearer t"}, Pass: []string{"x-sig", "X-None"}}
	res, err := forwarder(t, long).Do(t.Context(), a, req)
	if err != nil || !res.Ran || res.Status != 202 || string(res.Output) != "thanks" || res.Truncated || res.Took <= 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	h := got.Header
	if got.Method != "POST" || got.URL.String() != "/in?x=y" || string(text) != body ||
		h.Get("Content-Type") != "application/json; charset=x" || h.Get("Authorization") != "Bearer t" || !slices.Equal(h["X-Sig"], []string{"1", "2"}) ||
		h.Get("Accept-Encoding") != "identity" || h.Get("User-Agent") != "carillon" || h.Get("Cookie") != "" || len(h["X-None"]) > 0 || got.ContentLength != int64(len(body)) {
		t.Errorf("%+v, %q", got, text)
	}
}

func TestAnAnswerThatIsNotWellIsAnError(t *testing.T) {
	followed := false
	mux := http.NewServeMux()
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/target", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/target", func(http.ResponseWriter, *http.Request) { followed = true })
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone); fmt.Fprint(w, "no") })
	url := serve(t, mux.ServeHTTP)
	client := &http.Client{Transport: &http.Transport{}} // one that would follow
	t.Cleanup(client.CloseIdleConnections)
	r := runner(t, action.Config{Client: client})
	for path, status := range map[string]int{"/moved": 307, "/gone": 410, "/none": 404} {
		res, err := r.Forward(t.Context(), &action.Forward{URL: url + path, Body: []byte("x")})
		var is *action.StatusError
		if !errors.As(err, &is) || is.Status != status || res.Status != status || !res.Ran {
			t.Errorf("%s: %+v, %v", path, res, err)
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
}

func TestAnAnswerIsReadUpToItsLimit(t *testing.T) {
	gone := make(chan struct{}, 1)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/full" {
			fmt.Fprint(w, strings.Repeat("x", 16<<10))
			return
		}
		for { // without end
			if _, err := fmt.Fprint(w, strings.Repeat("x", 1000)); err != nil {
				gone <- struct{}{}
				return
			}
		}
	})
	r := forwarder(t, long)
	res, err := r.Forward(t.Context(), &action.Forward{URL: url + "/full"})
	if len(res.Output) != 16<<10 || res.Truncated || err != nil {
		t.Errorf("%d, %t, %v", len(res.Output), res.Truncated, err)
	}
	res, err = r.Forward(t.Context(), &action.Forward{URL: url})
	if len(res.Output) != 16<<10 || !res.Truncated || err != nil {
		t.Errorf("%d, %t, %v", len(res.Output), res.Truncated, err)
	}
	<-gone
}

func TestTheTimeOfARequestIsOverEverything(t *testing.T) {
	ended := make(chan struct{}, 2)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the client is gone
		if r.URL.Path == "/drip" {
			w.WriteHeader(http.StatusOK)
			fmt.Fprint(w, "some")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	for _, path := range []string{"/silent", "/drip"} {
		r := forwarder(t, 50*time.Millisecond)
		_, err := r.Forward(t.Context(), &action.Forward{URL: url + path})
		if !errors.Is(err, action.ErrTimeout) || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: %v", path, err)
		}
		<-ended
	}
	client := safenet.Client(safenet.Config{Timeout: 20 * time.Millisecond, Private: true})
	defer client.CloseIdleConnections()
	_, err := runner(t, action.Config{Client: client}).Forward(t.Context(), &action.Forward{URL: url})
	if !errors.Is(err, action.ErrTimeout) || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("by the client's own time: %v", err)
	}
	<-ended
}

func TestARequestEndsWithItsContextOrTheRunner(t *testing.T) {
	up := make(chan struct{})
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		up <- struct{}{}
		<-r.Context().Done()
	})
	r := forwarder(t, long)
	done := make(chan error, 1)
	for _, c := range []struct {
		what string
		want error
	}{{"context", context.Canceled}, {"runner", action.ErrStopped}} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := r.Forward(ctx, &action.Forward{URL: url})
			done <- err
		}()
		<-up
		if c.what == "context" {
			cancel()
		} else {
			over, now := context.WithCancel(t.Context())
			now()
			if err := r.Close(over); err != nil {
				t.Error(err)
			}
		}
		if err := <-done; !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		cancel()
	}
	if _, err := r.Forward(t.Context(), &action.Forward{URL: url}); carillon.AsError(err).Code != carillon.CodeUnavailable {
		t.Errorf("once it is closed: %v", err)
	}
}

func TestWhyThereIsNoAnswerSaysNothingOfTheNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // nobody is there
	called := false
	private := serve(t, func(http.ResponseWriter, *http.Request) { called = true })
	cut := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			c.Close()
		}
	})
	public := safenet.Client(safenet.Config{Timeout: long})
	for _, c := range []struct {
		what, url, want string
		client          *http.Client
	}{
		{"nobody there", "http://" + address, "no connection", nil},
		{"an address that is not allowed", private, "not allowed", public},
		{"a name that is none", "http://name.invalid/", "name of the address is not found", nil},
		{"half an answer", cut, "without a whole answer", nil},
	} {
		r := forwarder(t, long)
		if c.client != nil {
			r = runner(t, action.Config{Client: c.client})
		}
		_, err := r.Forward(t.Context(), &action.Forward{URL: c.url})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "127.0.0.1") || errors.Unwrap(err) == nil {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
	if called {
		t.Error("a private address was called")
	}
	if _, err := runner(t, action.Config{}).Forward(t.Context(), &action.Forward{URL: private}); err == nil || called {
		t.Errorf("without a client: %v", err)
	}
	if _, err := forwarder(t, long).Forward(t.Context(), &action.Forward{URL: "ftp://x"}); err == nil {
		t.Error("another scheme: no error")
	}
}
