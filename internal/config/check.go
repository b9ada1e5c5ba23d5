package config

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon"
)

const (
	minSecret     = 32 // bytes, for HS256 (RFC 7518 §3.2)
	maxKeys       = 16 // of one issuer
	maxPartitions = 1024
)

// checker collects what is wrong.
type checker struct {
	c        *Config
	problems []Problem
}

func (k *checker) say(path, format string, args ...any) {
	k.problems = append(k.problems, k.c.problem(path, format, args...))
}

// check is the one place where settings are checked.
func (c *Config) check() []Problem {
	k := &checker{c: c}
	k.listen("listen", c.Listen)
	k.listen("ops.listen", c.Ops.Listen)
	if c.Listen == c.Ops.Listen && !strings.HasSuffix(c.Listen, ":0") {
		k.say("ops.listen", "is the public port %s too; the operations port is another one", c.Listen)
	}
	for i, h := range c.Ops.Hosts {
		if h == "" || strings.ContainsAny(h, "/ \t*@") {
			k.say(fmt.Sprintf("ops.hosts[%d]", i), "%q is not a host name as it stands in a URL, like ops.example.com", clip(h))
		}
	}
	k.operatorKeys(&c.Ops)
	k.tls(&c.TLS)
	k.proxy(&c.Proxy)
	if c.Data == "" && c.Engine.Kind != KindMemory {
		k.say("data", "is empty; it is the directory of the log")
	}
	k.engine(&c.Engine)
	ids := k.orgs(c.Orgs)
	k.issuers(c.Issuers, ids)
	for i, o := range c.Origins {
		if err := checkOrigin(o); err != nil {
			k.say(fmt.Sprintf("origins[%d]", i), "%v", err)
		}
	}
	k.limits(&c.Limits)
	k.timing(c)
	k.hooks(c)
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", c.Log.Format, "json", "text")
	return k.problems
}

func (k *checker) operatorKeys(o *Ops) {
	seen := map[string]string{}
	for i, line := range o.Keys {
		k.keyLine(seen, fmt.Sprintf("ops.keys[%d]", i), line)
	}
	for _, line := range o.loaded {
		k.keyLine(seen, "ops.key_file", line)
	}
}

func (k *checker) tls(t *TLS) {
	switch {
	case t.Cert != "" && t.Key == "":
		k.say("tls.key", "is empty; it is the file of the key that belongs to tls.cert")
	case t.Cert == "" && t.Key != "":
		k.say("tls.cert", "is empty; it is the file of the certificate that tls.key belongs to")
	case t.Cert != "" && len(t.ACME.Hosts) > 0:
		k.say("tls.acme.hosts", "is there beside tls.cert; a certificate comes from files or from an authority")
	}
	a := &t.ACME
	for i, h := range a.Hosts {
		if !strings.Contains(strings.Trim(h, "."), ".") || strings.Trim(h, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			k.say(fmt.Sprintf("tls.acme.hosts[%d]", i), "%q is not the full name of a host in lower case, like events.example.com", clip(h))
		}
	}
	if len(a.Hosts) > 0 && a.Cache == "" {
		k.say("tls.acme.cache", "is empty; it is the directory for keys and certificates")
	}
	if u, err := url.Parse(a.Directory); a.Directory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		k.say("tls.acme.directory", "%q is not a URL that begins with https://", clip(a.Directory))
	}
}

func (k *checker) proxy(p *Proxy) {
	k.oneOf("proxy.header", p.Header, "x-forwarded-for", "forwarded", "none")
	if p.Protocol && len(p.Trusted) == 0 {
		k.say("proxy.protocol", "is on, but nobody is trusted to use it; list the proxies in proxy.trusted")
	}
	for i, s := range p.Trusted {
		addr, err := netip.ParseAddr(s)
		prefix, errPrefix := netip.ParsePrefix(s)
		if s != "unix" && (err != nil || addr.Zone() != "") && (errPrefix != nil || prefix != prefix.Masked()) {
			k.say(fmt.Sprintf("proxy.trusted[%d]", i), "%q is not an address like 10.1.2.3, a prefix like 10.0.0.0/8, or unix", clip(s))
		}
	}
}

func (k *checker) engine(e *Engine) {
	k.oneOf("engine.kind", e.Kind, KindJetStream, KindMemory)
	k.nats(e)
	k.oneOf("engine.durability", e.Durability, DurabilityStrict, DurabilityRelaxed)
	k.between("engine.partitions", int64(e.Partitions), 1, maxPartitions)
	k.atLeast("engine.retention.age", e.Retention.Age, minute)
	k.notNegative("engine.retention.events_per_org", e.Retention.EventsPerOrg)
	k.orgBytes("engine.retention.bytes_per_org", e.Retention.BytesPerOrg)
	if b := e.Retention.Bytes; b < mib {
		k.say("engine.retention.bytes", "is %s; it is at least 1MiB: a log without a limit fills the disk", b)
	}
	k.atLeast("engine.dedupe_window", e.DedupeWindow, second)
	if e.DedupeWindow > e.Retention.Age {
		k.say("engine.dedupe_window", "is %s, longer than events are kept (engine.retention.age, %s)", e.DedupeWindow, e.Retention.Age)
	}
}

func (k *checker) nats(e *Engine) {
	n := &e.NATS
	if n.URL == "" {
		for _, s := range []struct{ path, v string }{{"creds", n.Creds}, {"ca", n.CA}, {"cert", n.Cert}, {"key", n.Key}} {
			if s.v != "" {
				k.say("engine.nats."+s.path, "is for an external server; set engine.nats.url to it")
			}
		}
	} else if e.Kind != KindJetStream {
		k.say("engine.nats.url", "is for kind jetstream; this is %s", e.Kind)
	}
	for s := range strings.SplitSeq(n.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case n.URL == "":
		case err != nil || (u.Scheme != "nats" && u.Scheme != "tls") || u.Hostname() == "" || strings.Trim(u.Path, "/") != "":
			k.say("engine.nats.url", "has a part that is not nats://host:port or tls://host:port, several with commas between")
		case u.User != nil:
			k.say("engine.nats.url", "has a user or a password in it; name a file with credentials in engine.nats.creds")
		}
	}
	if (n.Cert == "") != (n.Key == "") {
		k.say("engine.nats.cert", "and engine.nats.key come together")
	}
	if n.Prefix == "" || len(n.Prefix) > 32 || strings.Trim(n.Prefix, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		k.say("engine.nats.prefix", "%q is not 1–32 of a–z, 0–9, _ and -", clip(n.Prefix))
	}
	if n.Replicas != 1 && n.Replicas != 3 && n.Replicas != 5 {
		k.say("engine.nats.replicas", "is %d; it is 1, 3 or 5", n.Replicas)
	}
}

func (k *checker) orgs(orgs []Org) (ids map[string]bool) {
	ids = map[string]bool{}
	keys := map[string]string{}
	for i, o := range orgs {
		at := fmt.Sprintf("orgs[%d]", i)
		if _, err := carillon.ParseOrgID(o.ID); err != nil {
			k.say(at+".id", "%s", carillon.AsError(err).Message)
		} else if ids[o.ID] {
			k.say(at+".id", "%s is there twice", o.ID)
		}
		ids[o.ID] = true
		for j, line := range o.Keys {
			k.keyLine(keys, fmt.Sprintf("%s.keys[%d]", at, j), line)
		}
		l := k.c.EffectiveLimits(o)
		k.notNegative(at+".limits.publish_per_second", int64(l.PublishPerSecond))
		k.notNegative(at+".limits.publish_burst", int64(l.PublishBurst))
		k.notNegative(at+".limits.publish_bytes_per_second", l.PublishBytesPerSecond)
		k.notNegative(at+".limits.connections", int64(l.Connections))
		if own := o.Retention.Bytes; own != nil {
			k.orgBytes(at+".retention.bytes", *own)
		}
		if own := o.Retention.Age; own != nil {
			k.atLeast(at+".retention.age", *own, minute)
		}
		k.notNegative(at+".retention.events", k.c.EffectiveRetention(o).Events)
	}
	return ids
}

// keyLine checks a line of a key; seen has where each key's id stood.
func (k *checker) keyLine(seen map[string]string, at, line string) {
	id, ok := keyLine(line)
	switch {
	case strings.HasPrefix(line, "ck_"):
		k.say(at, "is an API key itself; put its hash line here, which 'carillon keys new' prints beside it")
	case !ok:
		k.say(at, "is not a line <id>:<sha256 in hex> as 'carillon keys new' prints it")
	case seen[id] != "":
		k.say(at, "key %s is there twice, also at %s", id, seen[id])
	default:
		seen[id] = at
	}
}

// keyLine has the form that org.ParseKey reads.
func keyLine(line string) (id string, ok bool) {
	id, sum, ok := strings.Cut(line, ":")
	return id, ok && id != "" && len(id) <= 32 && len(sum) == 64 &&
		strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") == "" &&
		strings.Trim(strings.ToLower(sum), "0123456789abcdef") == ""
}

func (k *checker) issuers(issuers []Issuer, orgs map[string]bool) {
	seen := map[string]int{}
	for i := range issuers {
		iss := &issuers[i]
		at := fmt.Sprintf("issuers[%d]", i)
		if first, twice := seen[iss.Issuer]; twice {
			if iss.Issuer == "" {
				k.say(at+".issuer", "only one issuer can be without a name; issuers[%d] is", first)
			} else {
				k.say(at+".issuer", "%q is issuers[%d] too", clip(iss.Issuer), first)
			}
		} else {
			seen[iss.Issuer] = i
		}
		switch iss.OrgClaim {
		case "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "role", "permissions":
			k.say(at+".org_claim", "%s means something else in a token; choose another claim, like org", iss.OrgClaim)
		}
		k.keys(at, iss)
		if len(iss.Orgs) == 0 {
			k.say(at+".orgs", "names nobody; list the organizations its tokens may name, or [\"*\"] for all")
		}
		for j, o := range iss.Orgs {
			switch {
			case o == "*" && len(iss.Orgs) > 1:
				k.say(fmt.Sprintf("%s.orgs[%d]", at, j), "* means all; it stands alone")
			case o != "*" && !orgs[o]:
				k.say(fmt.Sprintf("%s.orgs[%d]", at, j), "%q is not one of 'orgs'", clip(o))
			}
		}
	}
}

// keys checks what an issuer's tokens are verified with.
func (k *checker) keys(at string, iss *Issuer) {
	secrets := len(iss.Secrets) > 0 || iss.SecretFile != "" || iss.SecretEnv != ""
	if !secrets && len(iss.PublicKeyFiles) == 0 && iss.JWKSURL == "" {
		k.say(at, "has no key; set secret_env, secret_file or secrets, public_key_files, or jwks_url")
	}
	for j, s := range iss.Secrets {
		if err := checkSecret([]byte(s)); err != nil {
			k.say(fmt.Sprintf("%s.secrets[%d]", at, j), "%v", err)
		}
	}
	if n := len(iss.Keys()) + len(iss.public); n > maxKeys {
		k.say(at, "has %d secrets and keys; it is at most %d, as a token is tried with each", n, maxKeys)
	}
	if iss.JWKSURL != "" {
		if err := checkJWKSURL(iss.JWKSURL, iss.AllowPrivate); err != nil {
			k.say(at+".jwks_url", "%v", err)
		}
	}
	if iss.AllowPrivate && iss.JWKSURL == "" {
		k.say(at+".allow_private", "is for jwks_url, and there is none")
	}
	k.algorithms(at+".algorithms", iss, secrets)
}

// algorithms checks that those listed are those of the keys.
func (k *checker) algorithms(at string, iss *Issuer, secrets bool) {
	if len(iss.Algorithms) == 0 {
		return
	}
	has := map[string]bool{hs256: secrets}
	for _, key := range iss.public {
		alg, _ := algorithmOf(key) // it was read as one that has
		has[alg] = true
	}
	for j, alg := range iss.Algorithms {
		switch {
		case !slices.Contains([]string{hs256, rs256, es256, eddsa}, alg):
			k.say(fmt.Sprintf("%s[%d]", at, j), "%q is not supported; it is HS256, RS256, ES256 or EdDSA", clip(alg))
		case alg == hs256 && !secrets:
			k.say(fmt.Sprintf("%s[%d]", at, j), "HS256 needs a secret, and there is none; a public key is none")
		case alg != hs256 && !has[alg] && iss.JWKSURL == "" && len(iss.public) >= len(iss.PublicKeyFiles):
			k.say(fmt.Sprintf("%s[%d]", at, j), "there is no key for %s in public_key_files", alg)
		}
	}
	for _, alg := range []string{hs256, rs256, es256, eddsa} {
		if has[alg] && !slices.Contains(iss.Algorithms, alg) {
			k.say(at, "has no %s, which its keys are for", alg)
		}
	}
}

// checkSecret refuses what is too short, and what is no secret.
func checkSecret(s []byte) error {
	if len(s) < minSecret {
		return fmt.Errorf("the secret has %d bytes; HS256 needs at least %d", len(s), minSecret)
	}
	if bytes.Contains(s, []byte("-----BEGIN ")) {
		return errors.New("is a key in PEM, which is no secret: everybody could sign with a public one; name its file in public_key_files")
	}
	return nil
}

func checkJWKSURL(s string, private bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Hostname() == "", u.Fragment != "":
		return errors.New("is not a URL like https://id.example.com/.well-known/jwks.json")
	case u.User != nil:
		return errors.New("has a name or password in it; keys are public, so it needs none")
	case u.Scheme == "https", u.Scheme == "http" && private:
		return nil
	}
	return errors.New("is not https, so whoever is on the way could put keys in; with allow_private it may be http")
}

func (k *checker) limits(l *Limits) {
	for _, s := range []struct {
		path           string
		n, least, most Size
	}{
		{"limits.event_bytes", l.EventBytes, 256, 8 * mib},
		{"limits.request_bytes", l.RequestBytes, kib, gib},
		{"limits.frame_bytes", l.FrameBytes, kib, 64 * mib},
		{"limits.header_bytes", l.HeaderBytes, kib, mib},
		{"limits.token_bytes", l.TokenBytes, 256, mib},
		{"limits.ce_bytes", l.CEBytes, 256, 16 * kib},
		{"limits.jwks_bytes", l.JWKSBytes, kib, 16 * mib},
		{"limits.outbox_bytes", l.OutboxBytes, 4 * kib, gib},
		{"limits.ephemeral_bytes", l.EphemeralBytes, 256, gib},
		{"limits.ring_bytes", l.RingBytes, mib, 1024 * gib},
		{"limits.proxy_header_bytes", l.ProxyHeaderBytes, 256, 64 * kib},
		{"limits.history_bytes", l.HistoryBytes, kib, gib},
		{"limits.publish_in_flight_bytes", l.PublishInFlightBytes, kib, 1024 * gib},
	} {
		if s.n < s.least || s.n > s.most {
			k.say(s.path, "is %s; it is from %s to %s", s.n, s.least, s.most)
		}
	}
	if l.EventBytes > l.RequestBytes {
		k.say("limits.event_bytes", "is %s, more than a whole request may have (limits.request_bytes, %s)", l.EventBytes, l.RequestBytes)
	}
	for _, n := range []struct {
		path        string
		n           int
		least, most int64
	}{
		{"limits.batch_events", l.BatchEvents, 1, 10_000},
		{"limits.handshakes", l.Handshakes, 1, 1_000_000},
		{"limits.requests_in_flight", l.RequestsInFlight, 1, 1_000_000},
		{"limits.memory_percent", l.MemoryPercent, 0, 100},
		{"limits.subscriptions_per_connection", l.SubscriptionsPerConnection, 1, 1_000_000},
		{"limits.wildcard_shapes_per_org", l.WildcardShapesPerOrg, 1, 1_000_000},
		{"limits.publishes_in_flight_per_connection", l.PublishesInFlightPerConnection, 1, 65_536},
		{"limits.bad_frames_per_minute", l.BadFramesPerMinute, 1, 1_000_000},
		{"limits.control_frames_per_minute", l.ControlFramesPerMinute, 10, 1_000_000_000},
		{"limits.inflating", l.Inflating, 1, 1024},
		{"limits.users_per_event", l.UsersPerEvent, 1, 100_000},
		{"limits.tickets", l.Tickets, 1, 10_000_000},
		{"limits.verified_tokens", l.VerifiedTokens, 0, 10_000_000},
		{"limits.poll_sessions", l.PollSessions, 1, 10_000_000},
		{"limits.jwks_keys", l.JWKSKeys, 1, 10_000},
		{"limits.jwks_unknown", l.JWKSUnknown, 1, 1_000_000},
		{"limits.jwks_waiting", l.JWKSWaiting, 1, 1_000_000},
		{"limits.publish_in_flight", l.PublishInFlight, 1, 100_000_000},
		{"limits.feed_queue", l.FeedQueue, 1, 65_536},
		{"limits.conflated_subjects", l.ConflatedSubjects, 1, 1_000_000},
		{"limits.mailbox", l.Mailbox, 16, 1 << 20},
		{"limits.ephemeral_buffer", l.EphemeralBuffer, 1, 1 << 20},
		{"limits.scan_workers", l.ScanWorkers, 1, 1024},
		{"limits.history_page", l.HistoryPage, 1, 100_000},
		{"limits.history_concurrent", l.HistoryConcurrent, 1, 65_536},
	} {
		k.between(n.path, int64(n.n), n.least, n.most)
	}
	k.notNegative("limits.publish_per_second", int64(l.PublishPerSecond))
	k.notNegative("limits.publish_burst", int64(l.PublishBurst))
	k.notNegative("limits.publish_bytes_per_second", int64(l.PublishBytesPerSecond))
	k.notNegative("limits.connections", int64(l.Connections))
	k.notNegative("limits.connections_per_node", int64(l.ConnectionsPerNode))
	k.notNegative("limits.connections_per_address", int64(l.ConnectionsPerAddress))
	k.notNegative("limits.connections_per_user", int64(l.ConnectionsPerUser))
}

func (k *checker) handshakes(h *Handshakes) {
	k.between("handshakes.per_second", int64(h.PerSecond), 0, 1_000_000)
	k.between("handshakes.burst", int64(h.Burst), 0, 1_000_000)
	k.between("handshakes.concurrent", int64(h.Concurrent), 0, 1_000_000)
	k.between("handshakes.queue", int64(h.Queue), 0, 1_000_000)
	if h.Wait < 0 || h.Wait > minute {
		k.say("handshakes.wait", "is %s; it is from 0s to %s", h.Wait, minute)
	}
}

func (k *checker) timing(c *Config) {
	k.atLeast("jwks.timeout", c.JWKS.Timeout, second/10)
	k.atLeast("jwks.min_interval", c.JWKS.MinInterval, second)
	if c.JWKS.Refresh < c.JWKS.MinInterval {
		k.say("jwks.refresh", "is %s, less than jwks.min_interval (%s)", c.JWKS.Refresh, c.JWKS.MinInterval)
	}
	if c.JWKS.MaxStale < c.JWKS.Refresh {
		k.say("jwks.max_stale", "is %s, less than jwks.refresh (%s): keys would end before they are fetched again", c.JWKS.MaxStale, c.JWKS.Refresh)
	}
	k.atLeast("connection.handshake_timeout", c.Connection.HandshakeTimeout, second/10)
	k.atLeast("connection.header_timeout", c.Connection.HeaderTimeout, second/10)
	k.atLeast("connection.max_idle", c.Connection.MaxIdle, second)
	k.atLeast("connection.dead_after", c.Connection.DeadAfter, second)
	if c.Connection.DeadAfter <= c.Connection.MaxIdle {
		k.say("connection.dead_after", "is %s; it is more than connection.max_idle (%s), after which a client is asked", c.Connection.DeadAfter, c.Connection.MaxIdle)
	}
	k.atLeast("connection.connect_timeout", c.Connection.ConnectTimeout, second/10)
	k.atLeast("connection.message_timeout", c.Connection.MessageTimeout, second/10)
	k.atLeast("connection.write_timeout", c.Connection.WriteTimeout, second/10)
	if b := c.Connection.SendBuffer; b < 4*kib || b > 64*mib {
		k.say("connection.send_buffer", "is %s; it is from 4KiB to 64MiB", b)
	}
	if b := c.Connection.CompressionMin; b < 1 || b > 64*mib {
		k.say("connection.compression_min", "is %s; it is from 1 byte to 64MiB", b)
	}
	k.atLeast("connection.body_timeout", c.Connection.BodyTimeout, second/10)
	if d := c.Connection.MaxLifetime; d != 0 && d < 10*second {
		k.say("connection.max_lifetime", "is %s; it is at least 10s, or 0s for none", d)
	}
	k.handshakes(&c.Handshakes)
	k.between("drain.rate", int64(c.Drain.Rate), 0, 1_000_000)
	k.atLeast("connection.token_spread", c.Connection.TokenSpread, second/10)
	k.atLeast("sse.keepalive", c.SSE.Keepalive, second)
	for _, w := range []struct {
		path string
		d    Duration
	}{{"poll.wait_max", c.Poll.WaitMax}, {"poll.wait_default", c.Poll.WaitDefault}} {
		if w.d < second || w.d%second != 0 {
			k.say(w.path, "is %s; it is whole seconds, at least 1s", w.d)
		}
	}
	if c.Poll.WaitMax > 5*minute {
		k.say("poll.wait_max", "is %s; proxies cut a request that is silent so long; it is at most 5m", c.Poll.WaitMax)
	}
	if c.Poll.WaitDefault > c.Poll.WaitMax {
		k.say("poll.wait_default", "is %s, more than poll.wait_max (%s)", c.Poll.WaitDefault, c.Poll.WaitMax)
	}
	for _, w := range []struct {
		path    string
		d, most Duration
	}{{"poll.gather", c.Poll.Gather, second}, {"poll.linger", c.Poll.Linger, minute}} {
		if w.d < 0 || w.d > w.most {
			k.say(w.path, "is %s; it is from 0s to %s", w.d, w.most)
		}
	}
	if n := c.Memory.Garbage; n < 0 || n > 64*gib {
		k.say("memory.garbage", "is %s; it is from 0 to %s", n, 64*gib)
	}
	if c.Drain.Window > c.Drain.Deadline {
		k.say("drain.window", "is %s, longer than drain.deadline (%s)", c.Drain.Window, c.Drain.Deadline)
	}
}

func (k *checker) listen(path, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || strings.ContainsAny(host, "/ ") {
		k.say(path, "%q is not host:port, like 127.0.0.1:8080 or :8080", clip(addr))
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		k.say(path, "%q has no port from 0 to 65535 after the colon", clip(addr))
	}
}

func (k *checker) oneOf(path, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		k.say(path, "%q is not known; it is %s", clip(s), strings.Join(allowed, " or "))
	}
}

func (k *checker) between(path string, n, least, most int64) {
	if n < least || n > most {
		k.say(path, "is %d; it is from %d to %d", n, least, most)
	}
}

func (k *checker) atLeast(path string, d, least Duration) {
	if d < least {
		k.say(path, "is %s; it is at least %s", d, least)
	}
}

func (k *checker) orgBytes(path string, b Size) {
	if b != 0 && b < mib {
		k.say(path, "is %s; it is 0 for no limit, or at least 1MiB", b)
	}
}

func (k *checker) notNegative(path string, n int64) {
	if n < 0 {
		k.say(path, "is %d; it is 0 for no limit, or more", n)
	}
}

// checkOrigin takes an origin exactly as a browser sends it: scheme, host, and
// port unless it is the scheme's own.
func checkOrigin(s string) error {
	switch {
	case s == "null":
		return fmt.Errorf("null may be any page, and is always refused")
	case strings.Contains(s, "*"):
		return fmt.Errorf("%q: there are no wildcards; list the origins one by one", clip(s))
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Hostname() == "" {
		return fmt.Errorf("%q is not scheme://host or scheme://host:port, like https://app.example.com", clip(s))
	}
	host := strings.ToLower(u.Host)
	if u.Scheme == "http" {
		host = strings.TrimSuffix(host, ":80")
	}
	if u.Scheme == "https" {
		host = strings.TrimSuffix(host, ":443")
	}
	if want := u.Scheme + "://" + host; s != want {
		return fmt.Errorf("%q: browsers send this origin as %s", clip(s), want)
	}
	return nil
}
