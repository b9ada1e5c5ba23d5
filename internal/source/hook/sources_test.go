package hook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/source/hook"
	"github.com/carillon-rt/carillon/internal/source/hook/action"
)

func newSources(t *testing.T, e *memory.Engine, keys string, configured ...hook.Configured) *hook.Sources {
	t.Helper()
	s, err := hook.NewSources(configured, e.KV(), keys, 3, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// following is a node that has what is in the store.
func following(t *testing.T, s *hook.Sources) {
	t.Helper()
	synced := make(chan struct{})
	stop := running(func(ctx context.Context) { s.Follow(ctx, func() { close(synced) }) })
	t.Cleanup(stop)
	<-synced
}

func newEngine(t *testing.T) *memory.Engine {
	e := memory.New(memory.Config{})
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	return e
}

func parse(t *testing.T, text string) hook.Definition {
	t.Helper()
	d, err := hook.ParseDefinition([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestASourceThatMakesNoSenseIsRefusedWithWhatWouldBeRight(t *testing.T) {
	for text, says := range map[string]string{
		`{name: A B, kind: github}`:                                   "1–64 characters",
		`{name: a}`:                                                   "kind",
		`{name: a, kind: gitbucket}`:                                  "kind",
		`{name: a, kind: github, secrets: []}`:                        "it has no secret",
		`{name: a, kind: github, secrets: ["", x]}`:                   "secret",
		`{name: a, kind: github, secrets: [1,2,3,4,5,6,7,8,9]}`:       "at most 8",
		`{name: a, kind: standard, secrets: [abc]}`:                   "a secret",
		`{name: a, kind: github, secrets: [x], allow: [10.0.0.1/8]}`:  "allow",
		`{name: a, kind: github, secrets: [x], body_bytes: 26214401}`: "at most 26214400",
		`{name: a, kind: github, secrets: [x], tries: 51}`:            "1–50",
		`{name: a, kind: stripe, secrets: [x], tolerance: soon}`:      "such as 5m",
		`{name: a, kind: github, secrets: [x], tolerance: 5m}`:        "tolerance",
		`{name: a, kind: github, secrets: [x], events: ["a.b*"]}`:     "events",
		`{name: a, kind: github, secrets: [x], subject: a..b}`:        "subject",
		`{name: a, kind: github, secrets: [x], order_by: .a}`:         "order_by",
		`{name: a, kind: github, secrets: [x], pick: [""]}`:           "path",
		`{name: a, kind: github, secrets: [x], publish: false}`:       "it would do nothing",
		`{name: a, kind: github, secrets: [x], generic: {header: X}}`: "'generic' is for kind generic",
		`{name: a, kind: github, secrets: [x], when: {match: {type: regex, regex: "(", parameter: {source: payload, name: a}}}}`: "when",
		`{name: a, kind: github, secrets: [x], actions: [{}]}`:                                                                   "actions[0]",
		`{name: a, kind: github, secrets: [x], nonsense: 1}`:                                                                     "nonsense",
		`[1]`: "is an object such as",
		`{name: a, kind: github, secrets: [` + strings.Repeat("x,", 40_000) + `]}`: "at most 65536",
	} {
		d, err := hook.ParseDefinition([]byte(text))
		if err == nil {
			err = hook.CheckConfigured([]hook.Configured{{Org: acme, Definition: d}})
		}
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.100s: %v; want something with %q", text, err, says)
		}
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	s := newSources(t, newEngine(t), hook.NewKeyFile(), source(t, "{name: gh, kind: github}"))
	one, _ := s.Get(acme, "gh")
	js, err := json.Marshal(one.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %q", one.Secrets, one.Secrets[0], one.Secrets[0], one.Secrets, one.Secrets[0]), string(js)} {
		if strings.Contains(text, secretText) {
			t.Errorf("printed: %s", text)
		}
	}
	fields, err := one.Definition.Fields()
	if err != nil || strings.Contains(fmt.Sprint(fields), secretText) {
		t.Errorf("the definition shows it: %v, %v", fields, err)
	}
}

func TestStoredSecretsAreEncryptedForTheirPlace(t *testing.T) {
	e := newEngine(t)
	keys := hook.NewKeyFile()
	s := newSources(t, e, keys)
	if _, _, err := s.Put(t.Context(), acme, parse(t, "{name: gh, kind: github, secrets: [the secret of gh]}")); err != nil {
		t.Fatal(err)
	}
	stored, _, err := e.KV().Get(t.Context(), "hook.source.acme.gh")
	if err != nil || bytes.Contains(stored, []byte("the secret")) {
		t.Fatalf("stored as %s, %v", stored, err)
	}
	// Whoever may write the store moves it to a source of another organization.
	if _, err := e.KV().Create(t.Context(), "hook.source.other.gh", stored); err != nil {
		t.Fatal(err)
	}
	other := newSources(t, e, keys)
	following(t, other)
	if one, ok := other.Get(acme, "gh"); !ok || one.Secrets[0].Text != "the secret of gh" {
		t.Error("another node cannot read it")
	}
	if other.Has("other", "gh") {
		t.Error("it could be read where it does not belong")
	}
	stranger := newSources(t, e, hook.NewKeyFile())
	following(t, stranger)
	if stranger.Has(acme, "gh") {
		t.Error("it could be read with another key")
	}
	// A new key is put above the old one: what was stored can be read, with the same id.
	rotated := newSources(t, e, hook.NewKeyFile()+keys)
	following(t, rotated)
	before, _ := other.Get(acme, "gh")
	after, ok := rotated.Get(acme, "gh")
	if !ok || after.Secrets[0].ID != before.Secrets[0].ID {
		t.Fatal("the old key is not known any more, or the id is another one")
	}
	if _, _, _, err := rotated.AddSecret(t.Context(), acme, "gh", "another"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a node with the old key alone does not take what it cannot read", func() bool {
		one, ok := other.Get(acme, "gh")
		return ok && len(one.Secrets) == 1
	})
}

// What a rule compares with may be a secret: it is not shown, and not stored in the clear.
func TestARuleOfAStoredSourceKeepsWhatItComparesWith(t *testing.T) {
	e := newEngine(t)
	keys := hook.NewKeyFile()
	s := newSources(t, e, keys)
	if _, _, err := s.Put(t.Context(), acme, parse(t, "{name: gh, kind: github, when: {match: {type: value, value: the-token, parameter: {source: payload, name: token}}}}")); err != nil {
		t.Fatal(err)
	}
	stored, _, err := e.KV().Get(t.Context(), "hook.source.acme.gh")
	if err != nil || bytes.Contains(stored, []byte("the-token")) {
		t.Fatalf("stored as %s, %v", stored, err)
	}
	other := newSources(t, e, keys)
	following(t, other)
	one, _ := other.Get(acme, "gh")
	if ok, err := one.Definition.When.Eval(&action.Request{Header: http.Header{}, ContentType: "application/json", Body: []byte(`{"token":"the-token"}`)}); err != nil || !ok {
		t.Errorf("the rule says %v, %v", ok, err)
	}
	fields, err := one.Definition.Fields()
	if err != nil || strings.Contains(fmt.Sprint(fields), "the-token") {
		t.Errorf("it is shown: %v, %v", fields, err)
	}
}

func TestANodeWithoutAKeyStoresNoSecrets(t *testing.T) {
	s := newSources(t, newEngine(t), "")
	_, _, err := s.Put(t.Context(), acme, parse(t, "{name: gh, kind: github}"))
	if e := carillon.AsError(err); e.Code != carillon.CodeConflict || !strings.Contains(e.Message, "hooks.key_file") {
		t.Errorf("%v; want a conflict that says what to set", err)
	}
}

func TestSourcesOfTheStoreComeAndGoOnEveryNode(t *testing.T) {
	e := newEngine(t)
	keys := hook.NewKeyFile()
	one, two := newSources(t, e, keys, source(t, "{name: fixed, kind: github}")), newSources(t, e, keys)
	following(t, two)
	for i := range 2 {
		if _, _, err := one.Put(t.Context(), acme, parse(t, fmt.Sprintf("{name: s%d, kind: github}", i))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the other node has both", func() bool { return two.Has(acme, "s0") && two.Has(acme, "s1") })
	_, _, err := one.Put(t.Context(), acme, parse(t, "{name: s3, kind: github}"))
	if e := carillon.AsError(err); e.Code != carillon.CodeQuotaExceeded {
		t.Errorf("a fourth source: %v; want quota_exceeded", err)
	}
	_, _, err = one.Put(t.Context(), acme, parse(t, "{name: fixed, kind: github}"))
	if e := carillon.AsError(err); e.Code != carillon.CodeConflict {
		t.Errorf("one of the settings: %v; want a conflict", err)
	}
	_, _, err = one.Put(t.Context(), acme, parse(t, "{name: s0, kind: github, actions: [{command: [rm]}]}"))
	if e := carillon.AsError(err); e.Code != carillon.CodeForbidden {
		t.Errorf("a tenant's command: %v; want forbidden", err)
	}
	if err := one.Remove(t.Context(), acme, "s0"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone on the other node", func() bool { return !two.Has(acme, "s0") })
	if n := len(one.List(acme)); n != 2 {
		t.Errorf("%d are left; want 2", n)
	}
	if one.Has("other", "s1") || len(one.List("other")) != 0 {
		t.Error("another organization has it")
	}
}

func TestAFileOfSecretsIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	s := newSources(t, newEngine(t), hook.NewKeyFile(), hook.Configured{Org: acme, Definition: parse(t, fmt.Sprintf("{name: gh, kind: github, secret_file: %q}", path))})
	first, _ := s.Get(acme, "gh")
	write("second\n\nfirst\n")
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	both, _ := s.Get(acme, "gh")
	if len(both.Secrets) != 2 || both.Secrets[0].Text != "second" || both.Secrets[1].ID != first.Secrets[0].ID {
		t.Errorf("%d secrets after the file had two", len(both.Secrets))
	}
	write("")
	if err := s.Reload(); err == nil {
		t.Error("an empty file was taken")
	}
	if now, _ := s.Get(acme, "gh"); len(now.Secrets) != 2 {
		t.Error("a bad file changed what was valid")
	}
}

// slowKV is a store whose watches are as slow as the test wants, and break.
type slowKV struct {
	engine.KV

	begin chan struct{}      // each lets a watch begin
	see   chan struct{}      // each takes a change
	cut   chan chan struct{} // breaks the watch, and then closes what it was sent
}

func (k *slowKV) Watch(ctx context.Context, prefix string, f func(engine.Change)) error {
	select {
	case <-k.begin:
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case done := <-k.cut:
			cancel()
			close(done)
		case <-ctx.Done():
		}
	}()
	return k.KV.Watch(ctx, prefix, func(c engine.Change) {
		if ctx.Err() != nil {
			return
		}
		select {
		case <-k.see:
			f(c)
		case <-ctx.Done():
		}
	})
}

func (k *slowKV) sees(n int) {
	for range n {
		k.see <- struct{}{}
	}
}

// A watch that lags, or broke while something was removed, does not bring back what is
// not so any more.
func TestAWatchThatLagsOrBrokeEndsWithWhatIsInTheStore(t *testing.T) {
	e := newEngine(t)
	keys := hook.NewKeyFile()
	kv := &slowKV{e.KV(), make(chan struct{}), make(chan struct{}), make(chan chan struct{})}
	slow, err := hook.NewSources(nil, kv, keys, 10, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stop := running(func(ctx context.Context) { slow.Follow(ctx, nil) })
	defer stop()
	kv.begin <- struct{}{}
	kv.sees(1) // there is nothing
	put := func(s *hook.Sources, text string) *hook.Source {
		t.Helper()
		one, _, err := s.Put(t.Context(), acme, parse(t, text))
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	put(slow, "{name: gh, kind: github, tries: 1}")
	second := put(slow, "{name: gh, kind: github, tries: 2}")
	put(slow, "{name: gone, kind: github}")
	kv.sees(2) // the second is not taken before the first was handled
	if one, ok := slow.Get(acme, "gh"); !ok || one.Revision != second.Revision {
		t.Error("a change that is old replaced a newer one")
	}
	done := make(chan struct{})
	kv.cut <- done
	<-done
	other := newSources(t, e, keys)
	following(t, other)
	if err := other.Remove(t.Context(), acme, "gone"); err != nil {
		t.Fatal(err)
	}
	kv.begin <- struct{}{}
	kv.sees(2) // the new watch: what there is, and that this is all
	eventually(t, "what was removed meanwhile is gone", func() bool { return !slow.Has(acme, "gone") })
	if !slow.Has(acme, "gh") {
		t.Error("what is there went too")
	}
}
