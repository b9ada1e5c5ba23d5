package auth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/org"
)

// TicketLife is how long a ticket may be used.
const TicketLife = 30 * time.Second

// minTicketKey is the least length of Tickets.Key.
const minTicketKey = 32

// Tickets is what tickets need. A ticket is its token's claims, sealed: there is
// nothing to remember until it is used.
type Tickets struct {
	Key  []byte // the same on every node, at least 32 bytes
	Used Claimer
	Most int // tickets used at about the same time, within one to two minutes; 0: DefaultMostTickets
}

// DefaultMostTickets is how many used tickets are remembered.
const DefaultMostTickets = 100_000

// Claimer remembers which tickets were used, on whichever node: it is the
// engine's KV.
type Claimer interface {
	// Claim fails with engine.ErrKeyExists unless it is the first for this key
	// within the time.
	Claim(ctx context.Context, key string, within time.Duration) error
}

// usedFor is how long a used ticket is remembered: a node whose clock is late
// may take it for so long.
const usedFor = TicketLife + Leeway

// tickets is a Tickets in use.
type tickets struct {
	Tickets

	mu        sync.Mutex // guards what follows
	used, old int        // tickets, in this usedFor and in the one before
	turn      time.Time  // when used becomes old
}

func newTickets(cfg *Tickets) (*tickets, error) {
	if cfg == nil {
		return nil, nil
	}
	if len(cfg.Key) < minTicketKey || cfg.Used == nil {
		return nil, fmt.Errorf("auth: tickets need a key of at least %d bytes and a Claimer", minTicketKey)
	}
	t := &tickets{Tickets: *cfg}
	if t.Most <= 0 {
		t.Most = DefaultMostTickets
	}
	return t, nil
}

// reserve counts one more that is used, unless there are as many as may be.
func (t *tickets) reserve(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !now.Before(t.turn) {
		t.old = t.used
		if !now.Before(t.turn.Add(usedFor)) {
			t.old = 0
		}
		t.used, t.turn = 0, now.Add(usedFor)
	}
	if t.used+t.old >= t.Most {
		return false
	}
	t.used++
	return true
}

// release takes one back that left no trace.
func (t *tickets) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used = max(t.used-1, 0) // it may be an old one by now
}

// Ticket makes a ticket that stands for a credential's token once, within
// TicketLife and no longer than the token itself. What stands for no token, an
// API key or another ticket, gets none.
func (a *Authenticator) Ticket(ctx context.Context, c Credential) (ticket string, life time.Duration, err error) {
	switch {
	case a.tickets == nil:
		return "", 0, carillon.Errorf(carillon.CodeNotFound, "there are no tickets here; use ?token=")
	case c.Where == InHeader && org.IsKey(c.Text):
		return "", 0, carillon.Errorf(carillon.CodeForbidden, "a ticket stands for a user's token; an API key belongs in the Authorization header")
	case c.Where == InTicket:
		return "", 0, carillon.BadRequest("a ticket does not make another one")
	}
	p, err := a.Verify(ctx, c)
	if err != nil {
		return "", 0, err
	}
	_, _, payload, _ := cutToken(c.Text)
	claims, _ := decode(payload) // as Verify did
	now := a.now()
	ticket = a.tickets.seal(claims, now.Add(TicketLife))
	if len(ticket) > a.maxBytes {
		return "", 0, carillon.Errorf(carillon.CodeTooLarge, "the token's claims are too long for a ticket")
	}
	return ticket, min(TicketLife, p.Expires.Sub(now)), nil
}

// redeem verifies a ticket and uses it up.
func (a *Authenticator) redeem(ctx context.Context, ticket string) (*carillon.Principal, error) {
	p, err := a.use(ctx, ticket)
	return p, a.refused(err)
}

func (a *Authenticator) use(ctx context.Context, ticket string) (*carillon.Principal, error) {
	if err := a.tooLong(ticket); err != nil {
		return nil, err
	}
	if a.tickets == nil {
		return nil, badTicket(errors.New("there are no tickets"))
	}
	id, payload, late, err := a.tickets.open(ticket)
	if err != nil {
		return nil, badTicket(err)
	}
	if !a.now().Before(late) {
		return nil, badTicket(errors.New("it is late"))
	}
	claims, err := parseObject(payload)
	if err != nil {
		return nil, badTicket(err)
	}
	iss, err := a.issuer(claims)
	if err != nil {
		return nil, badTicket(err)
	}
	p, _, err := a.principal(claims, iss)
	if err != nil {
		return nil, refuseClaims(err)
	}
	if !a.tickets.reserve(a.now()) {
		a.hits.Add("tickets")
		return nil, cannotCheck(nil)
	}
	switch err := a.tickets.Used.Claim(ctx, "ticket."+hex.EncodeToString(id[:]), usedFor); {
	case errors.Is(err, engine.ErrKeyExists):
		a.tickets.release()
		return nil, badTicket(errors.New("it was used before"))
	case err != nil:
		return nil, cannotCheck(err)
	}
	return p, nil
}

func cannotCheck(err error) error {
	return carillon.Unavailable(time.Second, err, "the ticket cannot be checked right now; get another one and try again")
}

func badTicket(err error) error {
	return &carillon.Error{Code: carillon.CodeUnauthenticated, Message: "the ticket is not valid; it is good once, for 30 seconds", Err: fmt.Errorf("auth: ticket: %w", err)}
}

const (
	ticketID    = 16 // random bytes in front of the sealed part
	ticketUntil = 8  // milliseconds since 1970, in front of the claims
)

// seal makes the text of a ticket.
func (t *tickets) seal(claims []byte, until time.Time) string {
	var id [ticketID]byte
	_, _ = rand.Read(id[:]) // never fails
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, ticketUntil+len(claims)), uint64(until.UnixMilli()))
	plain = append(plain, claims...)
	return text64(t.cipher(id).Seal(id[:], make([]byte, nonceBytes), plain, nil))
}

// open reads what seal made.
func (t *tickets) open(ticket string) (id [ticketID]byte, claims []byte, until time.Time, err error) {
	b, err := decode(ticket)
	if err != nil || len(b) < ticketID {
		return id, nil, time.Time{}, errors.New("not one of ours")
	}
	copy(id[:], b)
	plain, err := t.cipher(id).Open(nil, make([]byte, nonceBytes), b[ticketID:], nil)
	if err != nil || len(plain) < ticketUntil {
		return id, nil, time.Time{}, errors.New("not one of ours")
	}
	return id, plain[ticketUntil:], time.UnixMilli(int64(binary.BigEndian.Uint64(plain))), nil
}

const nonceBytes = 12

// cipher is that of one ticket: its key comes from the ticket's id and seals
// nothing else, so that the nonce does not matter.
func (t *tickets) cipher(id [ticketID]byte) cipher.AEAD {
	m := hmac.New(sha256.New, t.Key)
	m.Write(id[:])
	block, err := aes.NewCipher(m.Sum(nil))
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCM(block); err == nil {
			return aead
		}
	}
	panic("auth: AES-256-GCM: " + err.Error()) // of 32 bytes it never fails
}
