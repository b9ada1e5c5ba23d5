package provider_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

func TestSamplesAreDeliveries(t *testing.T) {
	want := map[provider.Kind]map[string]string{
		provider.KindGitHub: {
			"issues": "issues.labeled", "ping": "ping", "pull_request": "pull_request.opened", "push": "push",
			"release": "release.published", "workflow_run": "workflow_run.completed",
		},
		provider.KindStripe: {
			"checkout.session.completed": "checkout.session.completed", "invoice.paid": "invoice.paid", "payment_intent.succeeded": "payment_intent.succeeded",
			"v1.billing.meter.error_report_triggered": "v1.billing.meter.error_report_triggered",
		},
		provider.KindSlack: {
			"app_mention": "app_mention", "app_rate_limited": "app_rate_limited", "block_actions": "interactive.block_actions",
			"command": "command", "url_verification": "url_verification",
		},
		provider.KindStandard: {"user.created": "user.created"},
		provider.KindGeneric:  {"event": "order.shipped"},
	}
	hasID := []string{"app_mention"} // of Slack's
	for _, kind := range provider.Kinds() {
		p := of(t, kind)
		if kind == provider.KindGeneric {
			p = newProvider(t, generic(provider.Generic{Header: "x", IDField: "id", EventField: "type"}))
		}
		names := provider.Samples(kind)
		if len(names) != len(want[kind]) || !slices.IsSorted(names) {
			t.Errorf("%s: the samples are %q", kind, names)
		}
		right, _ := keys(kind)
		for _, name := range names {
			for _, id := range []string{"", "test-17"} {
				typ, body, err := provider.Sample(kind, name, id)
				if err != nil {
					t.Fatal(err)
				}
				h := http.Header{}
				if err := p.Sign(h, body, "test-17", name, secrets(right)[0], now); err != nil {
					t.Fatal(err)
				}
				if why := judge(p, h, string(body), now, right); why != "" {
					t.Errorf("%s %s: it is refused: %s", kind, name, why)
				}
				d, err := p.Read(h, typ, body)
				if err != nil || d.Event != want[kind][name] {
					t.Errorf("%s %s: it is %+v, %v", kind, name, d, err)
					continue
				}
				wantID := kind != provider.KindSlack || slices.Contains(hasID, name)
				if (d.ID != "") != wantID || id != "" && wantID && d.ID != id {
					t.Errorf("%s %s: its id is %q, want %q", kind, name, d.ID, id)
				}
				if strings.Contains(string(body), "{{") {
					t.Errorf("%s %s: the body is %s", kind, name, body)
				}
				if (d.Challenge != "") != (name == "url_verification") {
					t.Errorf("%s %s: the challenge is %q", kind, name, d.Challenge)
				}
			}
		}
	}
}

func TestWhatIsNoSampleIsSaid(t *testing.T) {
	for _, tt := range []struct {
		kind      provider.Kind
		event, id string
		want      string
	}{
		{"github", "star", "", `"issues" "ping"`},
		{"github", "../stripe/invoice.paid", "", "there is no sample"},
		{"ftp", "push", "", `kind "ftp"`},
		{"../samples/github", "push", "", "there is no sample"},
		{"github", "push", `a"b`, "letters, digits"},
		{"github", "push", strings.Repeat("x", 256), "at most 255"},
	} {
		if _, _, err := provider.Sample(tt.kind, tt.event, tt.id); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s %q: the error is %v, want one with %q", tt.kind, tt.event, tt.id, err, tt.want)
		}
	}
}
