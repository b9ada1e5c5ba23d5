package gate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/gate"
	"github.com/carillon-rt/carillon/internal/org"
)

var (
	now       = time.Date(2025, 7, 9, 10, 30, 0, 123_456_789, time.UTC)
	publisher = &carillon.Principal{Org: "acme", User: "alice", Role: carillon.RolePublisher}
	server    = &carillon.Principal{Org: "acme", Role: carillon.RoleAdmin, KeyID: "k1"}
)

// rig is a gate in front of a log in memory.
type rig struct {
	*gate.Gate
	engine *memory.Engine
	clock  time.Time
}

func newRig(t testing.TB, cfg gate.Config, orgs ...org.Org) *rig {
	t.Helper()
	if orgs == nil {
		orgs = []org.Org{{ID: "acme"}, {ID: "other"}}
	}
	dir, err := org.NewDirectory(org.Config{Orgs: orgs})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{engine: memory.New(memory.Config{}), clock: now}
	t.Cleanup(func() {
		if err := r.engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if cfg.Open == nil {
		cfg.Open = r.engine.Open
	}
	cfg.Signals, cfg.Orgs = r.engine.Signals, dir
	cfg.Now = func() time.Time { return r.clock }
	r.Gate = gate.New(cfg)
	return r
}

func (r *rig) log(t testing.TB, id carillon.OrgID) (entries []*carillon.Entry) {
	t.Helper()
	_, err := r.engine.Open(id).Read(t.Context(), engine.Range{Limit: 100_000, MaxBytes: 1 << 30}, func(e *carillon.Entry) error {
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func draft() carillon.Draft { return carillon.Draft{Type: "order.paid", Data: []byte(`{"n":1}`)} }

func TestAnAcceptedEventIsStampedAndStored(t *testing.T) {
	r := newRig(t, gate.Config{})
	receipts, err := r.Publish(t.Context(), publisher, []carillon.Draft{{
		Type: "order.paid", Data: []byte(`{"n":1}`), Subject: "o-1", Time: "2025-01-02T03:04:05.678901+02:00", Users: []string{"bob", "carol", "bob"},
	}, draft()})
	if err != nil {
		t.Fatal(err)
	}
	got := r.log(t, "acme")
	if len(got) != 2 || len(receipts) != 2 {
		t.Fatalf("%d entries, %d receipts", len(got), len(receipts))
	}
	want := []carillon.Event{
		{
			Type: "order.paid", Data: []byte(`{"n":1}`), Subject: "o-1", From: "alice",
			Time: time.Date(2025, 1, 2, 1, 4, 5, 678_000_000, time.UTC),
			To:   carillon.Audience{Users: []string{"bob", "carol"}},
		},
		{Type: "order.paid", Data: []byte(`{"n":1}`), From: "alice", Time: now.Truncate(time.Millisecond)},
	}
	for i := range want {
		if diff := cmp.Diff(want[i], got[i].Event); diff != "" {
			t.Errorf("event %d: %s", i, diff)
		}
		if receipts[i].Pos != got[i].Pos || receipts[i].Duplicate {
			t.Errorf("receipt %d: %v, entry at %v", i, receipts[i], got[i].Pos)
		}
	}
	if n := len(r.log(t, "other")); n != 0 {
		t.Errorf("another organization got %d events", n)
	}
}

func TestAnEphemeralEventIsStampedAndHandedOn(t *testing.T) {
	r := newRig(t, gate.Config{})
	heard, others := make(chan *carillon.Entry, 2), make(chan *carillon.Entry, 2)
	r.engine.Signals("acme").Listen(func(e *carillon.Entry) { heard <- e })
	r.engine.Signals("other").Listen(func(e *carillon.Entry) { others <- e })
	receipts, err := r.Publish(t.Context(), publisher, []carillon.Draft{{
		Type: "order.seen", Data: []byte(`{"n":1}`), Subject: "o-1", Time: "2025-01-02T03:04:05.678901+02:00", Users: []string{"bob", "carol", "bob"}, Ephemeral: true,
	}, {Type: "order.seen", Data: []byte("1"), Ephemeral: true}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(make([]carillon.Receipt, 2), receipts); diff != "" {
		t.Errorf("the receipts: %s", diff)
	}
	for i, want := range []carillon.Event{
		{
			Type: "order.seen", Data: []byte(`{"n":1}`), Subject: "o-1", From: "alice",
			Time: time.Date(2025, 1, 2, 1, 4, 5, 678_000_000, time.UTC),
			To:   carillon.Audience{Users: []string{"bob", "carol"}},
		},
		{Type: "order.seen", Data: []byte("1"), From: "alice", Time: now.Truncate(time.Millisecond)},
	} {
		if diff := cmp.Diff(want, (<-heard).Event); diff != "" {
			t.Errorf("event %d: %s", i, diff)
		}
	}
	if n := len(r.log(t, "acme")); n != 0 {
		t.Errorf("%d events are stored", n)
	}
	if len(others) != 0 {
		t.Errorf("another organization hears %+v", <-others)
	}
	if s := r.Stats(); s.Ephemeral != 2 || s.Events != 0 || s.InFlight != 0 || s.InFlightBytes != 0 {
		t.Errorf("%+v", s)
	}
}

func TestEphemeralEventsDoNotNeedTheLog(t *testing.T) {
	r := newRig(t, gate.Config{})
	r.engine.Fail(nil)
	d := draft()
	if _, err := r.Publish(t.Context(), publisher, []carillon.Draft{d}); err == nil {
		t.Error("a log that is down stores an event")
	}
	d.Ephemeral = true
	if _, err := r.Publish(t.Context(), publisher, []carillon.Draft{d}); err != nil {
		t.Error(err)
	}
}

func TestEphemeralEventsCountForTheRate(t *testing.T) {
	r := newRig(t, gate.Config{}, org.Org{ID: "acme", Limits: org.Limits{PublishPerSecond: 2}})
	d := draft()
	for i, ephemeral := range []bool{true, false, true} {
		d.Ephemeral = ephemeral
		_, err := r.Publish(t.Context(), publisher, []carillon.Draft{d})
		if limited := err != nil && carillon.AsError(err).Code == carillon.CodeRateLimited; limited != (i == 2) {
			t.Errorf("event %d: %v", i, err)
		}
	}
}

func TestWhatCannotBeHandedOnIsRefused(t *testing.T) {
	r := newRig(t, gate.Config{})
	if err := r.engine.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := draft()
	d.Ephemeral = true
	if _, err := r.Publish(t.Context(), publisher, []carillon.Draft{d}); carillon.AsError(err).Code != carillon.CodeUnavailable {
		t.Errorf("%v", err)
	}
	if s := r.Stats(); s.Ephemeral != 0 || s.Failed != 1 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAServersEventIsFromNobody(t *testing.T) {
	r := newRig(t, gate.Config{})
	if _, err := r.Publish(t.Context(), server, []carillon.Draft{draft()}); err != nil {
		t.Fatal(err)
	}
	if from := r.log(t, "acme")[0].From; from != "" {
		t.Errorf("from %q", from)
	}
}

func TestTheGateRefuses(t *testing.T) {
	with := func(change func(*carillon.Draft)) []carillon.Draft {
		d := draft()
		change(&d)
		return []carillon.Draft{d}
	}
	typed := func(s string) []carillon.Draft { return with(func(d *carillon.Draft) { d.Type = s }) }
	member := &carillon.Principal{Org: "acme", User: "bob", Role: carillon.RoleMember}
	limited := &carillon.Principal{Org: "acme", User: "bob", Role: carillon.RoleAdmin, Permissions: &carillon.Permissions{Publish: []carillon.Pattern{"order.*"}}}
	users := make([]string, 1001)
	for i := range users {
		users[i] = fmt.Sprint("u", i)
	}
	for _, tc := range []struct {
		name   string
		who    *carillon.Principal
		drafts []carillon.Draft
		code   carillon.Code
		says   string
	}{
		{"nobody's organization", &carillon.Principal{Org: "gone", User: "a", Role: carillon.RoleAdmin}, []carillon.Draft{draft()}, carillon.CodeForbidden, "does not exist any more"},
		{"a disabled organization", &carillon.Principal{Org: "off", User: "a", Role: carillon.RoleAdmin}, []carillon.Draft{draft()}, carillon.CodeForbidden, "is disabled"},
		{"nothing", publisher, nil, carillon.CodeBadRequest, "there are no events; send 1–3"},
		{"too many", publisher, []carillon.Draft{draft(), draft(), draft(), draft()}, carillon.CodeTooLarge, "4 events at once; at most 3"},
		{"an empty type", publisher, typed(""), carillon.CodeBadRequest, "event type is empty"},
		{"a type with a hole", publisher, typed("a..b"), carillon.CodeBadRequest, "empty segment"},
		{"a pattern", publisher, typed("order.*"), carillon.CodeBadRequest, "one exact type"},
		{"17 segments", publisher, typed(strings.Repeat("a.", 16) + "a"), carillon.CodeBadRequest, "more than 16 segments"},
		{"room.", publisher, typed("room.user_joined"), carillon.CodeForbidden, `begin with "room"`},
		{"presence.", server, typed("presence.changed"), carillon.CodeForbidden, `begin with "presence"`},
		{"chat", server, typed("chat"), carillon.CodeForbidden, `begin with "chat"`},
		{"carillon.", server, typed("carillon.x"), carillon.CodeForbidden, `begin with "carillon"`},
		{"a source", server, typed("gh.pull_request.opened"), carillon.CodeForbidden, `"gh" is a webhook source`},
		{"a member", member, typed("order.paid"), carillon.CodeForbidden, `may not publish event type "order.paid"`},
		{"outside of the permissions", limited, typed("order.paid.twice"), carillon.CodeForbidden, `"order.paid.twice"`},
		{"large data", publisher, with(func(d *carillon.Draft) { d.Data = make([]byte, 101) }), carillon.CodeTooLarge, "the data has 101 bytes; at most 100"},
		{"a long subject", publisher, with(func(d *carillon.Draft) { d.Subject = strings.Repeat("x", 256) }), carillon.CodeBadRequest, "at most 255 bytes"},
		{"a subject with a line break", publisher, with(func(d *carillon.Draft) { d.Subject = "a\nb" }), carillon.CodeBadRequest, "control characters"},
		{"a time of another form", publisher, with(func(d *carillon.Draft) { d.Time = "2025-07-09 10:30" }), carillon.CodeBadRequest, `time "2025-07-09 10:30" is not RFC 3339`},
		{"a time with a comma", publisher, with(func(d *carillon.Draft) { d.Time = "2025-07-09T10:30:00,5Z" }), carillon.CodeBadRequest, "RFC 3339"},
		{"a time with an hour of one digit", publisher, with(func(d *carillon.Draft) { d.Time = "2025-07-09T1:30:00Z" }), carillon.CodeBadRequest, "RFC 3339"},
		{"a time a day away", publisher, with(func(d *carillon.Draft) { d.Time = "2025-07-09T10:30:00+24:00" }), carillon.CodeBadRequest, "RFC 3339"},
		{"a date", publisher, with(func(d *carillon.Draft) { d.Time = "2025-07-09" }), carillon.CodeBadRequest, "RFC 3339"},
		{"a time without zone", publisher, with(func(d *carillon.Draft) { d.Time = "2025-07-09T10:30:00" }), carillon.CodeBadRequest, "RFC 3339"},
		{"a time beyond year 9999", publisher, with(func(d *carillon.Draft) { d.Time = "9999-12-31T23:59:59-01:00" }), carillon.CodeBadRequest, "RFC 3339"},
		{"a long id", publisher, with(func(d *carillon.Draft) { d.ID = strings.Repeat("x", 256) }), carillon.CodeBadRequest, "1–255 bytes, not 256"},
		{"an id with a control character", publisher, with(func(d *carillon.Draft) { d.ID = "a\x00" }), carillon.CodeBadRequest, "own id is UTF-8 without control"},
		{"a room nobody knows", publisher, with(func(d *carillon.Draft) { d.Room = "ops" }), carillon.CodeNotFound, `room "ops" is not known here`},
		{"no room's name", publisher, with(func(d *carillon.Draft) { d.Room = "o p" }), carillon.CodeBadRequest, "room"},
		{"a room and users", publisher, with(func(d *carillon.Draft) { d.Room, d.Users = "ops", []string{"a"} }), carillon.CodeBadRequest, "not to both"},
		{"an empty user", publisher, with(func(d *carillon.Draft) { d.Users = []string{""} }), carillon.CodeBadRequest, "a user is 1–255 bytes"},
		{"a user with a control character", publisher, with(func(d *carillon.Draft) { d.Users = []string{"a", "b\x7f"} }), carillon.CodeBadRequest, "control characters"},
		{"too many users", publisher, with(func(d *carillon.Draft) { d.Users = users }), carillon.CodeBadRequest, "more than 1000 users"},
		{"an ephemeral one among others", publisher, append(with(func(*carillon.Draft) {}), with(func(d *carillon.Draft) { d.Ephemeral = true })...), carillon.CodeBadRequest, "event 1: some events here are ephemeral"},
		{"another among ephemeral ones", publisher, append(with(func(d *carillon.Draft) { d.Ephemeral = true }), draft()), carillon.CodeBadRequest, "publish the two kinds apart"},
		{"ephemeral and reserved", publisher, with(func(d *carillon.Draft) { d.Ephemeral, d.Type = true, "presence.x" }), carillon.CodeForbidden, `begin with "presence"`},
		{"ephemeral, by a member", member, with(func(d *carillon.Draft) { d.Ephemeral = true }), carillon.CodeForbidden, "may not publish"},
		{"ephemeral and large", publisher, with(func(d *carillon.Draft) { d.Ephemeral, d.Data = true, make([]byte, 101) }), carillon.CodeTooLarge, "at most 100"},
		{"ephemeral, to a room nobody knows", publisher, with(func(d *carillon.Draft) { d.Ephemeral, d.Room = true, "ops" }), carillon.CodeNotFound, `room "ops"`},
		{"ephemeral with an id", publisher, with(func(d *carillon.Draft) { d.Ephemeral, d.ID = true, "x" }), carillon.CodeBadRequest, "has no id"},
		{"one bad among good", publisher, append([]carillon.Draft{draft(), draft()}, typed("")...), carillon.CodeBadRequest, "event 2: event type is empty"},
		{"too much together", publisher, []carillon.Draft{
			{Type: "a", Data: make([]byte, 100)}, {Type: "a", Data: make([]byte, 100)},
		}, carillon.CodeTooLarge, "202 bytes together; at most 200"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, gate.Config{Source: sourceOf("acme", "gh"), EventBytes: 100, BatchEvents: 3, BatchBytes: 200},
				org.Org{ID: "acme"}, org.Org{ID: "off", Disabled: true})
			var answered bool
			r.Submit(tc.who, tc.drafts, func(receipts []carillon.Receipt, err error) {
				if answered {
					t.Error("answered twice")
				}
				answered = true
				e := carillon.AsError(err)
				if err == nil || e.Code != tc.code || !strings.Contains(e.Message, tc.says) {
					t.Errorf("%v %v\nwant %s with %q", receipts, err, tc.code, tc.says)
				}
			})
			if !answered {
				t.Error("a refusal comes before Submit returns")
			}
			if n := len(r.log(t, "acme")); n != 0 {
				t.Errorf("%d events were stored all the same", n)
			}
			if n := r.Stats().Refused[tc.code]; n != 1 {
				t.Errorf("counted %d refusals with %s", n, tc.code)
			}
		})
	}
}

func TestPermissionsLetIn(t *testing.T) {
	r := newRig(t, gate.Config{})
	p := &carillon.Principal{Org: "acme", User: "bob", Role: carillon.RoleMember, Permissions: &carillon.Permissions{Publish: []carillon.Pattern{"order.>"}}}
	if _, err := r.Publish(t.Context(), p, []carillon.Draft{draft()}); err != nil {
		t.Error(err)
	}
}

func TestTheSameIDAgainIsADuplicate(t *testing.T) {
	r := newRig(t, gate.Config{})
	d := draft()
	d.ID = "own-1"
	publish := func(p *carillon.Principal) carillon.Receipt {
		t.Helper()
		receipts, err := r.Publish(t.Context(), p, []carillon.Draft{d})
		if err != nil {
			t.Fatal(err)
		}
		return receipts[0]
	}
	first, again := publish(publisher), publish(publisher)
	if first.Duplicate || !again.Duplicate || first.Pos != again.Pos {
		t.Errorf("first %v, again %v", first, again)
	}
	// The key belongs to its user, and to the org's servers together.
	bob := &carillon.Principal{Org: "acme", User: "bob", Role: carillon.RolePublisher}
	key2 := &carillon.Principal{Org: "acme", Role: carillon.RoleAdmin, KeyID: "k2"}
	otherOrg := &carillon.Principal{Org: "other", User: "alice", Role: carillon.RolePublisher}
	if publish(bob).Duplicate || publish(server).Duplicate || publish(otherOrg).Duplicate {
		t.Error("another publisher's id was taken for this one's")
	}
	if !publish(key2).Duplicate {
		t.Error("two keys of one organization are one publisher")
	}
	if s := r.Stats(); s.Events != 4 || s.Duplicates != 2 {
		t.Errorf("%+v", s)
	}
}

func TestRatesAreLimitedByOrganization(t *testing.T) {
	r := newRig(t, gate.Config{},
		org.Org{ID: "acme", Limits: org.Limits{PublishPerSecond: 2, PublishBurst: 4}}, org.Org{ID: "other"})
	publish := func(p *carillon.Principal, n int) *carillon.Error {
		t.Helper()
		drafts := make([]carillon.Draft, n)
		for i := range drafts {
			drafts[i] = draft()
		}
		if _, err := r.Publish(t.Context(), p, drafts); err != nil {
			return carillon.AsError(err)
		}
		return nil
	}
	if err := publish(publisher, 4); err != nil {
		t.Fatalf("the burst: %v", err)
	}
	err := publish(publisher, 1)
	if err == nil || err.Code != carillon.CodeRateLimited || err.RetryAfter != 500*time.Millisecond {
		t.Fatalf("beyond the burst: %+v", err)
	}
	if err := publish(&carillon.Principal{Org: "other", User: "alice", Role: carillon.RoleAdmin}, 100); err != nil {
		t.Errorf("another organization: %v", err)
	}
	r.clock = r.clock.Add(err.RetryAfter)
	if err := publish(publisher, 1); err != nil {
		t.Errorf("after Retry-After: %v", err)
	}
	// Waiting does not help an array that is larger than the burst.
	if err := publish(publisher, 5); err == nil || err.Code != carillon.CodeTooLarge || err.RetryAfter != 0 {
		t.Errorf("more than the burst: %+v", err)
	}
}

func TestBytesAreLimitedAndARefusalCostsNothing(t *testing.T) {
	r := newRig(t, gate.Config{EventBytes: 1000},
		org.Org{ID: "acme", Limits: org.Limits{PublishPerSecond: 3, PublishBytesPerSecond: 1000}})
	large := []carillon.Draft{{Type: "a", Data: make([]byte, 1000)}}
	for range 2 { // one event and a little more may come at once
		if _, err := r.Publish(t.Context(), publisher, large); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		_, err := r.Publish(t.Context(), publisher, large)
		e := carillon.AsError(err)
		if err == nil || e.Code != carillon.CodeRateLimited || !strings.Contains(e.Message, "bytes") || e.RetryAfter <= 0 {
			t.Fatalf("%v", err)
		}
	}
	if _, err := r.Publish(t.Context(), publisher, []carillon.Draft{{Type: "a", Data: []byte("1")}}); err != nil {
		t.Errorf("the refused ones took events from the limit: %v", err)
	}
}

func TestWhatIsInFlightIsLimited(t *testing.T) {
	r := newRig(t, gate.Config{InFlight: 3, InFlightBytes: 1000})
	r.engine.Hold()
	defer r.engine.Release()
	var wg sync.WaitGroup
	for range 3 {
		wg.Add(1)
		r.Submit(publisher, []carillon.Draft{draft()}, func(_ []carillon.Receipt, err error) {
			defer wg.Done()
			if err != nil {
				t.Error(err)
			}
		})
	}
	_, err := r.Publish(t.Context(), publisher, []carillon.Draft{draft()})
	if e := carillon.AsError(err); err == nil || e.Code != carillon.CodeUnavailable || e.RetryAfter <= 0 {
		t.Errorf("%v", err)
	}
	if s := r.Stats(); s.InFlight != 3 {
		t.Errorf("in flight: %d", s.InFlight)
	}
	r.engine.Release()
	wg.Wait()
	if s := r.Stats(); s.InFlight != 0 || s.InFlightBytes != 0 {
		t.Errorf("in flight afterwards: %+v", s)
	}
	// One batch alone may be larger than the limit: it could never pass otherwise.
	if _, err := r.Publish(t.Context(), publisher, []carillon.Draft{draft(), draft(), draft(), draft()}); err != nil {
		t.Error(err)
	}
}

func TestSubmitDoesNotWaitForTheLog(t *testing.T) {
	r := newRig(t, gate.Config{})
	r.engine.Hold()
	done := make(chan error, 1)
	r.Submit(publisher, []carillon.Draft{draft()}, func(_ []carillon.Receipt, err error) { done <- err })
	select {
	case err := <-done:
		t.Fatalf("answered before it was stored: %v", err)
	default:
	}
	r.engine.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPublishSaysWhenItDoesNotKnow(t *testing.T) {
	r := newRig(t, gate.Config{})
	r.engine.Hold()
	defer r.engine.Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Publish(ctx, publisher, []carillon.Draft{draft()})
	if e := carillon.AsError(err); err == nil || e.Code != carillon.CodeUnavailable || !strings.Contains(e.Message, "may be stored") {
		t.Errorf("%v", err)
	}
}

// slow is a log that answers when the test does.
type slow struct {
	engine.Log
	appended chan func([]carillon.Receipt, error)
}

func (l *slow) Append(_ []engine.Append, done func([]carillon.Receipt, error)) { l.appended <- done }

func TestALateAnswerIsForWhoAskedForIt(t *testing.T) {
	log := &slow{appended: make(chan func([]carillon.Receipt, error), 2)}
	r := newRig(t, gate.Config{Open: func(carillon.OrgID) engine.Log { return log }})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Publish(ctx, publisher, []carillon.Draft{draft()}); err == nil {
		t.Fatal("answered before the log was")
	}
	late := <-log.appended
	answered := make(chan error, 1)
	go func() {
		_, err := r.Publish(t.Context(), publisher, []carillon.Draft{draft()})
		answered <- err
	}()
	done := <-log.appended
	late(nil, errors.New("the first is refused"))
	done([]carillon.Receipt{{}}, nil)
	if err := <-answered; err != nil {
		t.Errorf("the second one got %v", err)
	}
}

func TestTheLogsRefusalIsPassedOn(t *testing.T) {
	r := newRig(t, gate.Config{})
	r.engine.Fail(nil)
	_, err := r.Publish(t.Context(), publisher, []carillon.Draft{draft()})
	if e := carillon.AsError(err); err == nil || e.Code != carillon.CodeUnavailable {
		t.Errorf("%v", err)
	}
	if s := r.Stats(); s.Failed != 1 || s.Events != 0 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestLargeEventsAreCounted(t *testing.T) {
	r := newRig(t, gate.Config{})
	for _, n := range []int{1000, 1001, 5000} {
		if _, err := r.Publish(t.Context(), publisher, []carillon.Draft{{Type: "a", Data: make([]byte, n)}}); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.Stats(); s.Large != 2 || s.Bytes != 7001 || s.Events != 3 {
		t.Errorf("%+v", s)
	}
}

func TestManyOrganizationsAreForgottenAgain(t *testing.T) {
	dir, err := org.NewDirectory(org.Config{Open: true, Defaults: org.Limits{PublishPerSecond: 1}})
	if err != nil {
		t.Fatal(err)
	}
	e := memory.New(memory.Config{MaxBytes: 1 << 20})
	defer e.Close(context.Background())
	g := gate.New(gate.Config{Open: e.Open, Signals: e.Signals, Orgs: dir, Now: func() time.Time { return now }})
	for i := range 12_000 {
		p := &carillon.Principal{Org: carillon.OrgID(fmt.Sprint("org", i)), Role: carillon.RoleAdmin}
		if _, err := g.Publish(t.Context(), p, []carillon.Draft{draft()}); err != nil {
			t.Fatal(err)
		}
	}
	if n := gate.Remembered(g); n > 10_000 {
		t.Errorf("%d organizations are remembered", n)
	}
}

// A batch is stored whole, in order and for the publisher's organization only,
// or not at all.
func TestBatchesAreWholeOrNotAtAll(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, gate.Config{EventBytes: 50, BatchEvents: 5})
		var want [2][]string
		for i := range rapid.IntRange(1, 10).Draw(rt, "batches") {
			who := rapid.IntRange(0, 1).Draw(rt, "org")
			p := &carillon.Principal{Org: []carillon.OrgID{"acme", "other"}[who], User: "u", Role: carillon.RolePublisher}
			kinds := rapid.SliceOfN(rapid.SampledFrom([]string{"good", "good", "good", "good", "large", "reserved"}), 0, 7).Draw(rt, "events")
			var drafts []carillon.Draft
			good := len(kinds) > 0 && len(kinds) <= 5
			for j, kind := range kinds {
				d := carillon.Draft{Type: "t", Subject: fmt.Sprintf("%d/%d", i, j), Data: []byte("1")}
				switch kind {
				case "large":
					d.Data, good = make([]byte, 51), false
				case "reserved":
					d.Type, good = "room.x", false
				}
				drafts = append(drafts, d)
			}
			receipts, err := r.Publish(t.Context(), p, drafts)
			if (err == nil) != good || good && len(receipts) != len(drafts) {
				rt.Fatalf("%v: %v %v", kinds, receipts, err)
			}
			if good {
				for _, d := range drafts {
					want[who] = append(want[who], d.Subject)
				}
			}
		}
		for who, id := range []carillon.OrgID{"acme", "other"} {
			var got []string
			for _, e := range r.log(t, id) {
				got = append(got, e.Subject)
			}
			if diff := cmp.Diff(want[who], got); diff != "" {
				rt.Errorf("%s: %s", id, diff)
			}
		}
	})
}

// discard is a log that stores nothing, to measure the gate alone.
type discard struct {
	engine.Log
	receipts []carillon.Receipt
}

func (d *discard) Append(batch []engine.Append, done func([]carillon.Receipt, error)) {
	done(d.receipts[:len(batch)], nil)
}

func BenchmarkGateSubmit(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "acme", Limits: org.Limits{PublishPerSecond: 1e9, PublishBytesPerSecond: 1e12}}}})
			if err != nil {
				b.Fatal(err)
			}
			log := &discard{receipts: make([]carillon.Receipt, n)}
			g := gate.New(gate.Config{
				Open: func(carillon.OrgID) engine.Log { return log }, Signals: func(carillon.OrgID) engine.Signals { return nil }, Orgs: dir,
			})
			drafts := make([]carillon.Draft, n)
			for i := range drafts {
				drafts[i] = carillon.Draft{Type: "workflow.step.completed", Subject: "wf-123", Time: "2025-07-09T10:30:00.000Z", ID: "own-id", Data: make([]byte, 300)}
			}
			b.ReportAllocs()
			for b.Loop() {
				g.Submit(publisher, drafts, func(_ []carillon.Receipt, err error) {
					if err != nil {
						b.Error(err)
					}
				})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}

func TestRatesGoOnWhenTheClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			r := newRig(t, gate.Config{}, org.Org{ID: "acme", Limits: org.Limits{PublishPerSecond: 10}})
			published := func(tries int, each time.Duration) (n int) {
				for range tries {
					if _, err := r.Publish(t.Context(), publisher, []carillon.Draft{draft()}); err == nil {
						n++
					}
					r.clock = r.clock.Add(each)
				}
				return n
			}
			if n := published(20, 0); n != 10 {
				t.Fatalf("%d at once, want 10", n)
			}
			r.clock = r.clock.Add(by)
			published(20, 0) // what a step forward lets through, and back does not
			if n := published(20, 100*time.Millisecond); n < 19 || n > 20 {
				t.Errorf("%d in two seconds after the step, want 20", n)
			}
			entries := r.log(t, "acme")
			for i := 1; i < len(entries); i++ {
				if entries[i].Pos.Seq <= entries[i-1].Pos.Seq {
					t.Errorf("%v after %v: the order does not hang on the clock", entries[i].Pos, entries[i-1].Pos)
				}
			}
		})
	}
}
