package carillon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// run runs a test for every case of a table of protocol/vectors.
func run[In, Want any](t *testing.T, file, table string, test func(t *testing.T, in In, want Want)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "protocol", "vectors", file))
	if err != nil {
		t.Fatal(err)
	}
	var tables map[string]json.RawMessage
	if err := json.Unmarshal(text, &tables); err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name string
		In   In
		Want Want
	}
	dec := json.NewDecoder(bytes.NewReader(tables[table]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cases); err != nil || len(cases) == 0 {
		t.Fatalf("%s of %s: %v", table, file, err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { test(t, c.In, c.Want) })
	}
}

// An event that was read is written as the server writes it, less its number.
func TestEventsOfTheVectors(t *testing.T) {
	run(t, "frames.json", "event", func(t *testing.T, in map[string]any, want string) {
		var e Event
		if err := json.Unmarshal([]byte(want), &e); err != nil {
			t.Fatal(err)
		}
		got, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if n := in["n"]; n != nil {
			want = strings.Replace(want, fmt.Sprintf(`"n":%v,`, n), "", 1)
		}
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

func TestFramesOfTheVectors(t *testing.T) {
	passedOver := []string{"server_time", "expires_in", "in", "events", "patterns"}
	run(t, "frames.json", "server", func(t *testing.T, in map[string]any, want string) {
		var f frame
		if err := json.Unmarshal([]byte(want), &f); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		for name, value := range in {
			if !slices.Contains(passedOver, name) && !reflect.DeepEqual(got[name], value) {
				t.Errorf("%s is %v, want %v", name, got[name], value)
			}
		}
	})
}

func TestProblemsOfTheVectors(t *testing.T) {
	type problemIn struct {
		Code   Code
		Detail string
	}
	type problemWant struct {
		Status      int
		ContentType string `json:"content_type"`
		Body        json.RawMessage
	}
	run(t, "problems.json", "problem", func(t *testing.T, in problemIn, want problemWant) {
		e := problem("publish", &http.Response{StatusCode: want.Status, Body: io.NopCloser(bytes.NewReader(want.Body))})
		if e.Code != in.Code || e.Message != in.Detail || e.Status != want.Status {
			t.Errorf("got %+v", e)
		}
	})
	run(t, "problems.json", "retry_after", func(t *testing.T, in int, want string) {
		asked := time.Duration(in) * time.Millisecond
		if got := retryAfter(http.Header{"Retry-After": {want}}); got < asked || got >= asked+time.Second {
			t.Errorf("waits %v, asked for %v", got, asked)
		}
	})
}

func TestCloseCodesOfTheVectors(t *testing.T) {
	run(t, "close_codes.json", "then", func(t *testing.T, in int, want string) {
		e, got := closeError(in, ""), "stop"
		switch {
		case e.atOnce && e.Retryable:
			got = "at_once"
		case e.Retryable:
			got = "back_off"
		}
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}
