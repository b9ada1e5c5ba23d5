package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon/internal/config"
)

var secretEnv = []string{"CARILLON_JWT_SECRET=" + strings.Repeat("s", 32)}

var opts = cmp.Options{cmpopts.IgnoreUnexported(config.Config{}, config.Issuer{}, config.Ops{}), cmpopts.EquateEmpty()}

func TestDefaultsAreValid(t *testing.T) {
	if err := config.Default().Validate(); err != nil {
		t.Error(err)
	}
	got, err := config.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(config.Default(), got, opts); d != "" {
		t.Error(d)
	}
}

func TestExampleLoadsAndIsTheDefaults(t *testing.T) {
	got, err := config.Parse("example.yaml", config.Example(), secretEnv)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Orgs) != 1 || got.Orgs[0].ID != "demo" || len(got.Issuers) != 1 {
		t.Errorf("orgs %+v, issuers %+v", got.Orgs, got.Issuers)
	}
	if keys := got.Issuers[0].Keys(); len(keys) != 1 || string(keys[0]) != strings.Repeat("s", 32) {
		t.Errorf("the issuer's keys are %q", keys)
	}
	got.Orgs, got.Issuers = nil, nil
	if d := cmp.Diff(config.Default(), got, opts); d != "" {
		t.Error(d)
	}
}

func TestExampleHasEverySetting(t *testing.T) {
	// Sample lines are comments that read as a setting.
	sample := regexp.MustCompile(`(?m)^( *)#( +)([a-z_]+: \S+)$`)
	text := sample.ReplaceAllString(string(config.Example()), "$1 $2$3")
	text = strings.NewReplacer("limits: {}", "limits:", "retention: {}", "retention:").Replace(text)
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	has := map[string]bool{}
	var walk func(path string, n *yaml.Node)
	walk = func(path string, n *yaml.Node) {
		for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
			at := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
			has[at] = true
			walk(at, n.Content[i+1])
		}
		for _, e := range n.Content {
			if n.Kind == yaml.SequenceNode {
				walk(path+"[]", e)
			}
		}
	}
	walk("", doc.Content[0])
	want := paths(reflect.TypeFor[config.Config](), "")
	for _, p := range want {
		if !has[p] {
			t.Errorf("the example has no %s", p)
		}
	}
	if len(want) < 60 {
		t.Errorf("only %d settings found", len(want))
	}
}

// paths lists the settings of the struct, [] for the elements of a list.
func paths(typ reflect.Type, path string) (all []string) {
	for f := range typ.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() {
			continue
		}
		at := strings.TrimPrefix(path+"."+key, ".")
		all = append(all, at)
		switch ft := f.Type; {
		case ft.Kind() == reflect.Struct:
			all = append(all, paths(ft, at)...)
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			all = append(all, paths(ft.Elem(), at+"[]")...)
		}
	}
	return all
}

func TestEverySettingHasItsOwnVariable(t *testing.T) {
	seen := map[string]string{}
	for _, p := range paths(reflect.TypeFor[config.Config](), "") {
		if strings.Contains(p, "[]") {
			continue
		}
		name := config.EnvName(p)
		if seen[name] != "" {
			t.Errorf("%s is %s and %s", name, seen[name], p)
		}
		seen[name] = p
	}
	// Variables that mean something else to the command line.
	for _, taken := range []string{"CARILLON_URL", "CARILLON_OPS_URL", "CARILLON_ORG", "CARILLON_API_KEY", "CARILLON_TOKEN", "CARILLON_JWT_SECRET"} {
		if seen[taken] != "" {
			t.Errorf("%s is also the setting %s", taken, seen[taken])
		}
	}
}

func TestFileAndEnvironmentOverDefaults(t *testing.T) {
	file := `
listen: 127.0.0.1:9000
ops:
engine:
  kind: memory
  retention: {age: 1h30m, bytes_per_org: 2MiB, bytes: 1_000_000_000}
limits:
  event_bytes: 1MB
  scan_workers: 2
orgs:
- id: "7"
  limits: {publish_per_second: 0, publish_bytes_per_second: 1MiB}
  retention: {bytes: 0}
- {id: b}
origins: [https://file.example]
`
	c, err := config.Parse("c.yaml", []byte(file), []string{
		"CARILLON_LIMITS_SCAN_WORKERS=3",
		"CARILLON_LIMITS_PUBLISH_PER_SECOND=50",
		"CARILLON_OPS_LISTEN=127.0.0.1:9001",
		"CARILLON_ORIGINS=https://a.example, https://b.example:8443",
		"CARILLON_DATA=", // as good as not set
		"CARILLON_NO_SUCH_THING=1",
		"CARILLON_TOKEN=x",
		"PATH=/bin",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Listen = "127.0.0.1:9000"
	want.Ops.Listen = "127.0.0.1:9001"
	want.Engine.Kind = "memory"
	want.Engine.Retention.Age = config.Duration(90 * time.Minute)
	want.Engine.Retention.Bytes = 1_000_000_000
	want.Limits.EventBytes = 1_000_000
	want.Limits.ScanWorkers = 3
	want.Limits.PublishPerSecond = 50
	want.Origins = []string{"https://a.example", "https://b.example:8443"}
	none, mib, all := 0, config.Size(1<<20), config.Size(0)
	want.Engine.Retention.BytesPerOrg = 2 << 20
	want.Orgs = []config.Org{
		{
			ID: "7", Limits: config.OrgLimits{PublishPerSecond: &none, PublishBytesPerSecond: &mib},
			Retention: config.OrgRetention{Bytes: &all},
		},
		{ID: "b"},
	}
	if d := cmp.Diff(want, c, opts); d != "" {
		t.Error(d)
	}
	// An organization's 0 is no limit, not the default.
	if got, want := c.EffectiveLimits(c.Orgs[0]), (config.Effective{PublishBytesPerSecond: 1 << 20}); got != want {
		t.Errorf("limits of the first org are %+v", got)
	}
	if a, b := c.EffectiveRetention(c.Orgs[0]).Bytes, c.OrgRetention().Bytes; a != 0 || b != 2<<20 {
		t.Errorf("the orgs' logs may have %d and %d bytes", a, b)
	}
	if got := c.EffectiveLimits(c.Orgs[1]); got.PublishPerSecond != 50 || got != c.OrgDefaults() {
		t.Errorf("limits of the second org are %+v", got)
	}
}

func TestProblemsSayWhereAndWhatWouldBeRight(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for _, tc := range []struct {
		name, file string
		env        []string
		want       []string // each is a line of the error, in order
	}{
		{
			name: "unknown key, a slip", file: "limits:\n  evnt_bytes: 1KB\n",
			want: []string{"c.yaml:2: limits.evnt_bytes: unknown key; did you mean event_bytes?"},
		},
		{
			name: "unknown key, other case", file: "Listen: :80\n",
			want: []string{"c.yaml:1: Listen: unknown key; did you mean listen?"},
		},
		{
			name: "unknown key, known elsewhere", file: "event_bytes: 1KB\n",
			want: []string{"c.yaml:1: event_bytes: unknown key; did you mean limits.event_bytes?"},
		},
		{
			name: "unknown key, nothing near", file: "log:\n  colour: red\n  zebra: 1\n",
			want: []string{"c.yaml:2: log.colour: unknown key; log has level, format", "c.yaml:3: log.zebra: unknown key; log has level, format"},
		},
		{
			name: "unknown key in a list", file: "orgs:\n- id: a\n  key: []\n",
			want: []string{"c.yaml:3: orgs[0].key: unknown key; did you mean keys?"},
		},
		{
			name: "key twice", file: "data: a\nlisten: :1\ndata: b\n",
			want: []string{"c.yaml:3: data: is there twice, also on line 1"},
		},
		{
			name: "not YAML", file: "listen: [\n",
			want: []string{"c.yaml:1: not readable as YAML: "},
		},
		{name: "not a mapping", file: "- a\n", want: []string{"c.yaml:1: is a list; it takes keys with values: listen, tls"}},
		{name: "two documents", file: "data: a\n---\ndata: b\n", want: []string{"c.yaml:2: the file has a second document"}},
		{name: "no value", file: "listen:\n", want: []string{"c.yaml:1: listen: has no value; leave the line out for the default"}},
		{name: "group for a value", file: "listen: {port: 1}\n", want: []string{"c.yaml:1: listen: is a group of keys; it takes one text"}},
		{name: "value for a group", file: "ops: :80\n", want: []string{"c.yaml:1: ops: is a single value; it takes keys with values: listen, hosts"}},
		{name: "value for a list", file: "origins: https://a.example\n", want: []string{"c.yaml:1: origins: is a single value; it takes a list, like [a, b]"}},
		{name: "duration without unit", file: "sse: {retry: 3}\n", want: []string{"c.yaml:1: sse.retry: 3 has no unit; write it like 3s, 3m or 3d"}},
		{name: "negative duration", file: "sse: {retry: -3s}\n", want: []string{"c.yaml:1: sse.retry: -3s is negative"}},
		{name: "no duration", file: "sse: {retry: soon}\n", want: []string{`c.yaml:1: sse.retry: "soon" is not a duration; write it like 25s, 5m, 1h30m or 7d`}},
		{name: "too many days", file: "sse: {retry: 4000000000d}\n", want: []string{`c.yaml:1: sse.retry: "4000000000d" is not a duration`}},
		{name: "ambiguous size", file: "limits: {ring_bytes: 64M}\n", want: []string{`c.yaml:1: limits.ring_bytes: "64M" is not a size; write it like 200KB, 64MiB or 1048576`}},
		{name: "negative size", file: "limits: {ring_bytes: -1}\n", want: []string{`c.yaml:1: limits.ring_bytes: "-1" is not a size`}},
		{name: "huge size", file: "limits: {ring_bytes: 99999999TB}\n", want: []string{`c.yaml:1: limits.ring_bytes: "99999999TB" is not a size`}},
		{name: "no number", file: "limits: {mailbox: 1.5}\n", want: []string{`c.yaml:1: limits.mailbox: "1.5" is not a whole number`}},
		{name: "huge number", file: "limits: {mailbox: 99999999999999999999}\n", want: []string{`c.yaml:1: limits.mailbox: "99999999999999999999" is not a whole number`}},
		{name: "no bool", file: "orgs: [{id: a, disabled: yes}]\n", want: []string{`c.yaml:1: orgs[0].disabled: "yes" is not true or false`}},
		{
			name: "out of range", file: "limits:\n  mailbox: 0\n  event_bytes: 1B\n",
			want: []string{"c.yaml:2: limits.mailbox: is 0; it is from 16 to 1048576", "c.yaml:3: limits.event_bytes: is 1B; it is from 256B to 8MiB"},
		},
		{
			name: "environment", env: []string{"CARILLON_LIMITS_MAILBOX=0", "CARILLON_SSE_RETRY=x"},
			want: []string{`CARILLON_SSE_RETRY: sse.retry: "x" is not a duration`, "CARILLON_LIMITS_MAILBOX: limits.mailbox: is 0"},
		},
		{
			name: "unknown words", file: "engine: {kind: kafka, durability: some}\nlog: {level: loud, format: xml}\n",
			want: []string{
				`c.yaml:1: engine.kind: "kafka" is not known; it is jetstream or memory`, `c.yaml:1: engine.durability: "some" is not known; it is strict or relaxed`,
				`c.yaml:2: log.level: "loud" is not known; it is debug or info or warn or error`, `c.yaml:2: log.format: "xml" is not known; it is json or text`,
			},
		},
		{
			name: "addresses", file: "listen: '8080'\nops: {listen: 'a:b', hosts: ['https://x']}\n",
			want: []string{`c.yaml:1: listen: "8080" is not host:port, like 127.0.0.1:8080 or :8080`, `c.yaml:2: ops.listen: "a:b" has no port`, `c.yaml:2: ops.hosts[0]: "https://x" is not a host name`},
		},
		{
			name: "TLS", file: "tls:\n  key: k.pem\n  acme:\n    hosts: [localhost, Events.example.com]\n    cache: ''\n    directory: http://x\n",
			want: []string{
				"c.yaml:1: tls.cert: is empty; it is the file of the certificate", `c.yaml:4: tls.acme.hosts[0]: "localhost" is not the full name of a host in lower case`,
				`c.yaml:4: tls.acme.hosts[1]: "Events.example.com" is not`, "c.yaml:5: tls.acme.cache: is empty", `c.yaml:6: tls.acme.directory: "http://x" is not a URL that begins with https://`,
			},
		},
		{name: "TLS without a key", file: "tls: {cert: c.pem}\n", want: []string{"c.yaml:1: tls.key: is empty; it is the file of the key"}},
		{name: "TLS twice", file: "tls: {cert: c.pem, key: k.pem, acme: {hosts: [a.example.com]}}\n", want: []string{"c.yaml:1: tls.acme.hosts: is there beside tls.cert"}},
		{
			name: "proxies", file: "proxy:\n  trusted: [10.0.0.1/8, localhost]\n  header: via\n",
			want: []string{
				`c.yaml:2: proxy.trusted[0]: "10.0.0.1/8" is not an address like 10.1.2.3, a prefix like 10.0.0.0/8, or unix`, `c.yaml:2: proxy.trusted[1]: "localhost" is not`,
				`c.yaml:3: proxy.header: "via" is not known; it is x-forwarded-for or forwarded or none`,
			},
		},
		{name: "a PROXY header of nobody", file: "proxy: {protocol: true}\n", want: []string{"c.yaml:1: proxy.protocol: is on, but nobody is trusted"}},
		{
			name: "the operator's keys", file: "ops:\n  keys:\n    - ck_abc_def\n    - abc\n  key_file: /nowhere\n",
			want: []string{"c.yaml:3: ops.keys[0]: is an API key itself", "c.yaml:4: ops.keys[1]: is not a line <id>:<sha256 in hex>", "c.yaml:5: ops.key_file: stat /nowhere: no such file"},
		},
		{
			name: "before a request", file: "limits: {handshakes: 0, proxy_header_bytes: 107B}\nconnection: {handshake_timeout: 0s, header_timeout: 0s}\n",
			want: []string{
				"c.yaml:1: limits.proxy_header_bytes: is 107B; it is from 256B to 64KiB", "c.yaml:1: limits.handshakes: is 0; it is from 1 to 1000000",
				"c.yaml:2: connection.handshake_timeout: is 0s; it is at least 100ms", "c.yaml:2: connection.header_timeout: is 0s",
			},
		},
		{name: "same port", file: "listen: :8081\nops: {listen: ':8081'}\n", want: []string{"c.yaml:2: ops.listen: is the public port :8081 too"}},
		{
			name: "relations", file: "engine: {retention: {age: 2m}}\nconnection: {max_idle: 2m}\npoll: {wait_default: 31s}\ndrain: {window: 1m}\nlimits: {event_bytes: 1MB, request_bytes: 500KB}\n",
			want: []string{
				"c.yaml:1: engine.dedupe_window: is 5m, longer than events are kept (engine.retention.age, 2m)", "c.yaml:2: connection.dead_after: is 1m; it is more than connection.max_idle (2m)",
				"c.yaml:3: poll.wait_default: is 31s, more than poll.wait_max (30s)", "c.yaml:4: drain.window: is 1m, longer than drain.deadline (30s)", "c.yaml:5: limits.event_bytes: is 1MB, more than a whole request may have (limits.request_bytes, 500KB)",
			},
		},
		{
			name: "nats", file: "engine:\n  kind: memory\n  nats:\n    url: 'nats://a:1, http://b'\n    cert: x\n    prefix: A\n    replicas: 2\n",
			want: []string{
				"c.yaml:4: engine.nats.url: is for kind jetstream; this is memory", "c.yaml:4: engine.nats.url: has a part that is not nats://host:port",
				"c.yaml:5: engine.nats.cert: and engine.nats.key come together", `c.yaml:6: engine.nats.prefix: "A" is not 1–32 of a–z`, "c.yaml:7: engine.nats.replicas: is 2; it is 1, 3 or 5",
			},
		},
		{
			name: "nats user", file: "engine: {nats: {url: 'nats://u:p@a:1'}}\n",
			want: []string{"c.yaml:1: engine.nats.url: has a user or a password in it; name a file"},
		},
		{name: "nats without url", file: "engine: {nats: {creds: x}}\n", want: []string{"c.yaml:1: engine.nats.creds: is for an external server; set engine.nats.url to it"}},
		{
			name: "bytes of an org", file: "engine: {retention: {bytes_per_org: 1KB}}\norgs: [{id: a, retention: {bytes: 2KB}}]\n",
			want: []string{
				"c.yaml:1: engine.retention.bytes_per_org: is 1KB; it is 0 for no limit, or at least 1MiB",
				"c.yaml:2: orgs[0].retention.bytes: is 2KB; it is 0 for no limit, or at least 1MiB",
			},
		},
		{
			name: "waits of polls", file: "poll:\n  wait_max: 6m\n  wait_default: 500ms\n",
			want: []string{
				"c.yaml:2: poll.wait_max: is 6m; proxies cut a request that is silent so long; it is at most 5m",
				"c.yaml:3: poll.wait_default: is 500ms; it is whole seconds, at least 1s",
			},
		},
		{
			name: "what stays of polls", file: "poll:\n  gather: 2s\n  linger: 61s\nlimits: {poll_sessions: 0, verified_tokens: -1}\n",
			want: []string{
				"c.yaml:2: poll.gather: is 2s; it is from 0s to 1s", "c.yaml:3: poll.linger: is 1m1s; it is from 0s to 1m",
				"c.yaml:4: limits.verified_tokens: is -1; it is from 0 to 10000000", "c.yaml:4: limits.poll_sessions: is 0; it is from 1 to 10000000",
			},
		},
		{
			name: "waits of polls that are no whole seconds", file: "poll:\n  wait_max: 1500ms\n  wait_default: 0s\n",
			want: []string{"c.yaml:2: poll.wait_max: is 1.5s; it is whole seconds, at least 1s", "c.yaml:3: poll.wait_default: is 0s; it is whole seconds, at least 1s"},
		},
		{
			name: "a log that takes everything", file: "engine:\n  retention:\n    bytes: 0\n",
			want: []string{"c.yaml:3: engine.retention.bytes: is 0; it is at least 1MiB: a log without a limit fills the disk"},
		},
		{
			name: "limits of the node", file: "limits:\n  connections_per_node: -1\n  publish_in_flight: 0\n  publish_in_flight_bytes: 1B\n",
			want: []string{
				"c.yaml:2: limits.connections_per_node: is -1; it is 0 for no limit, or more", "c.yaml:3: limits.publish_in_flight: is 0; it is from 1 to 100000000",
				"c.yaml:4: limits.publish_in_flight_bytes: is 1B; it is from 1KiB to 1TiB",
			},
		},
		{
			name: "orgs", file: "orgs:\n- id: A\n- id: b\n- id: b\n  limits: {connections: -1}\n- {}\n",
			want: []string{`c.yaml:2: orgs[0].id: org "A": only a–z`, "c.yaml:4: orgs[2].id: b is there twice", "c.yaml:5: orgs[2].limits.connections: is -1; it is 0 for no limit, or more", "c.yaml:6: orgs[3].id: an org is 1–64 characters"},
		},
		{
			name: "keys", file: "orgs:\n- id: a\n  keys:\n  - ck_abc_def\n  - x\n  - k1:" + hash + "\n- id: b\n  keys: ['k1:" + hash + "', 'k2:" + hash[1:] + "']\n",
			want: []string{
				"c.yaml:4: orgs[0].keys[0]: is an API key itself; put its hash line here", "c.yaml:5: orgs[0].keys[1]: is not a line <id>:<sha256 in hex>",
				"c.yaml:8: orgs[1].keys[0]: key k1 is there twice, also at orgs[0].keys[2]", "c.yaml:8: orgs[1].keys[1]: is not a line",
			},
		},
		{
			name: "issuers", file: "issuers:\n- orgs: ['*', a]\n  secrets: [short]\n- orgs: []\n  algorithms: [none]\n  org_claim: sub\n- issuer: x\n  orgs: ['*']\n  secret_env: NOT_SET\n- issuer: x\n  orgs: ['*']\n  secret_file: /no/such\n",
			want: []string{
				"c.yaml:2: issuers[0].orgs[0]: * means all; it stands alone", `c.yaml:2: issuers[0].orgs[1]: "a" is not one of 'orgs'`, "c.yaml:3: issuers[0].secrets[0]: the secret has 5 bytes; HS256 needs at least 32",
				"c.yaml:4: issuers[1].issuer: only one issuer can be without a name; issuers[0] is", "c.yaml:4: issuers[1]: has no key; set secret_env, secret_file or secrets, public_key_files, or jwks_url", "c.yaml:4: issuers[1].orgs: names nobody",
				`c.yaml:5: issuers[1].algorithms[0]: "none" is not supported; it is HS256, RS256, ES256 or EdDSA`, "c.yaml:6: issuers[1].org_claim: sub means something else in a token",
				"c.yaml:9: issuers[2].secret_env: NOT_SET is not set in the environment; set it to a secret of at least 32 bytes", `c.yaml:10: issuers[3].issuer: "x" is issuers[2] too`, "c.yaml:12: issuers[3].secret_file: stat /no/such: no such file",
			},
		},
		{
			name: "keys at a URL", file: "issuers:\n- {issuer: a, orgs: ['*'], jwks_url: 'http://id.example/keys'}\n- {issuer: b, orgs: ['*'], jwks_url: 'https://u:p@id.example/keys'}\n- {issuer: c, orgs: ['*'], jwks_url: /keys}\n" +
				"- {issuer: d, orgs: ['*'], jwks_url: 'file://h/etc/passwd', allow_private: true}\n- {issuer: e, orgs: ['*'], jwks_url: 'http://10.0.0.1/keys', allow_private: true, algorithms: [RS256, HS256]}\n- {issuer: f, orgs: ['*'], secrets: [" + strings.Repeat("s", 32) + "], allow_private: true}\n",
			want: []string{
				"c.yaml:2: issuers[0].jwks_url: is not https, so whoever is on the way could put keys in", "c.yaml:3: issuers[1].jwks_url: has a name or password in it", "c.yaml:4: issuers[2].jwks_url: is not a URL like https://",
				"c.yaml:5: issuers[3].jwks_url: is not https", "c.yaml:6: issuers[4].algorithms[1]: HS256 needs a secret, and there is none", "c.yaml:7: issuers[5].allow_private: is for jwks_url, and there is none",
			},
		},
		{
			name: "algorithms", file: "issuers:\n- {issuer: a, orgs: ['*'], secrets: [" + strings.Repeat("s", 32) + "], algorithms: [RS256]}\n- {issuer: b, orgs: ['*'], secrets: ['-----BEGIN PUBLIC KEY-----" + strings.Repeat("A", 32) + "']}\n",
			want: []string{
				"c.yaml:2: issuers[0].algorithms[0]: there is no key for RS256 in public_key_files", "c.yaml:2: issuers[0].algorithms: has no HS256, which its keys are for",
				"c.yaml:3: issuers[1].secrets[0]: is a key in PEM, which is no secret: everybody could sign with a public one",
			},
		},
		{
			name: "freshness of keys", file: "jwks: {refresh: 5s, max_stale: 2s, min_interval: 10s, timeout: 0s}\nconnection: {token_spread: 0s}\nlimits: {jwks_keys: 0, jwks_bytes: 1B}\n",
			want: []string{
				"c.yaml:1: jwks.timeout: is 0s; it is at least 100ms", "c.yaml:1: jwks.refresh: is 5s, less than jwks.min_interval (10s)", "c.yaml:1: jwks.max_stale: is 2s, less than jwks.refresh (5s)",
				"c.yaml:2: connection.token_spread: is 0s; it is at least 100ms", "c.yaml:3: limits.jwks_bytes: is 1B; it is from 1KiB to 16MiB", "c.yaml:3: limits.jwks_keys: is 0; it is from 1 to 10000",
			},
		},
		{
			name: "origins", file: "origins:\n- '*'\n- 'null'\n- https://*.example\n- app.example\n- https://App.example/\n- http://a.example:80\n- https://a.example\n- http://[::1]:3000\n- https://u@a.example\n",
			want: []string{
				`c.yaml:2: origins[0]: "*": there are no wildcards; list the origins one by one`, "c.yaml:3: origins[1]: null may be any page", "c.yaml:4: origins[2]: ", `c.yaml:5: origins[3]: "app.example" is not scheme://host`,
				`c.yaml:6: origins[4]: "https://App.example/": browsers send this origin as https://app.example`, `c.yaml:7: origins[5]: "http://a.example:80": browsers send this origin as http://a.example`, `c.yaml:10: origins[8]: `,
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := config.Parse("c.yaml", []byte(tc.file), tc.env)
			var e *config.Error
			if !errors.As(err, &e) {
				t.Fatalf("error is %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			for i, want := range tc.want {
				if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
					t.Errorf("line %d of the error is not\n %s\nin\n%s", i+1, want, err)
				}
			}
			if len(lines) > len(tc.want) {
				t.Errorf("more problems than expected:\n%s", strings.Join(lines[len(tc.want):], "\n"))
			}
		})
	}
}

func TestRatesAreNotNegative(t *testing.T) {
	less := config.Size(-1)
	c := config.Default()
	c.Orgs = []config.Org{{ID: "a", Limits: config.OrgLimits{PublishBytesPerSecond: &less}}}
	c.Limits.PublishBytesPerSecond = less
	var e *config.Error
	if err := c.Validate(); !errors.As(err, &e) || len(e.Problems) != 2 ||
		e.Problems[0].Path != "orgs[0].limits.publish_bytes_per_second" || e.Problems[1].Path != "limits.publish_bytes_per_second" {
		t.Errorf("%v", err)
	}
}

func TestSecretsComeFromFileEnvironmentAndTheFileItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(strings.Repeat("f", 40)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf("issuers: [{orgs: ['*'], secrets: [%s], secret_env: S, secret_file: %s}]", strings.Repeat("i", 33), path)
	c, err := config.Parse("c.yaml", []byte(file), []string{"S=" + strings.Repeat("e", 32)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range c.Issuers[0].Keys() {
		got = append(got, string(k))
	}
	want := []string{strings.Repeat("i", 33), strings.Repeat("e", 32), strings.Repeat("f", 40)}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !c.Issuers[0].Any() {
		t.Error("* is not any")
	}

	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = config.Parse("c.yaml", []byte(file), []string{"S=tiny"})
	for _, want := range []string{"secret_env: the secret has 4 bytes", "secret_file: the secret has 5 bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "tiny") || strings.Contains(err.Error(), "short")) {
		t.Errorf("the error tells a secret: %v", err)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	const secret = "correct-horse-battery-staple-and-more"
	c, err := config.Parse("", []byte("issuers: [{orgs: ['*'], secrets: ["+secret+"], secret_env: S}]"), []string{"S=" + secret})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "%v %+v %#v %s %q", c.Issuers[0].Secrets[0], c.Issuers[0].Secrets, c.Issuers[0].Secrets, c.Issuers[0].Secrets, c.Issuers[0].Secrets[0])
	if strings.Contains(out.String(), secret) {
		t.Errorf("the secret is in\n%s", out.String())
	}
	if !strings.Contains(out.String(), "(secret)") {
		t.Errorf("nothing says that there is one in\n%s", out.String())
	}
}

func TestPrintIsAFileAgain(t *testing.T) {
	c, err := config.Parse("example.yaml", config.Example(), append(secretEnv, "CARILLON_LIMITS_RING_BYTES=12345678", "CARILLON_SSE_RETRY=1500ms"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	again, err := config.Parse("printed.yaml", out.Bytes(), secretEnv)
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if d := cmp.Diff(c, again, opts); d != "" {
		t.Errorf("%s in\n%s", d, out.String())
	}
}

func TestLoad(t *testing.T) {
	if _, err := config.Load("/no/such/file", nil); err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("a missing file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("data: here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path, nil)
	if err != nil || c.Data != "here" {
		t.Errorf("%+v, %v", c, err)
	}
	if err := os.Truncate(path, 5<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path, nil); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestValidateAfterFlags(t *testing.T) {
	c := config.Default()
	c.Listen = "nonsense"
	if err := c.Validate(); err == nil || err.Error() != `listen: "nonsense" is not host:port, like 127.0.0.1:8080 or :8080` {
		t.Errorf("error is %v", err)
	}
}

// Aliases make much of little; the file's list limits hold for what they stand for.
func TestAliases(t *testing.T) {
	c, err := config.Parse("", []byte("orgs:\n- &o {id: a, keys: []}\norigins: &x [https://a.example]\nops: {hosts: []}\n"), nil)
	if err != nil || len(c.Orgs) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	var b strings.Builder
	b.WriteString("origins: &l [" + strings.Repeat("https://a.example,", 9_999) + "https://a.example]\norgs:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "- {id: a%d, keys: *l}\n", i)
	}
	_, err = config.Parse("c.yaml", []byte(b.String()), nil)
	var e *config.Error
	if !errors.As(err, &e) || len(e.Problems) != 101 {
		t.Fatalf("a bomb of aliases is accepted, or tells too much: %v", err)
	}
	if last := e.Problems[100].Message; !strings.HasSuffix(last, " problems more") {
		t.Errorf("the last line is %q", last)
	}
}

func TestOperatorKeysMayStandInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	line := func(id string) string { return id + ":" + strings.Repeat("0", 64) }
	if err := os.WriteFile(file, []byte(line("b")+"\n"+line("c")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "ops:\n  key_file: " + file + "\n  keys: [\"" + line("a") + "\"]\n"
	c, err := config.Parse("c.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{line("a"), line("b"), line("c")}, c.Ops.OperatorKeys()); d != "" {
		t.Error(d)
	}
	if err := os.WriteFile(file, []byte(line("a")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = config.Parse("c.yaml", []byte(text), nil); err == nil || !strings.Contains(err.Error(), "ops.key_file: key a is there twice, also at ops.keys[0]") {
		t.Errorf("got %v", err)
	}
}
