package auth_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
)

func TestVerifyNowSaysWhatVerifySays(t *testing.T) {
	text, key := org.NewKey("demo")
	a := newAuth(t, key)
	for name, c := range map[string]auth.Credential{
		"a token":                     {Text: good(hs256), Where: auth.InHeader},
		"a token of a cookie":         {Text: good(hs256), Where: auth.InCookie},
		"a key":                       {Text: text, Where: auth.InHeader},
		"a key elsewhere":             {Text: text, Where: auth.InQuery},
		"another key":                 {Text: text + "a", Where: auth.InHeader},
		"no token":                    {Text: "what?", Where: auth.InQuery},
		"a token that has ended":      {Text: sign(`{"sub":"a","org":"demo","exp":1}`), Where: auth.InHeader},
		"of no organization there is": {Text: sign(`{"sub":"a","org":"nobody","exp":` + exp + `}`), Where: auth.InHeader},
		"nothing":                     {},
	} {
		p, ok, err := a.VerifyNow(c)
		want, wantErr := a.Verify(t.Context(), c)
		if !ok || !reflect.DeepEqual(p, want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("%s: %+v, %t, %v, want %+v, %v", name, p, ok, err, want, wantErr)
		}
	}
}

func TestVerifyNowDoesNotUseATicket(t *testing.T) {
	n := newTicketNode(t, make([]byte, 32), nil)
	ticket := n.ticket(good(hs256))
	for range 2 {
		if p, ok, err := n.VerifyNow(auth.Credential{Text: ticket, Where: auth.InTicket}); ok || p != nil || err != nil {
			t.Fatalf("%+v, %t, %v", p, ok, err)
		}
	}
	if _, err := n.redeem(ticket); err != nil {
		t.Errorf("it cannot be used any more: %v", err)
	}
}

func TestVerifyNowDoesNotWaitForAKey(t *testing.T) {
	pub := publish(t, set(named(rsaKey, "1")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{})
	r.want("the first", kid(rsaKey, "1"), "")
	asked, refused := pub.asked.Load(), r.Stats().Refused
	unknown := auth.Credential{Text: kid(rsaOther, "2"), Where: auth.InHeader}
	for range 2 {
		if p, ok, err := r.VerifyNow(unknown); ok || p != nil || err != nil {
			t.Fatalf("of a key that may come: %+v, %t, %v", p, ok, err)
		}
	}
	if pub.asked.Load() != asked || r.Stats().Refused != refused {
		t.Error("it had an effect")
	}
	if p, ok, err := r.VerifyNow(auth.Credential{Text: kid(rsaKey, "1"), Where: auth.InHeader}); !ok || err != nil || p.User != "alice" {
		t.Errorf("of a key that is there: %+v, %t, %v", p, ok, err)
	}

	r.pass(10 * time.Second)
	r.want("of a key that the issuer does not have", unknown.Text, refused401)
	if p, ok, err := r.VerifyNow(unknown); !ok || p != nil || carillon.AsError(err).Code != refused401 {
		t.Errorf("of one that it is known not to have: %+v, %t, %v", p, ok, err)
	}
	r.pass(time.Minute)
	if _, ok, _ := r.VerifyNow(unknown); ok {
		t.Error("it is taken for unknown for ever")
	}
}
