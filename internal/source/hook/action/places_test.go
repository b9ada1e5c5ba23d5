package action_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

// slow answers each request after a second.
type slow struct{ now, most, all atomic.Int64 }

func (s *slow) RoundTrip(r *http.Request) (*http.Response, error) {
	s.all.Add(1)
	for n := s.now.Add(1); n > s.most.Load(); {
		s.most.Store(n)
	}
	defer s.now.Add(-1)
	select {
	case <-time.After(time.Second):
		return &http.Response{StatusCode: 204, Body: http.NoBody, Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func TestPlacesAreGivenInTurnToAllHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		r := action.NewRunner(action.Config{Total: 4, PerHook: 2, Queue: 40, PerQueue: 20, Client: &http.Client{Transport: s}})
		var wg sync.WaitGroup
		var busy atomic.Int64
		ended := map[string]time.Duration{}
		var mu sync.Mutex
		began := time.Now()
		run := func(of string, n int) {
			for range n {
				wg.Go(func() {
					_, err := r.Forward(t.Context(), &action.Forward{Of: of, URL: "http://x/"})
					if err != nil && carillon.AsError(err).Code != carillon.CodeUnavailable {
						t.Error(err)
					}
					if err != nil {
						busy.Add(1)
					}
					mu.Lock()
					ended[of] = time.Since(began)
					mu.Unlock()
				})
			}
			synctest.Wait()
		}
		run("a", 30) // two run, twenty wait, eight are refused
		run("b", 2)
		wg.Wait()
		if busy.Load() != 8 || s.most.Load() != 4 || s.all.Load() != 24 {
			t.Errorf("refused %d, at most %d at a time, of %d", busy.Load(), s.most.Load(), s.all.Load())
		}
		if ended["b"] != time.Second || ended["a"] != 11*time.Second {
			t.Errorf("%v: the many of one hook are waited for by another", ended)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestARequestIsGivenUpAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := action.NewRunner(action.Config{ForwardTimeout: 10 * time.Second, Client: &http.Client{Transport: never{}}})
		for own, want := range map[time.Duration]time.Duration{0: 10 * time.Second, time.Minute: time.Minute} {
			began := time.Now()
			res, err := r.Forward(t.Context(), &action.Forward{URL: "http://x/", Timeout: own})
			if err == nil || time.Since(began) != want || res.Took != want {
				t.Errorf("after %s, %v; want %s", time.Since(began), err, want)
			}
		}
	})
}

// never answers.
type never struct{}

func (never) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}
