package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
)

func TestPublishingOfTheVectors(t *testing.T) {
	vectors.Run(t, "publish.json", "request", func(t *testing.T, in struct {
		Headers [][2]string
		Body    vectors.Text
	},
	) (any, error) {
		start := time.Now().Truncate(time.Millisecond)
		r := newRig(t, nil)
		post := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/events", strings.NewReader(string(in.Body)))
		post.Header.Set("Authorization", r.publisher()[1])
		for _, pair := range in.Headers {
			post.Header.Add(pair[0], pair[1])
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, post)
		if w.Code != http.StatusAccepted {
			return nil, problemOf(t, w)
		}
		var page struct{ Events []map[string]json.RawMessage }
		w = r.ask(http.MethodGet, "/v1/events", "", r.publisher()...)
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		for _, e := range page.Events {
			delete(e, "id")
			var at time.Time
			if err := json.Unmarshal(e["timestamp"], &at); err != nil {
				t.Fatal(err)
			}
			if !at.Before(start) {
				delete(e, "timestamp") // that of acceptance
			}
		}
		return page.Events, nil
	})
}

// problemOf is the error of an answer.
func problemOf(t *testing.T, w *httptest.ResponseRecorder) error {
	t.Helper()
	var p struct {
		Code   carillon.Code
		Detail string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != p.Code.Status() {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return carillon.Errorf(p.Code, "%s", p.Detail)
}
