package auth_test

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/auth"
	"github.com/carillon-rt/carillon/internal/org"
)

// twins are two Authenticators of the same issuer, organizations and clock, of which
// one remembers good tokens.
type twins struct {
	remembers, forgets *auth.Authenticator

	now  time.Time
	orgs *org.Store
}

func newTwins(t testing.TB, most int) *twins {
	t.Helper()
	dir, err := org.NewDirectory(org.Config{Orgs: []org.Org{{ID: "demo"}}})
	if err != nil {
		t.Fatal(err)
	}
	w := &twins{now: now, orgs: org.NewStore(newKV(t), dir)}
	a := func(most int) *auth.Authenticator {
		a, err := auth.New(auth.Config{Issuers: []auth.Issuer{{Secrets: [][]byte{secret}, Any: true}}, Orgs: dir, Verified: most, Now: func() time.Time { return w.now }})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	w.remembers, w.forgets = a(most), a(0)
	return w
}

// TestARememberedTokenIsJudgedLikeANewOne lets the clock go, back too, and
// organizations come and go.
func TestARememberedTokenIsJudgedLikeANewOne(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newTwins(t, 1000)
		at := now.Unix()
		var tokens []string
		for i := range 6 {
			exp := at + rapid.Int64Range(-29, 200).Draw(r, "exp")
			nbf := at + rapid.Int64Range(-100, 29).Draw(r, "nbf")
			name := []carillon.OrgID{"demo", "a", "b"}[i%3]
			claims := fmt.Sprintf(`{"sub":"alice","org":%q,"exp":%d.25`, name, exp)
			if i >= 3 {
				claims += fmt.Sprintf(`,"nbf":%d.5`, nbf)
			}
			tokens = append(tokens, sign(claims+`}`))
		}
		exists := map[carillon.OrgID]bool{}
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			id := rapid.SampledFrom([]carillon.OrgID{"a", "b"}).Draw(r, "org")
			switch rapid.IntRange(0, 5).Draw(r, "what") {
			case 0:
				w.now = now.Add(time.Duration(rapid.Int64Range(-200, 400).Draw(r, "time")) * 250 * time.Millisecond)
			case 1:
				if !exists[id] {
					must(w.orgs.Create(t.Context(), id, org.Settings{}))
				} else if err := w.orgs.Delete(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				exists[id] = !exists[id]
			case 2:
				if exists[id] {
					must(w.orgs.Update(t.Context(), id, 0, func(s org.Settings) (org.Settings, error) {
						s.Disabled = !s.Disabled
						return s, nil
					}))
				}
			}
			for i, token := range tokens {
				p, err := w.remembers.VerifyToken(t.Context(), token)
				want, wantErr := w.forgets.VerifyToken(t.Context(), token)
				if !cmp.Equal(p, want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
					r.Fatalf("token %d at %s: %+v, %v, want %+v, %v", i, w.now.Sub(now), p, err, want, wantErr)
				}
			}
		}
	})
}

func TestARememberedTokenCostsNoSignature(t *testing.T) {
	w := newTwins(t, 1000)
	token := good(hs256)
	first, err := w.remembers.VerifyToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []auth.Credential{{Text: token, Where: auth.InHeader}, {Text: token, Where: auth.InCookie}} {
		if again, _, err := w.remembers.VerifyNow(c); err != nil || *again != *first {
			t.Errorf("%+v, %v", again, err)
		}
	}
	if s := w.remembers.Stats(); s.Known != 2 || s.Keys[0].Tokens != 3 {
		t.Errorf("%+v", s)
	}
	for what, bad := range map[string]string{
		"another signature": token[:len(token)-4] + "AAAA", "none": token[:len(token)-43], "more": token + "A", "a key's": "ck_" + token,
	} {
		if p, err := w.remembers.VerifyToken(t.Context(), bad); err == nil {
			t.Errorf("%s: %+v", what, p)
		}
	}
	for range 2 { // a refusal is not remembered
		_, _ = w.remembers.VerifyToken(t.Context(), sign(`{"sub":"alice","org":"later","exp":`+exp+`}`))
		if s := w.remembers.Stats(); s.Known != 2 {
			t.Errorf("%+v", s)
		}
	}
	if _, err := w.forgets.VerifyToken(t.Context(), token); err != nil || w.forgets.Stats().Known != 0 {
		t.Errorf("where none is remembered: %v, %+v", err, w.forgets.Stats())
	}
}

// What becomes of a token whose key the issuer publishes, and has fetched: the same
// as without memory. The rig remembers.
func TestARememberedTokenGoesWithItsPublishedKey(t *testing.T) {
	alone := issue(ecKey, head(auth.ES256), claimsOf("pub"))
	for name, tc := range map[string]struct {
		token string
		then  string        // the set
		want  carillon.Code // at once
	}{
		"it stays":                        {kid(ecKey, "1"), set(named(ecKey, "1")), ""},
		"it stays, among others":          {kid(ecKey, "1"), set(named(edKey, "1"), named(ecOther, "2"), named(ecKey, "1")), ""},
		"it is removed":                   {kid(ecKey, "1"), set(named(ecOther, "2")), later},
		"it has another name":             {kid(ecKey, "1"), set(named(ecKey, "2")), later},
		"another has its name":            {kid(ecKey, "1"), set(named(ecOther, "1")), refused401},
		"two have its name, it first":     {kid(ecKey, "1"), set(named(ecKey, "1"), named(ecOther, "1")), ""},
		"two have its name, it second":    {kid(ecKey, "1"), set(named(ecOther, "1"), named(ecKey, "1")), refused401},
		"named by none, it stays":         {alone, set(named(ecKey, "2")), ""},
		"named by none, there are two":    {alone, set(named(ecKey, "1"), named(ecOther, "2")), refused401},
		"named by none, there is another": {alone, set(named(ecOther, "1")), refused401},
	} {
		t.Run(name, func(t *testing.T) {
			pub := publish(t, set(named(ecKey, "1")))
			r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{})
			r.want("at first", tc.token, "")
			known := r.Stats().Known
			r.want("again", tc.token, "")
			if r.Stats().Known != known+1 {
				t.Fatal("it is not remembered")
			}
			pub.say(tc.then)
			r.pass(10 * time.Second)
			asked := r.Stats().Sets[0].Fetches
			r.Submit(kid(rsaKey, "unheard"), func(*carillon.Principal, error) {}) // makes it fetch
			for r.Stats().Sets[0].Fetches == asked || r.Busy("pub") {
				runtime.Gosched()
			}
			r.want("then", tc.token, tc.want)
		})
	}
}

func TestARememberedTokenGoesWithKeysThatCannotBeFetched(t *testing.T) {
	pub := publish(t, set(named(ecKey, "1")))
	r := newRig(t, auth.JWKS{URL: pub.URL, Private: true}, auth.JWKSPolicy{MaxStale: 5 * time.Minute})
	r.want("at first", kid(ecKey, "1"), "")
	r.pass(5 * time.Minute)
	r.want("as long as they count", kid(ecKey, "1"), "")
	pub.say("no set")
	r.pass(time.Second)
	if code := r.verify(kid(ecKey, "1")); code != later {
		t.Errorf("when they do not: %q", code)
	}
}

func TestRememberedTokensAreBounded(t *testing.T) {
	for _, most := range []int{1, 10, 2000, 10_000} { // the last one in parts
		w := newTwins(t, most)
		verify := func(i int) {
			if p, err := w.remembers.VerifyToken(t.Context(), sign(fmt.Sprintf(`{"sub":"u%d","org":"demo","exp":%s}`, i, exp))); err != nil || p.User != fmt.Sprintf("u%d", i) {
				t.Fatalf("%+v, %v", p, err)
			}
		}
		for i := range 3 * most {
			verify(i)
			if n := w.remembers.Remembered(); n > most {
				t.Fatalf("%d are remembered, %d may be", n, most)
			}
		}
		if n, met := w.remembers.Remembered(), w.remembers.Limits()["verified_tokens"]; n < most*9/10 || met != uint64(3*most-n) {
			t.Errorf("%d are remembered of %d, the limit was met %d times", n, 3*most, met)
		}
		verify(3*most - 1)
		if w.remembers.Stats().Known == 0 {
			t.Error("the newest is not remembered")
		}
	}
	w := newTwins(t, 10)
	for range 100 {
		if _, err := w.remembers.VerifyToken(t.Context(), good(hs256)); err != nil {
			t.Fatal(err)
		}
	}
	if w.remembers.Limits()["verified_tokens"] != 0 {
		t.Error("one token meets the limit")
	}
}

func TestATokenThatHasEndedIsForgotten(t *testing.T) {
	w := newTwins(t, 10)
	token := good(hs256)
	for _, at := range []time.Duration{0, 10*time.Minute + auth.Leeway} {
		w.now = now.Add(at)
		_, _ = w.remembers.VerifyToken(t.Context(), token)
	}
	if n := w.remembers.Remembered(); n != 0 {
		t.Errorf("%d are remembered", n)
	}
}

// Its principal ends when its life does, which is kept; of a life that is too long for
// that, it cannot be told.
func TestATokenThatEndsTooLateIsVerifiedEachTime(t *testing.T) {
	for exp, remembered := range map[int64]uint64{9_223_372_035: 1, 9_223_372_037: 0, 253_402_300_799: 0} {
		w := newTwins(t, 10)
		token := sign(fmt.Sprintf(`{"sub":"alice","org":"demo","exp":%d.5}`, exp-1))
		for range 2 {
			p, err := w.remembers.VerifyToken(t.Context(), token)
			if want, _ := w.forgets.VerifyToken(t.Context(), token); err != nil || *p != *want {
				t.Errorf("%+v, %v, want %+v", p, err, want)
			}
		}
		if got := w.remembers.Stats().Known; got != remembered {
			t.Errorf("until %d: it was known %d times, want %d", exp, got, remembered)
		}
	}
}

// Many have permissions of their own.
func TestARememberedTokenKeepsItsPermissions(t *testing.T) {
	w := newTwins(t, 5000)
	token := func(i int) string {
		return sign(fmt.Sprintf(`{"sub":"u%d","org":"demo","exp":%s,"role":%q,"permissions":{"publish":["p%d"]}}`, i, exp, []string{"member", "publisher"}[i%2], i))
	}
	const n = 2500
	for range 2 {
		for i := range n {
			p, err := w.remembers.VerifyToken(t.Context(), token(i))
			if want, _ := w.forgets.VerifyToken(t.Context(), token(i)); err != nil || !cmp.Equal(p, want) {
				t.Fatalf("%+v, %v, want %+v", p, err, want)
			}
		}
	}
	if known := w.remembers.Stats().Known; known < n*9/10 {
		t.Errorf("%d were known", known)
	}
}

func TestTokensShareTheirPermissions(t *testing.T) {
	w := newTwins(t, 0)
	permissions := func(user, text string) *carillon.Permissions {
		p, err := w.remembers.VerifyToken(t.Context(), sign(fmt.Sprintf(`{"sub":%q,"org":"demo","exp":%s,"permissions":%s}`, user, exp, text)))
		if err != nil {
			t.Fatal(err)
		}
		return p.Permissions
	}
	a := permissions("alice", `{"subscribe":["a.*"]}`)
	if b := permissions("bob", `{"subscribe":["a.*"]}`); a != b || len(b.Subscribe) != 1 {
		t.Errorf("%+v and %+v", a, b)
	}
	for i := range 3000 { // what is shared is bounded
		one := fmt.Sprintf(`{"publish":["p%d"]}`, i)
		if p := permissions("alice", one); len(p.Publish) != 1 || string(p.Publish[0]) != fmt.Sprintf("p%d", i) {
			t.Fatalf("%+v", p)
		}
	}
	if n := w.remembers.Shared(); n != 1024 {
		t.Errorf("%d are kept", n)
	}
	long := `{"rooms":["a"` + strings.Repeat(`,"ops"`, 200) + `]}` // too long to be shared
	if p, q := permissions("alice", long), permissions("alice", long); len(p.Rooms) != 201 || p == q {
		t.Errorf("%d rooms, %p and %p", len(p.Rooms), p, q)
	}
	if _, err := w.remembers.VerifyToken(t.Context(), sign(`{"sub":"a","org":"demo","exp":`+exp+`,"permissions":{"what":[]}}`)); err == nil {
		t.Error("bad permissions are taken")
	}
}

// TestManyAtOnceAreRemembered is for the race detector.
func TestManyAtOnceAreRemembered(t *testing.T) {
	w := newTwins(t, 16)
	w.now = now
	var wg sync.WaitGroup
	var bad atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				user := fmt.Sprintf("u%d", (i*7+g)%40)
				if p, err := w.remembers.VerifyToken(t.Context(), sign(fmt.Sprintf(`{"sub":%q,"org":"demo","exp":%s}`, user, exp))); err != nil || p.User != user {
					bad.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if bad.Load() != 0 || w.remembers.Stats().Known == 0 {
		t.Errorf("%d were wrong, %d remembered", bad.Load(), w.remembers.Stats().Known)
	}
}

// BenchmarkVerifyAgain is a token that is remembered, by algorithm.
func BenchmarkVerifyAgain(b *testing.B) {
	a := newPublicAuth(b)
	tokens := map[string]string{"HS256": forge(sha256.New, secret, hs256, claimsOf("HS256"))}
	for alg, key := range signers {
		tokens[string(alg)] = issue(key, head(alg), claimsOf(string(alg)))
	}
	for name, token := range tokens {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := a.VerifyNow(auth.Credential{Text: token, Where: auth.InHeader}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRemembered is what a remembered token takes of memory.
func BenchmarkRemembered(b *testing.B) {
	const n = 50_000
	for _, more := range []string{"", `,"role":"member","permissions":{"subscribe":["orders.>","workflow.*.completed"],"publish":["orders.created"],"rooms":["ops-*"]}`} {
		b.Run(fmt.Sprintf("permissions=%t", more != ""), func(b *testing.B) {
			tokens := make([]string, n)
			for i := range tokens {
				tokens[i] = sign(fmt.Sprintf(`{"sub":"user-%06d","org":"demo","exp":%s%s}`, i, exp, more))
			}
			for b.Loop() {
				w := newTwins(b, n+n/4)
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				for _, token := range tokens {
					if _, err := w.remembers.VerifyToken(b.Context(), token); err != nil {
						b.Fatal(err)
					}
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/n, "B/token")
				b.ReportMetric((float64(after.HeapObjects)-float64(before.HeapObjects))/n, "objects/token")
				runtime.KeepAlive(w)
			}
			runtime.KeepAlive(tokens)
		})
	}
}
