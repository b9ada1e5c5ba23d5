package server_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/org"
)

// What whoever has the disk finds: the events and the install's key, but no
// credential; and nobody else on this machine has it.
func TestTheStoreHoldsEventsInTheClearAndNoCredential(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	configured, stored := org.NewKey("demo")
	cfg := settings(dir)
	cfg.Orgs = []config.Org{{ID: "demo", Keys: []string{stored.Line()}}}
	s, c := start(t, cfg), client(t)
	manage := func(method, path, body string) string {
		t.Helper()
		status, text := do(t, c, method, s.OpsURL()+path, body, "Content-Type", "application/json")
		if status != http.StatusCreated {
			t.Fatalf("%s %s: %d, %s", method, path, status, text)
		}
		return text
	}
	manage("POST", "/v1/orgs", `{"id":"acme"}`)
	var made struct{ ID, Key string }
	if err := json.Unmarshal([]byte(manage("POST", "/v1/orgs/acme/keys", "")), &made); err != nil {
		t.Fatal(err)
	}
	bearer := orgToken(t, "acme", "alice")
	one := ticket(t, c, s)
	if got := status(t, c, http.MethodGet, s.PublicURL()+"/v1/poll?wait=0&ticket="+one, ""); got != http.StatusOK {
		t.Fatalf("the ticket: %d", got)
	}
	for _, credential := range []string{configured, made.Key, bearer} {
		if status, text := do(t, c, http.MethodPost, s.PublicURL()+"/v1/events", `{"type":"a.b","data":"words in the clear"}`, "Authorization", "Bearer "+credential); status != http.StatusAccepted {
			t.Fatalf("%d: %s", status, text)
		}
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	after := func(text, last string) string { return text[strings.LastIndex(text, last)+1:] }
	found := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s: others may use it: %v", path, info.Mode())
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, text := range []string{"words in the clear", made.ID, "install.key"} {
			found[text] = found[text] || bytes.Contains(b, []byte(text))
		}
		for name, text := range map[string]string{
			"a key of the config": after(configured, "_"), "a key of the store": after(made.Key, "_"), "a token": after(bearer, "."), "a ticket": one,
			"the issuer's secret": secret,
		} {
			if bytes.Contains(b, []byte(text)) {
				t.Errorf("%s has %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"words in the clear", made.ID, "install.key"} {
		if !found[text] {
			t.Errorf("the store does not have %q", text)
		}
	}
}
