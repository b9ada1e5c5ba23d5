package provider_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
	"github.com/carillon-rt/carillon/internal/wire"
)

const (
	ofJSON = "application/json"
	ofForm = "application/x-www-form-urlencoded; charset=utf-8"
)

func TestADeliveryIsCalledWhatItsProviderCallsIt(t *testing.T) {
	fields := generic(provider.Generic{Header: "x", IDHeader: "X-Id", IDField: "data.id", EventHeader: "X-Event", EventField: "data.kind"})
	gh := func(event string) http.Header { return header("X-GitHub-Event", event, "X-GitHub-Delivery", "d1") }
	for _, tt := range []struct {
		what      string
		cfg       provider.Config
		h         http.Header
		typ       string
		body      string
		id, event string
		payload   string // "": the body
	}{
		{"github", provider.Config{Kind: "github"}, gh("push"), ofJSON, `{"ref":"x"}`, "d1", "push", ""},
		{"github with action", provider.Config{Kind: "github"}, gh("pull_request"), ofJSON, `{"action":"opened"}`, "d1", "pull_request.opened", ""},
		{"github with an action deeper", provider.Config{Kind: "github"}, gh("push"), ofJSON, `{"x":{"action":"opened"}}`, "d1", "push", ""},
		{"github with an action that is no string", provider.Config{Kind: "github"}, gh("push"), ofJSON, `{"action":1}`, "d1", "push", ""},
		{"github with an escaped action", provider.Config{Kind: "github"}, gh("issues"), ofJSON, `{"\u0061ction":"o\u0070ened"}`, "d1", "issues.opened", ""},
		{"github as a form", provider.Config{Kind: "github"}, gh("issues"), ofForm, "payload=%7B%22action%22%3A+%22closed%22%7D", "d1", "issues.closed", `{"action":"closed"}`},
		{"github with an empty action", provider.Config{Kind: "github"}, gh("push"), ofJSON, `{"action":""}`, "d1", "push", ""},
		{"github with an id that cannot be one", provider.Config{Kind: "github"}, header("X-GitHub-Event", "push", "X-GitHub-Delivery", "a\x01"), ofJSON, `{}`, "", "push", ""},
		{"github ping", provider.Config{Kind: "github"}, gh("ping"), ofJSON, `{"zen":"x","hook_id":1}`, "d1", "ping", ""},

		{"stripe", provider.Config{Kind: "stripe"}, nil, "application/json; charset=utf-8", `{"id":"evt_1","type":"invoice.paid"}`, "evt_1", "invoice.paid", ""},
		{"stripe, thin", provider.Config{Kind: "stripe"}, nil, ofJSON, `{"object":"v2.core.event","type":"v1.billing.meter.no_meter_found","id":"evt_2"}`, "evt_2", "v1.billing.meter.no_meter_found", ""},
		{"stripe without type", provider.Config{Kind: "stripe"}, nil, ofJSON, `{"data":{"id":"no","type":"no"}}`, "", "event", ""},
		{"stripe with an id that cannot be one", provider.Config{Kind: "stripe"}, nil, ofJSON, `{"id":"a\u0000","type":"a"}`, "", "a", ""},

		{"slack event", provider.Config{Kind: "slack"}, nil, ofJSON, `{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention","event_id":"no"}}`, "Ev1", "app_mention", ""},
		{"slack event without type", provider.Config{Kind: "slack"}, nil, ofJSON, `{"type":"event_callback","event_id":"Ev1","event":{}}`, "Ev1", "event_callback", ""},
		{"slack over its limit", provider.Config{Kind: "slack"}, nil, ofJSON, `{"type":"app_rate_limited"}`, "", "app_rate_limited", ""},
		{"slack command", provider.Config{Kind: "slack"}, nil, ofForm, "command=%2Fring&text=a+%26+b", "", "command", `{"command":"/ring","text":"a & b"}`},
		{"slack command with an event_id", provider.Config{Kind: "slack"}, nil, ofForm, "command=%2Fring&event_id=Ev1", "", "command", `{"command":"/ring","event_id":"Ev1"}`},
		{"slack interaction", provider.Config{Kind: "slack"}, nil, ofForm, "payload=%7B%22type%22%3A%22block_actions%22%7D", "", "interactive.block_actions", `{"type":"block_actions"}`},
		{"slack interaction with a command besides", provider.Config{Kind: "slack"}, nil, ofForm, "command=x&payload=%7B%7D", "", "interactive", `{}`},
		{"slack interaction that has a command", provider.Config{Kind: "slack"}, nil, ofForm, `payload={"command":"x","type":"shortcut"}`, "", "interactive.shortcut", `{"command":"x","type":"shortcut"}`},
		{"slack, JSON that says it is a form", provider.Config{Kind: "slack"}, nil, ofForm, `{"event_id":"Ev1"}`, "", "event", `{"{\"event_id\":\"Ev1\"}":""}`},
		{"stripe, JSON that says it is a form", provider.Config{Kind: "stripe"}, nil, ofForm, `{"id":"evt_1"}`, "", "event", `{"{\"id\":\"evt_1\"}":""}`},
		{"slack, another form", provider.Config{Kind: "slack"}, nil, ofForm, "a=b", "", "event", `{"a":"b"}`},

		{"standard", provider.Config{Kind: "standard"}, header("webhook-id", "msg_1"), ofJSON, `{"type":"user.created"}`, "msg_1", "user.created", ""},
		{"svix", provider.Config{Kind: "standard"}, header("svix-id", "msg_1", "svix-signature", "v1,x"), ofJSON, `{"type":"user.created"}`, "msg_1", "user.created", ""},
		{"standard without type", provider.Config{Kind: "standard"}, header("webhook-id", "msg_1"), ofJSON, `[1]`, "msg_1", "event", ""},

		{"generic, from headers", fields, header("X-Id", "h1", "X-Event", "Push Hook"), ofJSON, `{"data":{"id":"b1"}}`, "h1", "Push_Hook", ""},
		{"generic, from the body", fields, nil, ofJSON, `{"data":{"id":"b1","kind":"order.paid"}}`, "b1", "order.paid", ""},
		{"generic, from both", fields, header("X-Event", "order"), ofJSON, `{"data":{"id":1e2,"kind":"paid"}}`, "1e2", "order.paid", ""},
		{"generic, from neither", fields, nil, ofJSON, `{"data":[{"id":"b1"}]}`, "", "event", ""},
		{"generic, an id that is an object", fields, nil, ofJSON, `{"data":{"id":{},"kind":true}}`, "", "event", ""},
		{"generic, unset", generic(provider.Generic{Header: "x"}), header("X-Id", "h1"), "text/plain", ` 1 `, "", "event", "1"},
		{"generic, empty", fields, header("X-Id", "h1"), "", "", "h1", "event", "null"},
		{"generic, a form", generic(provider.Generic{Header: "x", IDField: "id", EventField: "kind"}), nil, ofForm, "id=7&kind=a.b&x=1&x=2&%3Cb%3E", "7", "a.b", `{"id":"7","kind":"a.b","x":["1","2"],"<b>":""}`},
		{"generic, a form with its id twice", generic(provider.Generic{Header: "x", IDField: "id"}), nil, ofForm, "id=7&id=8", "", "event", `{"id":["7","8"]}`},
		{"generic, an empty form", generic(provider.Generic{Header: "x"}), nil, ofForm, "", "", "event", `{}`},
		{"generic, a form with payload", generic(provider.Generic{Header: "x"}), nil, ofForm, "payload=%7B%7D", "", "event", `{"payload":"{}"}`},

		{
			"as it was sent, but for whitespace",
			provider.Config{Kind: "stripe"},
			nil, ofJSON, " {\n\t\"id\" : \"evt 1\",\r\n\"n\": [ 1.00, -0, 1E+2, 12345678901234567890 ], \"b\":{}, \"a\":\"\\u0041 \\/ \\ud83d\\ude00 <&> ü\" } \n",
			"evt 1", "event", `{"id":"evt 1","n":[1.00,-0,1E+2,12345678901234567890],"b":{},"a":"\u0041 \/ \ud83d\ude00 <&> ü"}`,
		},
	} {
		t.Run(tt.what, func(t *testing.T) {
			p := newProvider(t, tt.cfg)
			d, err := p.Read(tt.h, tt.typ, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.payload == "" {
				tt.payload = tt.body
			}
			if d.ID != tt.id || d.Event != tt.event || string(d.Payload) != tt.payload || d.Challenge != "" || d.Retry != 0 {
				t.Errorf("it is %q, %q, %s, %+v", d.ID, d.Event, d.Payload, d)
			}
			if id := p.ID(tt.h, tt.typ, []byte(tt.body)); id != d.ID {
				t.Errorf("before it is read it is %q", id)
			}
		})
	}
}

func TestSlackTriesAnAddressOutAndSendsAgain(t *testing.T) {
	p := of(t, provider.KindSlack)
	d, err := p.Read(header("X-Slack-Retry-Num", "2"), ofJSON, []byte(`{"type":"url_verification","challenge":"a\u0062c"}`))
	if err != nil || d.Challenge != "abc" || d.Retry != 2 || d.Event != "url_verification" {
		t.Errorf("it is %+v, %v", d, err)
	}
	for what, body := range map[string]string{
		"another type":       `{"type":"event_callback","challenge":"abc"}`,
		"of the event alone": `{"event":{"type":"url_verification","challenge":"abc"}}`,
		"no string":          `{"type":"url_verification","challenge":["abc"]}`,
	} {
		if d, err := p.Read(nil, ofJSON, []byte(body)); err != nil || d.Challenge != "" {
			t.Errorf("%s: %+v, %v", what, d, err)
		}
	}
	if d, err := p.Read(nil, ofForm, []byte("type=url_verification&challenge=abc")); err != nil || d.Challenge != "" {
		t.Errorf("a form: %+v, %v", d, err)
	}
	if _, err := p.Read(nil, ofJSON, []byte(`{"type":"url_verification","challenge":"`+strings.Repeat("x", 1025)+`"}`)); err == nil {
		t.Error("a challenge of 1025 bytes would be repeated")
	}
	for _, n := range []string{"", "-1", "1x", "1000", " 1"} {
		if d, err := p.Read(header("X-Slack-Retry-Num", n), ofJSON, []byte(`{}`)); err != nil || d.Retry != 0 {
			t.Errorf("the retry %q is %+v, %v", n, d, err)
		}
	}
	for _, kind := range []provider.Kind{provider.KindStripe, provider.KindGitHub} { // it is Slack's word
		if d, err := of(t, kind).Read(header("X-Slack-Retry-Num", "1"), ofJSON, []byte(`{"type":"url_verification","challenge":"abc"}`)); err != nil || d.Challenge != "" || d.Retry != 0 {
			t.Errorf("%s: %+v, %v", kind, d, err)
		}
	}
}

func TestWhatTheLogWouldRefuseCannotBeRead(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	keys := func(n int) string { return `{` + strings.TrimSuffix(strings.Repeat(`"k":{},`, n), ",") + `}` }
	for _, tt := range []struct {
		what string
		kind provider.Kind
		typ  string
		body string
		want string
	}{
		{"empty", "github", ofJSON, "", "not JSON"},
		{"empty", "slack", "", "", "not JSON"},
		{"text", "generic", "text/plain", "hello", "not JSON"},
		{"a form that says it is JSON", "slack", ofJSON, "a=b", "not JSON"},
		{"JSON that is cut", "stripe", ofJSON, `{"a":`, "at byte"},
		{"two values", "stripe", ofJSON, `{} {}`, "at byte"},
		{"not UTF-8", "stripe", ofJSON, "\"\xff\"", "not UTF-8"},
		{"half a pair", "stripe", ofJSON, `"\ud83d"`, "surrogate"},
		{"the other half", "stripe", ofJSON, `["\\\ude00"]`, "surrogate"},
		{"halves in the wrong order", "stripe", ofJSON, `"\ude00\ud83d"`, "surrogate"},
		{"half a pair before an escape", "stripe", ofJSON, `"\ud83d\n0000"`, "surrogate"},
		{"half a pair in a key", "stripe", ofJSON, `{"\ud83d":1}`, "surrogate"},
		{"a key twice", "stripe", ofJSON, `{"a":1,"b":2,"a":3}`, `the key "a" is there twice`},
		{"a key twice, spelled differently", "stripe", ofJSON, `{"a":1,"\u0061":3}`, "twice"},
		{"a key twice, deep", "stripe", ofJSON, `[{"x":[{"y":1,"y":2}]}]`, `"y"`},
		{"a key twice around an object", "stripe", ofJSON, `{"a":{"b":1,"c":[]},"d":1,"a":1}`, `"a"`},
		{"many keys twice", "stripe", ofJSON, keys(70000), "more than 65536 keys"},
		{"deep", "stripe", ofJSON, deep(129), "deeper than 128"},
		{"very deep", "stripe", ofJSON, deep(1_000_000), "not JSON"},
		{"a form without payload", "github", ofForm, "a=b", "no field payload"},
		{"a form with two payloads", "github", ofForm, "payload=%7B%7D&payload=%7B%7D", "more than once"},
		{"a form with a bad payload", "slack", ofForm, "payload=%7B", "the field payload"},
		{"a form with a key twice in its payload", "slack", ofForm, `payload={"a":1,"a":1}`, "twice"},
		{"a form with a bad escape", "generic", ofForm, "a=%zz", "field 1"},
		{"a form that is not UTF-8", "generic", ofForm, "a=b&%ff=1", "field 2"},
		{"a form with many fields", "generic", ofForm, strings.Repeat("a=b&", 1001), "more than 1000"},
	} {
		d, err := of(t, tt.kind).Read(nil, tt.typ, []byte(tt.body))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "provider: ") {
			t.Errorf("%s %s: it is %+v, the error is %v, want one with %q", tt.kind, tt.what, d, err, tt.want)
		}
	}
	if _, err := provider.Compact([]byte(deep(128))); err != nil {
		t.Errorf("128 deep: %v", err)
	}
	if _, err := provider.Compact([]byte(`[{"a":1},{"a":1},{"a":{"a":{"a":1}}}]`)); err != nil {
		t.Errorf("a key in several objects: %v", err)
	}
}

// The depth is the log's own: what wire takes can be read, and what it does not
// cannot.
func TestTheDepthIsTheLogs(t *testing.T) {
	for n, want := range map[int]bool{wire.MaxDepth: true, wire.MaxDepth + 1: false} {
		_, err := provider.Compact([]byte(strings.Repeat("[", n) + strings.Repeat("]", n)))
		if (err == nil) != want {
			t.Errorf("%d deep: %v", n, err)
		}
	}
}

func TestAnEventIsTheEndOfAType(t *testing.T) {
	long := strings.Repeat("x", 200)
	for said, want := range map[string]string{
		"":                                  "event",
		"push":                              "push",
		"pull_request.opened":               "pull_request.opened",
		"invoice.paid":                      "invoice.paid",
		"repo:push":                         "repo_push",
		"Push Hook":                         "Push_Hook",
		"orders/create":                     "orders_create",
		"a-b.C_d.9":                         "a-b.C_d.9",
		".":                                 "_._",
		"a.":                                "a._",
		".a":                                "_.a",
		"a..b":                              "a._.b",
		"ä":                                 "_",
		"\xff\xfe":                          "__",
		"*":                                 "_",
		"a.>":                               "a._",
		"a\nb":                              "a_b",
		"a.b.c.d.e.f.g.h.i.j.k.l":           "a.b.c.d.e.f.g.h.i.j.k.l",
		"1.2.3.4.5.6.7.8.9.0.1.2.":          "1.2.3.4.5.6.7.8.9.0.1.2_",
		"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q": "a.b.c.d.e.f.g.h.i.j.k.l_m_n_o_p_q",
		long:                                long[:150],
		long[:149] + ".x":                   long[:149] + "_",
		long[:148] + ".x":                   long[:148] + ".x",
		long[:148] + "..":                   long[:148] + "._",
		long[:148] + "..x":                  long[:148] + "._",
		long[:150] + ".":                    long[:150],
	} {
		got := provider.EventName(said)
		if got != want {
			t.Errorf("%q is %q, want %q", said, got, want)
		}
		if _, err := carillon.ParseType("src." + got); err != nil {
			t.Errorf("%q: %v", said, err)
		}
	}
}

func TestFindReadsNoMoreThanThereIs(t *testing.T) {
	for _, tt := range []struct{ text, path, want string }{
		{`{"a":1}`, "a", "1"},
		{`{"a":1 }`, "a", "1"},
		{` { "a" : "x" , "b" : [ {"c":1} ] }`, "b", `[ {"c":1} ]`},
		{`{"x":"}\"]","a":{"b":"c\\"}}`, "a.b", `"c\\"`},
		{`{"a":{"b":1},"a":{"b":2}}`, "a.b", "1"},
		{`{"a":null}`, "a", "null"},
		{`{"a":null}`, "a.b", ""},
		{`{}`, "a", ""},
		{`[{"a":1}]`, "a", ""},
		{``, "a", ""},
		{`{`, "a", ""},
		{`{"`, "a", ""},
		{`{"a`, "a", ""},
		{`{"a"`, "a", ""},
		{`{"a":`, "a", ""},
		{`{"a":1`, "a", ""},
		{`{"a":"\"`, "a", ""},
		{`{"a":[}`, "a", "[}"},
		{`{"a":}`, "a", ""},
		{`{"a":,}`, "a", ""},
		{`{"b":1 "a":2}`, "a", ""},
		{`{"b":1,,"a":2}`, "a", ""},
		{`{1:1,"a":2}`, "a", ""},
		{strings.Repeat(`{"a":`, 1_000_000), "a", ""},
	} {
		if got := provider.Find([]byte(tt.text), strings.Split(tt.path, ".")...); string(got) != tt.want {
			t.Errorf("%s in %s is %s, want %s", tt.path, clip(tt.text), got, tt.want)
		}
	}
}

// Of every sample, and of one with whitespace, Peek says what Read says.
func TestPeekSaysWhatReadSays(t *testing.T) {
	for _, kind := range provider.Kinds() {
		cfg := provider.Config{Kind: kind}
		if kind == provider.KindGeneric {
			cfg.Generic = provider.Generic{Header: "X-Signature", EventField: "type", IDField: "id"}
		}
		p, err := provider.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range provider.Samples(kind) {
			contentType, body, err := provider.Sample(kind, event, "id-1")
			if err != nil {
				t.Fatal(err)
			}
			bodies := [][]byte{body}
			var indented bytes.Buffer
			if json.Indent(&indented, body, "", "  ") == nil {
				bodies = append(bodies, indented.Bytes())
			}
			for _, body := range bodies {
				h := http.Header{"Content-Type": {contentType}}
				key := []byte("it is no secret here")
				if kind == provider.KindStandard {
					key = []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
				}
				if err := p.Sign(h, body, "id-1", event, provider.Secret{Key: key}, time.Now()); err != nil {
					t.Fatal(err)
				}
				read, err := p.Read(h, contentType, body)
				if err != nil {
					t.Fatal(err)
				}
				peeked := p.Peek(h, contentType, body)
				if peeked.ID != read.ID || peeked.Event != read.Event || peeked.Challenge != read.Challenge {
					t.Errorf("%s %s: %+v; Read says %q %q %q", kind, event, peeked, read.ID, read.Event, read.Challenge)
				}
			}
		}
	}
}
