package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/org"
)

// maxDate is the last second of the year 9999. An exp above it is a mistake,
// most often milliseconds.
const maxDate = 253402300799

// base64url without padding, and only the one spelling of each value.
var base64url = base64.RawURLEncoding.Strict()

// VerifyToken verifies a JWT: a JWS in compact form (RFC 7515), signed with a
// key of its issuer, whose claims (RFC 7519) are those of the protocol. An API
// key is refused with a message that says where keys belong.
//
// Where the issuer's key is not known yet and may be fetched it waits for that,
// or for ctx; otherwise it does no I/O. A token that cannot be judged now is
// unavailable.
//
// The principal's Expires is the token's exp. Where the leeway alone still
// carries the token, it is the end of the leeway.
//
// What is wrong with the claims is said to the client only when the signature
// is good; before that, a token is valid or it is not.
func (a *Authenticator) VerifyToken(ctx context.Context, token string) (*carillon.Principal, error) {
	p, err := a.verify(token)
	var unknown *unknownKeyError
	if errors.As(err, &unknown) {
		fetched := make(chan struct{})
		if err = unknown.fetch(func() { close(fetched) }); err == nil {
			select {
			case <-fetched:
				p, err = a.again(token)
			case <-ctx.Done():
				err = carillon.Unavailable(0, ctx.Err(), "the keys of the token's issuer have not come yet; try again")
			}
		}
	}
	return p, a.refused(err)
}

// Submit is VerifyToken for those who cannot wait. done is called exactly once,
// possibly at once; it must not block.
func (a *Authenticator) Submit(token string, done func(*carillon.Principal, error)) {
	p, err := a.verify(token)
	var unknown *unknownKeyError
	if errors.As(err, &unknown) {
		err = unknown.fetch(func() {
			p, err := a.again(token)
			done(p, a.refused(err))
		})
		if err == nil {
			return
		}
	}
	done(p, a.refused(err))
}

// again verifies a token whose key was fetched meanwhile, or could not be.
func (a *Authenticator) again(token string) (*carillon.Principal, error) {
	p, err := a.verify(token)
	var unknown *unknownKeyError
	if errors.As(err, &unknown) {
		err = unknown.fetch(nil)
	}
	return p, err
}

// verify judges a token by the keys that are at hand, or remembers that it did. An
// *unknownKeyError says that it names another key.
func (a *Authenticator) verify(token string) (*carillon.Principal, error) {
	if org.IsKey(token) {
		return nil, keyElsewhere()
	}
	if err := a.tooLong(token); err != nil {
		return nil, err
	}
	sum := sumOf(token)
	if p := a.find(&sum); p != nil {
		return p, nil
	}
	claims, iss, proof, err := a.open(token)
	if err != nil {
		return nil, notValid(err)
	}
	if proof.principal, proof.life, err = a.principal(claims, iss); err != nil {
		return nil, refuseClaims(err)
	}
	a.verified.remember(&sum, &proof)
	return proof.principal, nil
}

func notValid(err error) error {
	return &carillon.Error{Code: carillon.CodeUnauthenticated, Message: "the token is not valid", Err: fmt.Errorf("auth: %w", err)}
}

// open checks form, header and signature, and returns the claims, who made them, and
// with which key.
func (a *Authenticator) open(token string) (object, *issuer, proof, error) {
	signed, sig64, payload64, err := cutToken(token)
	if err != nil {
		return nil, nil, proof{}, err
	}
	head, err := parseHeader(signed[:len(signed)-len(payload64)-1])
	if err != nil {
		return nil, nil, proof{}, fmt.Errorf("header: %w", err)
	}
	payload, err := decode(payload64)
	if err != nil {
		return nil, nil, proof{}, fmt.Errorf("claims: %w", err)
	}
	claims, err := parseObject(payload)
	if err != nil {
		return nil, nil, proof{}, fmt.Errorf("claims: %w", err)
	}
	sig, err := decode(sig64)
	if err != nil {
		return nil, nil, proof{}, fmt.Errorf("signature: %w", err)
	}
	iss, err := a.issuer(claims)
	if err != nil {
		return nil, nil, proof{}, err
	}
	if err := iss.checkType(head.typ); err != nil {
		return nil, nil, proof{}, err
	}
	good, err := iss.verify(head, signed, sig)
	return claims, iss, good, err
}

// issuer is who the claims say has made them. It chooses the keys; nothing else
// in a token has a say.
func (a *Authenticator) issuer(claims object) (*issuer, error) {
	name, named, err := claims.text("iss")
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	iss := a.issuers[name]
	if iss == nil || named != (name != "") {
		return nil, errors.New("no such issuer is configured")
	}
	return iss, nil
}

// cutToken splits header.claims.signature.
func cutToken(token string) (signed, signature, claims string, err error) {
	last := strings.LastIndexByte(token, '.')
	if last < 0 || strings.Count(token, ".") != 2 {
		return "", "", "", errors.New("not three parts with dots between")
	}
	signed, signature = token[:last], token[last+1:]
	_, claims, _ = strings.Cut(signed, ".")
	return signed, signature, claims, nil
}

func decode(part string) ([]byte, error) {
	if strings.ContainsAny(part, "\r\n") { // which encoding/base64 skips
		return nil, errors.New("not base64url")
	}
	b, err := base64url.DecodeString(part)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	return b, nil
}

// claimError is a fault in the claims of a token whose signature is good. Its
// text is for the client.
type claimError string

func (e claimError) Error() string { return string(e) }

func badClaim(format string, args ...any) error { return claimError(fmt.Sprintf(format, args...)) }

func refuseClaims(err error) error {
	e := carillon.AsError(notValid(err))
	var c claimError
	if errors.As(err, &c) {
		e.Message += ": " + string(c)
	}
	if errors.Is(err, errExpired) {
		e.Message = "the token has expired"
	}
	return e
}

var errExpired = errors.New("expired")

// principal reads the claims and looks up the organization they name. As long as that
// can be used, the claims say the same all through the life returned.
func (a *Authenticator) principal(claims object, iss *issuer) (p *carillon.Principal, l life, err error) {
	p, id, l, err := readClaims(claims, iss.orgClaim, a.now(), &a.shared)
	if err != nil {
		return nil, l, err
	}
	if err := checkAudience(claims, iss.audience); err != nil {
		return nil, l, err
	}
	if !iss.any && !slices.Contains(iss.orgs, id) {
		return nil, l, fmt.Errorf("issuer %q may not name organization %q", iss.name, id)
	}
	o, err := a.organization(id)
	if err != nil {
		return nil, l, err
	}
	p.Org = o.ID
	return p, l, nil
}

// readClaims reads what the claims say by themselves: whom they stand for, and
// whether they hold now.
func readClaims(claims object, orgClaim string, now time.Time, shared *shared) (p *carillon.Principal, id carillon.OrgID, l life, err error) {
	expires, l, err := validity(claims, now)
	if err != nil {
		return nil, "", l, err
	}
	p = &carillon.Principal{Role: carillon.RoleMember, Expires: expires}
	sub, found, err := claims.text("sub")
	if err != nil || !found {
		return nil, "", l, wrong("sub", "the user", err)
	}
	if p.User, err = carillon.ParseUser(sub); err != nil {
		return nil, "", l, badClaim("sub: %s", carillon.AsError(err).Message)
	}
	name, found, err := claims.text(orgClaim)
	if err != nil || !found {
		return nil, "", l, wrong(orgClaim, "the organization", err)
	}
	if id, err = carillon.ParseOrgID(name); err != nil {
		return nil, "", l, badClaim("%s: %s", orgClaim, carillon.AsError(err).Message)
	}
	role, found, err := claims.text("role")
	if err != nil {
		return nil, "", l, badClaim("%v", err)
	}
	if found {
		i := slices.Index(roles[:], carillon.Role(role))
		if i < 0 {
			return nil, "", l, badClaim("role is member, publisher or admin")
		}
		p.Role = roles[i] // and not the text of each token
	}
	v, found, err := claims.get("permissions")
	if err != nil {
		return nil, "", l, badClaim("%v", err)
	}
	if found {
		if p.Permissions, err = shared.permissions(v); err != nil {
			return nil, "", l, badClaim("permissions: %v", err)
		}
	}
	return p, id, l, nil
}

// wrong says that a claim is missing or of the wrong kind.
func wrong(name, what string, err error) error {
	if err == nil {
		return badClaim("it needs %s, %s", name, what)
	}
	return badClaim("%v", err)
}

// validity checks exp and nbf, and returns when the principal ends, and how long that
// is so.
func validity(claims object, now time.Time) (expires time.Time, l life, err error) {
	exp, found, err := date(claims, "exp")
	if err != nil {
		return expires, l, err
	}
	if !found {
		return expires, l, badClaim("it needs exp, the time it expires")
	}
	end := exp.Add(Leeway)
	if !now.Before(end) {
		return expires, l, errExpired
	}
	nbf, found, err := date(claims, "nbf")
	if err != nil {
		return expires, l, err
	}
	l = always()
	if found {
		begin := nbf.Add(-Leeway)
		if now.Before(begin) {
			return expires, l, badClaim("its nbf is in the future")
		}
		l = l.after(begin)
	}
	if now.Before(exp) {
		return exp, l.before(exp), nil
	}
	return end, l.after(exp).before(end), nil
}

// date reads a NumericDate: seconds since 1970, fractions allowed.
func date(claims object, name string) (t time.Time, found bool, err error) {
	v, found, err := claims.get(name)
	if err != nil {
		return time.Time{}, true, badClaim("%v", err)
	}
	if !found {
		return time.Time{}, false, nil
	}
	if v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return time.Time{}, true, badClaim("%s is a number, seconds since 1970", name)
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f < 0 || f > maxDate {
		return time.Time{}, true, badClaim("%s is out of range; it is seconds since 1970, not milliseconds", name)
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)), true, nil
}

func checkAudience(claims object, want string) error {
	if want == "" {
		return nil
	}
	v, found, err := claims.get("aud")
	if err != nil {
		return badClaim("%v", err)
	}
	if !found {
		return errors.New("no aud, and the issuer has one")
	}
	if one, err := unquote(v); err == nil {
		if one != want {
			return errors.New("aud is another's")
		}
		return nil
	}
	list, err := texts(v)
	if err != nil {
		return badClaim("aud is a string or a list of strings")
	}
	if !slices.Contains(list, want) {
		return errors.New("aud is others'")
	}
	return nil
}

var roles = [...]carillon.Role{carillon.RoleMember, carillon.RolePublisher, carillon.RoleAdmin}

// parsePermissions reads the permissions claim.
func parsePermissions(v []byte) (*carillon.Permissions, error) {
	if v[0] != '{' {
		return nil, errors.New("it is an object with subscribe, publish and rooms")
	}
	o, err := split(v)
	if err != nil {
		return nil, err
	}
	for _, m := range o {
		switch string(m.name) {
		case "subscribe", "publish", "rooms":
		default:
			return nil, fmt.Errorf("%s is not known; it has subscribe, publish and rooms", strconv.QuoteToASCII(clip(string(m.name))))
		}
	}
	p := &carillon.Permissions{}
	n := 0
	list := func(name string) ([]string, error) {
		v, found, err := o.get(name)
		if err != nil || !found {
			return nil, err
		}
		l, err := texts(v)
		if err != nil {
			return nil, fmt.Errorf("%s is %w", name, err)
		}
		if n += len(l); n > MaxPatterns {
			return nil, fmt.Errorf("more than %d patterns", MaxPatterns)
		}
		return l, nil
	}
	if p.Subscribe, err = patterns(list("subscribe")); err != nil {
		return nil, err
	}
	if p.Publish, err = patterns(list("publish")); err != nil {
		return nil, err
	}
	if p.Rooms, err = list("rooms"); err != nil {
		return nil, err
	}
	for _, glob := range p.Rooms {
		if !validGlob(glob) {
			return nil, fmt.Errorf("room glob %s: 1–%d letters, digits, '.', '_', ':', '-' and '*'", strconv.QuoteToASCII(clip(glob)), carillon.MaxRoomLen)
		}
	}
	return p, nil
}

func patterns(list []string, err error) ([]carillon.Pattern, error) {
	if err != nil || list == nil {
		return nil, err
	}
	out := make([]carillon.Pattern, len(list))
	for i, s := range list {
		if out[i], err = carillon.ParsePattern(s); err != nil {
			return nil, errors.New(carillon.AsError(err).Message)
		}
	}
	return out, nil
}

// validGlob takes the name of a room in which '*' stands for any characters.
func validGlob(s string) bool {
	if s == "" || len(s) > carillon.MaxRoomLen {
		return false
	}
	_, err := carillon.ParseRoom(strings.ReplaceAll(s, "*", "_"))
	return err == nil
}

// clip shortens what an error repeats.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// keyElsewhere refuses an API key that did not come in an Authorization header.
func keyElsewhere() error {
	return carillon.Errorf(carillon.CodeUnauthenticated, "an API key belongs in the Authorization header only; elsewhere it needs a token")
}
