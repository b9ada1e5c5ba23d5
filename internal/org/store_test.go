package org_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/org"
)

// install is a store that several nodes share.
type install struct{ kv engine.KV }

func newInstall(t *testing.T) *install {
	e := memory.New(memory.Config{})
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &install{e.KV()}
}

// node is one node's view; changed gets what its directory was told.
type node struct {
	*org.Store
	*org.Directory

	changed chan string
}

func (in *install) node(t *testing.T, cfg org.Config) *node {
	t.Helper()
	dir, err := org.NewDirectory(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{org.NewStore(in.kv, dir), dir, make(chan string, 1000)}
	dir.Notify(func(old, now *org.Org) {
		n.changed <- describe(old) + " → " + describe(now)
	})
	synced := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { dir.Follow(ctx, in.kv, slog.New(slog.DiscardHandler), func() { close(synced) }) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-synced
	return n
}

func describe(o *org.Org) string {
	if o == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s disabled=%t keys=%d", o.ID, o.Disabled, len(o.Keys))
}

func (n *node) told(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-n.changed:
		if got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("was not told %q", want)
	}
}

func code(err error) carillon.Code {
	var e *carillon.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func settings(t *testing.T, js string) org.Settings {
	t.Helper()
	return must(org.ParseSettings([]byte(js)))(t)
}

func TestEveryNodeSeesWhatTheStoreChanges(t *testing.T) {
	in := newInstall(t)
	here, there := in.node(t, org.Config{Defaults: org.Limits{Connections: 9}}), in.node(t, org.Config{Defaults: org.Limits{Connections: 5}})
	ctx := t.Context()

	o := must(here.Create(ctx, "acme", settings(t, `{"limits":{"publish_per_second":7},"retention":{"age_seconds":60,"events":5}}`)))(t)
	for _, n := range []*node{here, there} {
		n.told(t, "nothing → acme disabled=false keys=0")
		got, ok := n.Get("acme")
		if !ok || got.Limits.PublishPerSecond != 7 || got.Revision != o.Revision || got.Retention != (org.Retention{Age: time.Minute, Events: 5}) {
			t.Errorf("%+v", got)
		}
	}
	if a, _ := here.Get("acme"); a.Limits.Connections != 9 {
		t.Errorf("where nothing is said, the node's own default counts: %+v", a.Limits)
	}
	if a, _ := there.Get("acme"); a.Limits.Connections != 5 {
		t.Errorf("where nothing is said, the node's own default counts: %+v", a.Limits)
	}

	text, key, err := there.AddKey(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{here, there} {
		n.told(t, "acme disabled=false keys=0 → acme disabled=false keys=1")
		id, secret, _ := org.SplitKey(text)
		k, ok := n.Key(id)
		if !ok || k.Org != "acme" || !k.Proves(secret) || k.Proves(secret+"x") {
			t.Errorf("the new key: %t %+v", ok, k)
		}
	}
	if _, err := here.Update(ctx, "acme", 0, func(s org.Settings) (org.Settings, error) {
		return s.Merge([]byte(`{"disabled":true,"limits":{"publish_per_second":null}}`))
	}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{here, there} {
		n.told(t, "acme disabled=false keys=1 → acme disabled=true keys=1")
		if a, _ := n.Get("acme"); !a.Disabled || a.Limits.PublishPerSecond != 0 || a.Retention.Events != 5 {
			t.Errorf("%+v", a)
		}
	}
	if err := here.RemoveKey(ctx, "acme", key.ID); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{here, there} {
		n.told(t, "acme disabled=true keys=1 → acme disabled=true keys=0")
		if _, ok := n.Key(key.ID); ok {
			t.Error("a removed key is known")
		}
	}
	if err := there.Delete(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{here, there} {
		n.told(t, "acme disabled=true keys=0 → nothing")
		if _, ok := n.Get("acme"); ok {
			t.Error("a deleted organization exists")
		}
	}
	must(here.Create(ctx, "acme", org.Settings{}))(t)
	there.told(t, "nothing → acme disabled=false keys=0")
}

func TestANodeThatStartsKnowsWhatTheStoreHas(t *testing.T) {
	in := newInstall(t)
	first := in.node(t, org.Config{})
	for _, id := range []carillon.OrgID{"a", "b", "c"} {
		must(first.Create(t.Context(), id, org.Settings{}))(t)
	}
	if err := first.Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	later := in.node(t, org.Config{Orgs: []org.Org{{ID: "fixed"}}})
	if diff := cmp.Diff([]carillon.OrgID{"a", "c", "fixed"}, later.IDs()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheStoreRefuses(t *testing.T) {
	in := newInstall(t)
	n := in.node(t, org.Config{Orgs: []org.Org{{ID: "fixed"}}})
	ctx := t.Context()
	o := must(n.Create(ctx, "acme", org.Settings{}))(t)
	for name, tc := range map[string]struct {
		err  error
		want carillon.Code
	}{
		"one that exists":              {second(n.Create(ctx, "acme", org.Settings{})), carillon.CodeConflict},
		"one of the config":            {second(n.Create(ctx, "fixed", org.Settings{})), carillon.CodeConflict},
		"an invalid name":              {second(n.Create(ctx, "No Name", org.Settings{})), carillon.CodeBadRequest},
		"a change of nothing":          {second(n.Update(ctx, "nobody", 0, same)), carillon.CodeNotFound},
		"a change of the config":       {second(n.Update(ctx, "fixed", 0, same)), carillon.CodeConflict},
		"a change of an old revision":  {second(n.Update(ctx, "acme", o.Revision+1, same)), carillon.CodeConflict},
		"the deletion of nothing":      {n.Delete(ctx, "nobody"), carillon.CodeNotFound},
		"the deletion of the config's": {n.Delete(ctx, "fixed"), carillon.CodeConflict},
		"a key of nobody":              {third(n.AddKey(ctx, "nobody")), carillon.CodeNotFound},
		"the removal of no key":        {n.RemoveKey(ctx, "acme", "abc"), carillon.CodeNotFound},
	} {
		if code(tc.err) != tc.want {
			t.Errorf("%s: %v, want %s", name, tc.err, tc.want)
		}
	}
	for range org.MaxKeys {
		if _, _, err := n.AddKey(ctx, "acme"); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := n.AddKey(ctx, "acme"); code(err) != carillon.CodeQuotaExceeded {
		t.Errorf("one key too many: %v", err)
	}
}

func same(s org.Settings) (org.Settings, error) { return s, nil }

func second[T any](_ T, err error) error { return err }

func third[T, U any](_ T, _ U, err error) error { return err }

func TestChangesAtTheSameTimeAreAllKept(t *testing.T) {
	in := newInstall(t)
	a, b := in.node(t, org.Config{}), in.node(t, org.Config{})
	must(a.Create(t.Context(), "acme", org.Settings{}))(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []string
	for _, n := range []*node{a, b} {
		wg.Go(func() {
			for range 20 {
				_, k, err := n.AddKey(t.Context(), "acme")
				if code(err) == carillon.CodeUnavailable {
					continue // others were faster eight times
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				made = append(made, k.ID)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	o, _ := in.node(t, org.Config{}).Get("acme")
	var kept []string
	for _, k := range o.Keys {
		kept = append(kept, k.ID)
	}
	slices.Sort(made)
	slices.Sort(kept)
	if diff := cmp.Diff(made, kept); diff != "" || len(made) == 0 {
		t.Errorf("keys (-made +kept):\n%s", diff)
	}
}

func TestSettingsThatAreWrongAreRefusedWithTheReason(t *testing.T) {
	for js, says := range map[string]string{
		``:                                   "ends too early",
		`[]`:                                 "not an object",
		`{"limit":{}}`:                       `unknown field "limit"`,
		`{"limits":{"connections":"9"}}`:     "limits.connections is a string",
		`{"limits":{"connections":-1}}`:      "limits.connections is -1",
		`{"retention":{"bytes":-1}}`:         "retention.bytes is -1",
		`{"retention":{"age_seconds":1e12}}`: "age_seconds",
		`{"retention":{"age_seconds":99999999999}}`: "at most",
		`{} {}`: "more after the object",
	} {
		_, err := org.ParseSettings([]byte(js))
		if code(err) != carillon.CodeBadRequest || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", js, err, says)
		}
	}
	s := settings(t, `{"limits":{"connections":3,"publish_burst":4}}`)
	merged := must(s.Merge([]byte(`{"limits":{"connections":null,"publish_per_second":2}}`)))(t)
	want := settings(t, `{"limits":{"publish_burst":4,"publish_per_second":2}}`)
	if diff := cmp.Diff(want, merged); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	for _, patch := range []string{`{"nothing":1}`, `{"limits":7}`, `7`, `{"limits":{"connections":-4}}`} {
		if _, err := s.Merge([]byte(patch)); code(err) != carillon.CodeBadRequest {
			t.Errorf("patch %s: %v", patch, err)
		}
	}
}
