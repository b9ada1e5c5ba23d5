package auth_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/org"
)

func newKV(t testing.TB) engine.KV {
	e := memory.New(memory.Config{})
	t.Cleanup(func() {
		if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return e.KV()
}

// ticketNode is a node of an install; nodes with the same key and Claimer are of
// the same.
type ticketNode struct {
	*auth.Authenticator

	t   testing.TB
	now atomic.Int64
}

func newTicketNode(t testing.TB, key []byte, used auth.Claimer) *ticketNode {
	t.Helper()
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "demo"}, {ID: "acme"}}})
	if err != nil {
		t.Fatal(err)
	}
	n := &ticketNode{t: t}
	n.now.Store(now.UnixNano())
	if used == nil {
		used = newKV(t)
	}
	n.Authenticator, err = auth.New(auth.Config{
		Issuers: []auth.Issuer{{Secrets: [][]byte{secret}, Any: true}},
		Orgs:    dir, Now: n.clock, Verified: 1000, Tickets: &auth.Tickets{Key: key, Used: used, Most: 100},
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *ticketNode) clock() time.Time     { return time.Unix(0, n.now.Load()) }
func (n *ticketNode) pass(d time.Duration) { n.now.Add(int64(d)) }

func (n *ticketNode) ticket(token string) string {
	n.t.Helper()
	ticket, life, err := n.Ticket(n.t.Context(), auth.Credential{Text: token, Where: auth.InHeader})
	if err != nil || life <= 0 || life > auth.TicketLife {
		n.t.Fatalf("life %s, %v", life, err)
	}
	return ticket
}

func (n *ticketNode) redeem(ticket string) (*carillon.Principal, error) {
	return n.Verify(n.t.Context(), auth.Credential{Text: ticket, Where: auth.InTicket})
}

// refused fails unless the ticket is.
func (n *ticketNode) refused(what, ticket string) {
	n.t.Helper()
	p, err := n.redeem(ticket)
	if err == nil || carillon.AsError(err).Code != carillon.CodeUnauthenticated {
		n.t.Errorf("%s: %+v, %v", what, p, err)
	}
	if err != nil && len(ticket) > 40 && strings.Contains(err.Error(), ticket[len(ticket)-20:]) {
		n.t.Errorf("%s: the error tells the ticket", what)
	}
}

var ticketKey = []byte("the key of an install, 32 bytes.")

func TestATicketStandsForItsTokenOnce(t *testing.T) {
	used := newKV(t)
	a, b := newTicketNode(t, ticketKey, used), newTicketNode(t, ticketKey, used)
	token := sign(`{"sub":"alice","org":"demo","exp":` + exp + `,"role":"publisher","permissions":{"subscribe":["a.*"],"rooms":["x-*"]}}`)
	want, err := a.VerifyToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	ticket := a.ticket(token)
	if strings.Contains(ticket, "alice") || strings.Contains(string(must(base64.RawURLEncoding.DecodeString(ticket))), "alice") {
		t.Error("the ticket shows its claims")
	}
	got, err := b.redeem(ticket) // on another node
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	a.refused("a second time", ticket)
	b.refused("a third time", ticket)
	if another := a.ticket(token); another == a.ticket(token) {
		t.Error("two tickets of one token are the same")
	}
}

func TestATicketIsLateAfterThirtySeconds(t *testing.T) {
	n := newTicketNode(t, ticketKey, nil)
	token := sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`)
	early, late := n.ticket(token), n.ticket(token)
	n.pass(auth.TicketLife - time.Millisecond)
	if _, err := n.redeem(early); err != nil {
		t.Error(err)
	}
	n.pass(time.Millisecond)
	n.refused("after 30 s", late)
}

func TestATicketEndsWithItsToken(t *testing.T) {
	n := newTicketNode(t, ticketKey, nil)
	token := sign(`{"sub":"alice","org":"demo","exp":` + fmt.Sprint(now.Unix()-20) + `}`) // in its leeway, for 10 s
	ticket, life, err := n.Ticket(t.Context(), auth.Credential{Text: token, Where: auth.InCookie})
	if err != nil || life != 10*time.Second {
		t.Fatalf("life %s, %v", life, err)
	}
	n.pass(10 * time.Second)
	n.refused("after the token's end", ticket)
}

func TestTicketsOfOthersAreRefused(t *testing.T) {
	n := newTicketNode(t, ticketKey, nil)
	token := sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`)
	foreign := newTicketNode(t, []byte("the key of another install, here"), nil).ticket(token)
	good := n.ticket(token)
	raw := must(base64.RawURLEncoding.DecodeString(good))
	for i := 0; i < len(raw); i += 7 {
		bent := append([]byte(nil), raw...)
		bent[i] ^= 1
		n.refused(fmt.Sprintf("with byte %d changed", i), base64.RawURLEncoding.EncodeToString(bent))
	}
	for name, ticket := range map[string]string{
		"another install's": foreign, "cut": good[:len(good)-4], "longer": good + "AAAA", "empty": "", "short": "AAAA", "an id alone": good[:22],
		"a token": token, "padded": good + "=", "very long": strings.Repeat("A", 9000),
	} {
		n.refused(name, ticket)
	}
	if _, _, tickets := n.Retained(); tickets != 0 {
		t.Errorf("%d tickets are remembered that were none", tickets)
	}
	if _, err := n.redeem(good); err != nil {
		t.Errorf("the good one, afterwards: %v", err)
	}
	if _, err := n.VerifyToken(t.Context(), n.ticket(token)); err == nil {
		t.Error("a ticket is taken for a token")
	}
}

func TestWhatGetsNoTicket(t *testing.T) {
	n := newTicketNode(t, ticketKey, nil)
	key, _ := org.NewKey("demo")
	long := sign(`{"sub":"alice","org":"demo","exp":` + exp + `,"x":"` + strings.Repeat("y", 6000) + `"}`)
	for name, tc := range map[string]struct {
		c    auth.Credential
		code carillon.Code
	}{
		"nothing":     {auth.Credential{}, carillon.CodeUnauthenticated},
		"a bad token": {auth.Credential{Text: "x", Where: auth.InHeader}, carillon.CodeUnauthenticated},
		"an API key":  {auth.Credential{Text: key, Where: auth.InHeader}, carillon.CodeForbidden},
		"a ticket":    {auth.Credential{Text: n.ticket(sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`)), Where: auth.InTicket}, carillon.CodeBadRequest},
	} {
		if ticket, _, err := n.Ticket(t.Context(), tc.c); err == nil || carillon.AsError(err).Code != tc.code {
			t.Errorf("%s: %q, %v", name, ticket, err)
		}
	}
	if _, err := n.VerifyToken(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	if ticket := n.ticket(long); len(ticket) > auth.DefaultMaxTokenBytes {
		t.Error("the ticket is longer than a credential may be")
	}
}

func TestUsedTicketsAreBounded(t *testing.T) {
	n := newTicketNode(t, ticketKey, nil)
	token := sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`)
	for range 100 {
		if _, err := n.redeem(n.ticket(token)); err != nil {
			t.Fatal(err)
		}
	}
	more := n.ticket(token)
	_, err := n.redeem(more)
	if e := carillon.AsError(err); e.Code != carillon.CodeUnavailable || e.RetryAfter <= 0 {
		t.Errorf("one more than can be remembered: %v", err)
	}
	if n.Limits()["tickets"] != 1 {
		t.Errorf("limits are %v", n.Limits())
	}
	n.pass(2 * (auth.TicketLife + auth.Leeway))
	if _, err := n.redeem(n.ticket(token)); err != nil {
		t.Errorf("when the others are late: %v", err)
	}
	if _, _, tickets := n.Retained(); tickets != 1 {
		t.Errorf("%d tickets are counted", tickets)
	}
}

// However the clock moves, a ticket is forgotten only when it is late.
func TestATicketIsUsedOnceAtAnyTime(t *testing.T) {
	n := newTicketNode(t, ticketKey, nil)
	token := sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`)
	var all []string
	for range 40 {
		ticket := n.ticket(token)
		if _, err := n.redeem(ticket); err != nil {
			t.Fatal(err)
		}
		all = append(all, ticket)
		n.pass(3 * time.Second)
		for _, used := range all {
			n.refused("used before", used)
		}
	}
}

func TestOfManyAtOnceOneRedeems(t *testing.T) {
	n := newTicketNode(t, ticketKey, nil)
	ticket := n.ticket(sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`))
	var all sync.WaitGroup
	var won atomic.Int32
	for range 16 {
		all.Go(func() {
			if _, err := n.redeem(ticket); err == nil {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d redeemed it", won.Load())
	}
}

type failing struct{}

func (failing) Claim(context.Context, string, time.Duration) error { return context.DeadlineExceeded }

func TestATicketThatCannotBeCheckedIsNotTaken(t *testing.T) {
	n := newTicketNode(t, ticketKey, failing{})
	_, err := n.redeem(n.ticket(sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`)))
	if carillon.AsError(err).Code != carillon.CodeUnavailable {
		t.Errorf("%v", err)
	}
}

// Whatever is tried, nothing is remembered of it.
func TestRandomCredentialsLeaveNothing(t *testing.T) {
	pub := publish(t, set(named(edKey, "k")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{MaxUnknown: 20})
	n := newTicketNode(t, ticketKey, nil)
	r.want("a good one", kid(edKey, "k"), "")
	b := make([]byte, 60)
	for i := range 10_000 {
		_, _ = rand.Read(b)
		s := base64.RawURLEncoding.EncodeToString(b)
		for _, text := range []string{s, s[:20] + "." + s[20:40] + "." + s[40:], b64(`{"alg":"EdDSA","kid":"`+s+`"}`) + "." + b64(claimsOf("pub")) + "." + s} {
			if r.verify(text) == "" {
				t.Fatalf("accepted: %s", text)
			}
		}
		n.refused("a random ticket", s)
		if i%1000 == 0 {
			r.pass(10 * time.Second)
		}
	}
	unknown, waiting, _ := r.Retained()
	_, _, tickets := n.Retained()
	if unknown > 20 || waiting != 0 || tickets != 0 {
		t.Errorf("%d names, %d waiting, %d tickets are remembered", unknown, waiting, tickets)
	}
	if lines := strings.Count(r.log.String(), "a credential was refused"); lines > 200 {
		t.Errorf("the log has %d lines", lines)
	}
	if r.Stats().Refused < 30_000 {
		t.Errorf("%d refusals are counted", r.Stats().Refused)
	}
	r.want("a good one, afterwards", kid(edKey, "k"), "")
}

func BenchmarkTicket(b *testing.B) {
	n := newTicketNode(b, ticketKey, nil)
	token := sign(`{"sub":"alice","org":"demo","exp":` + exp + `}`)
	b.ReportAllocs()
	for b.Loop() {
		n.ticket(token)
	}
}
