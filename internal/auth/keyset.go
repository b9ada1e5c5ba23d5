package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/limit"
	"github.com/carillon-rt/carillon/internal/safenet"
)

// JWKS is where an issuer publishes its keys (RFC 7517).
type JWKS struct {
	URL string

	// Algorithms are those that the issuer's keys may be for; none: RS256, ES256
	// and EdDSA. A key's own alg, if it has one, and its kind must agree.
	Algorithms []Algorithm

	// Private lets the URL be http, and at a private address.
	Private bool
}

// JWKSPolicy is how published keys are kept fresh. Zero fields mean the defaults
// given.
type JWKSPolicy struct {
	Refresh     time.Duration // 15 min; how often keys are fetched without need
	MinInterval time.Duration // 10 s between two fetches, whatever tokens name
	MaxStale    time.Duration // 24 h; then keys that could not be fetched again do not count
	Timeout     time.Duration // 5 s for one fetch
	MaxBytes    int           // 256 KiB of one set
	MaxKeys     int           // 100 in one set
	MaxUnknown  int           // 1,000 names that are remembered as unknown, of one issuer
	MaxWaiting  int           // 1,000 tokens that wait for one fetch
}

func (p JWKSPolicy) withDefaults() JWKSPolicy {
	t := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	n := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	t(&p.Refresh, 15*time.Minute)
	t(&p.MinInterval, 10*time.Second)
	t(&p.MaxStale, 24*time.Hour)
	t(&p.Timeout, 5*time.Second)
	n(&p.MaxBytes, 256<<10)
	n(&p.MaxKeys, 100)
	n(&p.MaxUnknown, 1000)
	n(&p.MaxWaiting, 1000)
	return p
}

// jwksConfig is what all sets of an Authenticator share.
type jwksConfig struct {
	JWKSPolicy

	now  func() time.Time
	log  *slog.Logger
	hits limit.Hits
}

// unknownFor is how long a name that was not in a fetched set is refused without
// a question. A set that has it ends that at once.
const unknownFor = 30 * time.Second

// keySet is the keys that an issuer publishes, as they were when they were last
// fetched. One goroutine, that of run, fetches; everybody else reads, or asks it
// to and is called when it has.
//
// No token makes it fetch more often than every MinInterval, nor remember more
// than its limits.
type keySet struct {
	jwksConfig

	issuer  string
	url     string
	allowed []Algorithm
	client  *http.Client

	keys              atomic.Pointer[fetched]
	want              chan struct{} // capacity 1: fetch now
	fetches, failures atomic.Uint64

	mu       sync.Mutex // guards what follows
	wanted   bool       // a fetch is asked for, or in hand
	stopped  bool
	earliest time.Time // of the next fetch that a token may cause
	waiting  []waiter
	unknown  map[keyName]time.Time // names that the issuer does not have, until when that holds
}

// fetched is what came of a fetch. It is immutable.
type fetched struct {
	keys map[keyName]*tokenKey // nil for a name that several have
	all  []*tokenKey
	at   time.Time
}

// waiter is a token that names a key we do not have.
type waiter struct {
	name keyName
	f    func()
}

func newKeySet(name string, cfg JWKS, shared jwksConfig) (*keySet, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("the URL of its keys is not one like https://id.example.com/jwks.json")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !cfg.Private) {
		return nil, errors.New("the URL of its keys is not https: whoever is on the way could put keys in; a private address may have http where that is allowed")
	}
	allowed := cfg.Algorithms
	if len(allowed) == 0 {
		allowed = []Algorithm{RS256, ES256, EdDSA}
	}
	for _, alg := range allowed {
		if alg != RS256 && alg != ES256 && alg != EdDSA {
			return nil, fmt.Errorf("published keys are for RS256, ES256 or EdDSA, not %q", alg)
		}
	}
	return &keySet{
		jwksConfig: shared, issuer: name, url: cfg.URL, allowed: allowed,
		client: safenet.Client(safenet.Config{Private: cfg.Private, Timeout: shared.Timeout}),
		want:   make(chan struct{}, 1), unknown: map[keyName]time.Time{},
	}, nil
}

// unknownKeyError says that a token names a key that is not in the set.
type unknownKeyError struct {
	set  *keySet
	name keyName
}

func (e *unknownKeyError) Error() string { return "header: the issuer has no such key" }

// find looks a key up among those that are at hand.
func (s *keySet) find(name keyName) (*tokenKey, error) {
	f := s.keys.Load()
	if f == nil || s.now().Sub(f.at) > s.MaxStale {
		return nil, &unknownKeyError{s, name}
	}
	k, found := f.keys[name]
	switch {
	case !found:
		return nil, &unknownKeyError{s, name}
	case k == nil:
		return nil, errManyKeys
	}
	return k, nil
}

// fetch sees to it that the set is fetched and f called afterwards, once, from
// the goroutine that fetches, or at once if it was fetched since the key was
// looked for. Otherwise it returns what the token is told: it is
// not valid where the issuer is known not to have the key, and unavailable where
// that cannot be known yet. With a nil f nothing is fetched.
func (e *unknownKeyError) fetch(f func()) error {
	s, now := e.set, e.set.now()
	s.mu.Lock()
	if _, err := s.find(e.name); f != nil && !errors.As(err, new(*unknownKeyError)) {
		s.mu.Unlock()
		f()
		return nil
	}
	defer s.mu.Unlock()
	if until, known := s.unknown[e.name]; known && now.Before(until) {
		return notValid(e)
	}
	retry := max(s.earliest.Sub(now), time.Second)
	switch {
	case f == nil || s.stopped:
	case len(s.waiting) >= s.MaxWaiting:
		s.hits.Add("jwks_waiting")
	case s.wanted:
		s.waiting = append(s.waiting, waiter{e.name, f})
		return nil
	case !now.Before(s.earliest):
		s.wanted = true
		s.want <- struct{}{}
		s.waiting = append(s.waiting, waiter{e.name, f})
		return nil
	}
	return carillon.Unavailable(retry, e, "the keys of the token's issuer cannot be asked for right now; try again")
}

// run fetches the set, now and then and when it is asked to, until ctx ends.
// After a failure it waits longer each time.
func (s *keySet) run(ctx context.Context) {
	defer s.stop()
	defer s.client.CloseIdleConnections()
	wait := s.MinInterval
	for {
		s.begin()
		err := s.load(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			wait = s.Refresh
		} else {
			s.log.Warn("auth: an issuer's keys could not be fetched", "issuer", s.issuer, "err", err)
			wait = min(2*wait, s.Refresh)
		}
		s.done(err == nil)
		next := time.NewTimer(wait - rand.N(wait/10+1)) // nodes that started together part
		select {
		case <-next.C:
		case <-s.want:
			wait = s.MinInterval
		case <-ctx.Done():
		}
		next.Stop()
	}
}

// begin lets tokens that come from now on wait for this fetch.
func (s *keySet) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted, s.earliest = true, s.now().Add(s.MinInterval)
}

// done calls those who waited for a fetch. If it brought a set, names that are
// not in it are unknown from now on.
func (s *keySet) done(ok bool) {
	now := s.now()
	s.mu.Lock()
	waiting := s.waiting
	s.waiting, s.wanted = nil, false
	select {
	case <-s.want: // asked for between two fetches: this one will do
	default:
	}
	for name, until := range s.unknown {
		if !now.Before(until) {
			delete(s.unknown, name)
		}
	}
	for _, w := range waiting {
		if _, here := s.keys.Load().get(w.name); here || !ok {
			continue
		}
		if len(s.unknown) >= s.MaxUnknown {
			s.hits.Add("jwks_unknown")
			break
		}
		s.unknown[w.name] = now.Add(unknownFor)
	}
	s.mu.Unlock()
	for _, w := range waiting {
		w.f()
	}
}

// stop ends the waiting for ever.
func (s *keySet) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.done(false)
}

// get is a key of a set that may be nil.
func (f *fetched) get(name keyName) (k *tokenKey, found bool) {
	if f == nil {
		return nil, false
	}
	k, found = f.keys[name]
	return k, found
}

// load fetches the set. What was fetched before stays if it fails.
func (s *keySet) load(ctx context.Context) error {
	s.fetches.Add(1)
	keys, err := s.download(ctx)
	if err != nil {
		s.failures.Add(1)
		return err
	}
	before := s.keys.Load()
	next := &fetched{keys: keys, at: s.now()}
	same := map[string]*tokenKey{} // by thumbprint: a key that stays keeps its count
	if before != nil {
		for _, k := range before.all {
			same[k.label] = k
		}
	}
	for name, k := range keys {
		if k == nil {
			continue
		}
		if old := same[k.label]; old != nil {
			keys[name] = old
		}
		same[k.label] = keys[name]
		if !slices.Contains(next.all, keys[name]) {
			next.all = append(next.all, keys[name])
		}
	}
	s.keys.Store(next)
	if before == nil || len(before.all) != len(next.all) || slices.ContainsFunc(next.all, func(k *tokenKey) bool { return !slices.Contains(before.all, k) }) {
		s.log.Info("auth: an issuer's keys", "issuer", s.issuer, "keys", len(next.all))
	}
	return nil
}

func (s *keySet) download(ctx context.Context) (map[keyName]*tokenKey, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	r.Header.Set("User-Agent", "carillon")
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %d instead of 200; redirects are not followed", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(s.MaxBytes)+1))
	if err != nil {
		return nil, withoutURL(err)
	}
	if len(body) > s.MaxBytes {
		s.hits.Add("jwks_bytes")
		return nil, fmt.Errorf("the answer has more than %d bytes", s.MaxBytes)
	}
	keys, err := parseSet(body, s.MaxKeys, s.allowed)
	if errors.Is(err, errSetTooBig) {
		s.hits.Add("jwks_keys")
	}
	return keys, err
}

// withoutURL keeps a URL, which may have a key in its query, out of the log.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
