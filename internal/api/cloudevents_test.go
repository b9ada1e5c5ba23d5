package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
)

const cloudEvent = `{"specversion":"1.0","id":"1","source":"/s","type":"order.paid","subject":"o-1","time":"2025-07-09T10:30:00Z","traceparent":"00-ab","n":5,"data":{"x":1}}`

func TestTheThreeModesOfCloudEventsAreOneEvent(t *testing.T) {
	r := newRig(t, nil)
	post := func(body string, headers ...string) published {
		t.Helper()
		return decode[published](t, r.ask("POST", "/v1/events", body, append(r.publisher(), headers...)...), 202)
	}
	first := post(cloudEvent, "Content-Type", "application/cloudevents+json; charset=UTF-8").Events[0]
	batch := post("["+cloudEvent+"]", "Content-Type", "application/cloudevents-batch+json").Events[0]
	binary := post(`{"x":1}`, "Content-Type", "application/json", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "order.paid").Events[0]
	for name, again := range map[string]struct {
		ID        string
		Duplicate bool
	}{"batch": batch, "binary": binary} {
		if first.Duplicate || !again.Duplicate || again.ID != first.ID {
			t.Errorf("%s: %+v, first %+v", name, again, first)
		}
	}
	w := r.ask("GET", "/v1/events", "", r.publisher()...)
	want := `"payload":{"x":1},"subject":"o-1","from":"alice","ce":{"source":"/s","traceparent":"00-ab","n":5}}]`
	if !strings.Contains(w.Body.String(), want) {
		t.Errorf("%s\nwant %s", w.Body, want)
	}
}

// Headers that repeat the attributes of a structured event mean nothing (HTTP
// binding, section 3.2.3).
func TestAStructuredCloudEventIsItsBody(t *testing.T) {
	r := newRig(t, nil)
	decode[published](t, r.ask("POST", "/v1/events", cloudEvent, append(r.publisher(), "Content-Type", "application/cloudevents+json", "ce-type", "other", "ce-id", "%")...), 202)
	if got := r.events(""); !cmp.Equal(got, []string{"order.paid"}) {
		t.Error(got)
	}
}

func TestSourceAndIdAreTheKeyOfACloudEvent(t *testing.T) {
	r := newRig(t, nil)
	seen := map[string]string{}
	for _, tc := range []struct{ name, source, id, user string }{
		{"the first", "/a", "1", "alice"},
		{"another source", "/b", "1", "alice"},
		{"another id", "/a", "2", "alice"},
		{"another place of the border", "/a1", "", "alice"},
		{"another user", "/a", "1", "bob"},
		{"a user whose name continues", "/a", "1", "alice:/a"},
	} {
		body := fmt.Sprintf(`{"specversion":"1.0","source":%q,"id":%q,"type":"a"}`, tc.source, tc.id+"x")
		token := "Bearer " + r.token("acme", tc.user, carillon.RolePublisher, nil)
		got := decode[published](t, r.ask("POST", "/v1/events", body, "Authorization", token, "Content-Type", "application/cloudevents+json"), 202).Events[0]
		if other, known := seen[got.ID]; got.Duplicate || known {
			t.Errorf("%s is taken for %s", tc.name, other)
		}
		seen[got.ID] = tc.name
	}
	// The ids of events in our own form are others.
	if got := decode[published](t, r.ask("POST", "/v1/events", `{"type":"a","data":1,"id":"1x"}`, r.publisher()...), 202).Events[0]; got.Duplicate {
		t.Error("an own id is taken for that of a CloudEvent")
	}
}

func TestACloudEventReachesItsUser(t *testing.T) {
	r := newRig(t, nil)
	body := `{"specversion":"1.0","id":"1","source":"/s","type":"a","carillonuser":"bob"}`
	decode[published](t, r.ask("POST", "/v1/events", body, append(r.publisher(), "Content-Type", "application/cloudevents+json")...), 202)
	for user, n := range map[string]int{"bob": 1, "carol": 0} {
		p := decode[page](t, r.ask("GET", "/v1/events", "", "Authorization", "Bearer "+r.token("acme", user, carillon.RoleMember, nil)), 200)
		if len(p.Events) != n || n == 1 && !p.Events[0].Direct {
			t.Errorf("%s: %+v", user, p)
		}
	}
	body = `{"specversion":"1.0","id":"2","source":"/s","type":"a","carillonroom":"ops"}`
	r.refuse(r.ask("POST", "/v1/events", body, append(r.publisher(), "Content-Type", "application/cloudevents+json")...), 404, "not_found", `"ops"`)
}

func TestHistoryAsCloudEvents(t *testing.T) {
	r := newRig(t, nil)
	decode[published](t, r.ask("POST", "/v1/events", cloudEvent, append(r.publisher(), "Content-Type", "application/cloudevents+json")...), 202)
	decode[published](t, r.ask("POST", "/v1/events", `{"type":"own","data":2,"time":"2025-07-09T10:30:00Z"}`, r.publisher()...), 202)
	w := r.ask("GET", "/v1/events", "", append(r.publisher(), "Accept", "application/cloudevents+json")...)
	p := decode[struct {
		Events []map[string]any
		Cursor string
		More   bool
	}](t, w, 200)
	want := []map[string]any{
		{"specversion": "1.0", "source": "/s", "type": "order.paid", "time": "2025-07-09T10:30:00.000Z", "subject": "o-1", "traceparent": "00-ab", "n": 5.0, "carillonfrom": "alice", "data": map[string]any{"x": 1.0}},
		{"specversion": "1.0", "source": "/orgs/acme", "type": "own", "time": "2025-07-09T10:30:00.000Z", "carillonfrom": "alice", "data": 2.0},
	}
	usual := decode[page](t, r.ask("GET", "/v1/events", "", r.publisher()...), 200)
	for i := range want {
		want[i]["id"] = usual.Events[i].ID
	}
	if diff := cmp.Diff(want, p.Events); diff != "" || p.Cursor != usual.Cursor {
		t.Error(diff)
	}
}

func TestHistoryThatBringsNothingNewIsNotModified(t *testing.T) {
	r := newRig(t, nil)
	id := decode[published](t, r.ask("POST", "/v1/events", event, r.publisher()...), 202).Events[0].ID
	w := r.ask("GET", "/v1/events?after="+id, "", r.publisher()...)
	tag := w.Header().Get("ETag")
	if w.Code != 200 || tag != `"`+id+`"` {
		t.Fatalf("%d, ETag %s", w.Code, tag)
	}
	for _, method := range []string{"GET", "HEAD"} {
		w = r.ask(method, "/v1/events?after="+id, "", append(r.publisher(), "If-None-Match", tag)...)
		if w.Code != 304 || w.Body.Len() != 0 || w.Header().Get("ETag") != tag {
			t.Errorf("%s: %d %s %v", method, w.Code, w.Body, w.Header())
		}
	}
	if w = r.ask("GET", "/v1/events", "", append(r.publisher(), "If-None-Match", tag)...); w.Code != 200 {
		t.Errorf("with events, although up to the same cursor: %d", w.Code)
	}
	if w = r.ask("GET", "/v1/events?order=desc", "", r.publisher()...); w.Header().Get("ETag") != "" {
		t.Errorf("newest first, where the cursor says nothing of what is new: %v", w.Header())
	}
}
