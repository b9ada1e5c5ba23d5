package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/config"
	"github.com/carillon-rt/carillon/internal/org"
)

// settingsCLI has the commands of this file's tests under the names that main
// gives them.
type settingsCLI struct {
	Token  TokenCmd  `cmd:""`
	Keys   KeysCmd   `cmd:""`
	Config ConfigCmd `cmd:""`
}

// carillonRun runs a command line, without the program's exit.
func carillonRun(t *testing.T, args ...string) (out, errOut string, err error) {
	t.Helper()
	var cli settingsCLI
	p, err := kong.New(&cli, kong.Name("carillon"), kong.Exit(func(int) { t.Fatal("exit") }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := p.Parse(args)
	if err != nil {
		return "", "", err
	}
	var o, e bytes.Buffer
	err = ctx.Run(&IO{Out: &o, Err: &e, In: strings.NewReader("")})
	return o.String(), e.String(), err
}

const testSecret = "0123456789abcdef0123456789abcdef"

func TestTokenIsTakenByTheServer(t *testing.T) {
	dir, err := org.NewDirectory(org.Config{Open: true})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Config{Orgs: dir, Issuers: []auth.Issuer{
		{Secrets: [][]byte{[]byte(testSecret)}, Any: true},
		{Issuer: "me", Audience: "you", OrgClaim: "tenant", Secrets: [][]byte{[]byte(testSecret)}, Any: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CARILLON_JWT_SECRET", testSecret)
	out, errOut, err := carillonRun(t, "token", "--org", "demo", "--user", "alice")
	if err != nil || errOut != "" || strings.Count(out, "\n") != 1 {
		t.Fatalf("%q, %q, %v", out, errOut, err)
	}
	p, err := a.VerifyToken(t.Context(), strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(p.Expires); p.User != "alice" || p.Org != "demo" || p.Role != carillon.RoleMember || p.Permissions != nil || left < 59*time.Minute || left > time.Hour {
		t.Errorf("%+v", p)
	}

	out, _, err = carillonRun(t, "token", "--secret", testSecret, "--org", "demo", "--user", "bob", "--role", "publisher", "--expires", "7d",
		"--issuer", "me", "--audience", "you", "--org-claim", "tenant", "--subscribe", "a.>", "--subscribe", "b.*", "--publish", "a.b", "--rooms", "ops-*", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var j struct{ Token, Org, User, Expires string }
	if err := json.Unmarshal([]byte(out), &j); err != nil {
		t.Fatal(err)
	}
	if p, err = a.VerifyToken(t.Context(), j.Token); err != nil {
		t.Fatal(err)
	}
	if p.Role != carillon.RolePublisher || len(p.Permissions.Subscribe) != 2 || p.Permissions.Publish[0] != "a.b" || p.Permissions.Rooms[0] != "ops-*" ||
		j.User != "bob" || j.Expires != p.Expires.UTC().Format(time.RFC3339) {
		t.Errorf("%+v, %+v", p, j)
	}
}

func TestTokenSaysWhatWouldBeRight(t *testing.T) {
	t.Setenv("CARILLON_JWT_SECRET", "")
	t.Setenv("CARILLON_ORG", "")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{}, "no secret: CARILLON_JWT_SECRET is not set; set it to the issuer's secret"},
		{[]string{"--secret-env", "NO_SUCH"}, "no secret: NO_SUCH is not set"},
		{[]string{"--secret", "short"}, "no token: the secret has 5 bytes; HS256 needs at least 32"},
		{[]string{"--secret", testSecret, "--role", "root"}, "no token: role is member, publisher or admin"},
		{[]string{"--secret", testSecret, "--expires", "5"}, "--expires: 5 has no unit"},
		{[]string{"--secret", testSecret, "--expires", "0s"}, "--expires: a token is good for at least 1s"},
		{[]string{"--secret", testSecret, "--subscribe", "ord*"}, `--subscribe: pattern "ord*": a wildcard stands for whole segments`},
		{[]string{"--secret", testSecret, "--rooms", "a b"}, "no token: permissions: room glob"},
		{[]string{"--secret", testSecret, "--org", "De"}, `no token: org: org "De"`},
	} {
		out, _, err := carillonRun(t, append([]string{"token", "--org", "demo", "--user", "alice"}, tc.args...)...)
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) || out != "" {
			t.Errorf("%q: %q, %v", tc.args, out, err)
		}
	}
}

func TestKeysNewPrintsTheKeyAndItsLine(t *testing.T) {
	out, errOut, err := carillonRun(t, "keys", "new", "--org", "demo")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 2 || !org.IsKey(lines[0]) || strings.Contains(errOut, lines[0]) {
		t.Fatalf("%q, %q", out, errOut)
	}
	// The line is one that the configuration takes, and the key one that the
	// server then takes.
	file := "orgs: [{id: demo, keys: ['" + lines[1] + "']}]"
	cfg, err := config.Parse("c.yaml", []byte(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := org.ParseKey("demo", cfg.Orgs[0].Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "demo", Limits: org.Limits(cfg.EffectiveLimits(cfg.Orgs[0])), Keys: []org.Key{key}}}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Config{Orgs: dir})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := a.VerifyBearer(t.Context(), lines[0]); err != nil || p.Org != "demo" || p.KeyID != key.ID {
		t.Errorf("%+v, %v", p, err)
	}

	out, errOut, err = carillonRun(t, "keys", "new", "--org", "demo", "--json")
	var j struct{ Org, ID, Key, Line string }
	if err2 := json.Unmarshal([]byte(out), &j); err != nil || err2 != nil || errOut != "" || !org.IsKey(j.Key) || !strings.HasPrefix(j.Line, j.ID+":") || j.Org != "demo" {
		t.Errorf("%q, %q, %v, %v", out, errOut, err, err2)
	}
	if _, _, err := carillonRun(t, "keys", "new", "--org", "De mo"); err == nil || !strings.HasPrefix(err.Error(), "--org: ") {
		t.Errorf("error is %v", err)
	}
}

func TestConfigCheckPrintExample(t *testing.T) {
	t.Setenv("CARILLON_JWT_SECRET", testSecret)
	example, _, err := carillonRun(t, "config", "example")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "carillon.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(example)
	if out, errOut, err := carillonRun(t, "config", "check", path); out != "ok\n" || errOut != "" || err != nil {
		t.Errorf("check: %q, %q, %v", out, errOut, err)
	}
	if out, _, err := carillonRun(t, "config", "check", path, "--json"); out != `{"ok":true,"problems":[]}`+"\n" || err != nil {
		t.Errorf("check --json: %q, %v", out, err)
	}
	t.Setenv("CARILLON_LISTEN", "127.0.0.1:7000")
	if out, _, err := carillonRun(t, "config", "print", path); err != nil || !strings.HasPrefix(out, "listen: 127.0.0.1:7000\n") || strings.Contains(out, testSecret) {
		t.Errorf("print: %q, %v", out, err)
	}
	if out, _, err := carillonRun(t, "config", "print"); err != nil || !strings.Contains(out, "durability: strict") {
		t.Errorf("print without a file: %q, %v", out, err)
	}

	write("listn: :80\nlimits:\n  mailbox: 1\n")
	out, errOut, err := carillonRun(t, "config", "check", path)
	if out != "" || errOut != path+":1: listn: unknown key; did you mean listen?\n"+path+":3: limits.mailbox: is 1; it is from 16 to 1048576\n" ||
		err == nil || err.Error() != path+" has 2 problems" {
		t.Errorf("check: %q, %q, %v", out, errOut, err)
	}
	out, _, err = carillonRun(t, "config", "check", path, "--json")
	if err == nil || !strings.Contains(out, `{"setting":"listn","line":1,"message":"unknown key; did you mean listen?"}`) || !strings.Contains(out, `"ok":false`) {
		t.Errorf("check --json: %q, %v", out, err)
	}
	if _, _, err := carillonRun(t, "config", "print", path); err == nil {
		t.Error("a bad file is printed")
	}
	if _, errOut, err := carillonRun(t, "config", "check", path+".no"); err == nil || !strings.Contains(errOut, "no such file") {
		t.Errorf("a missing file: %q, %v", errOut, err)
	}
}
