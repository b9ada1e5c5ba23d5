package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
)

// Query says which deliveries are wanted; a zero field wants all.
type Query struct {
	Source   string
	States   []State   // any of these
	Event    string    // what the provider calls it; with a '*' at the end, all that begin so
	Delivery string    // the provider's id
	Remote   string    // the client's address
	Since    time.Time // received then or later
	Until    time.Time // received before
	Before   string    // what a page before this one said is next
	Limit    int       // 1 to MaxPage; 0: DefaultPage
}

// DefaultPage is how many deliveries a page has where the query does not say.
const DefaultPage = 50

// Bounds of what one call of List looks at.
const (
	maxNames = 64    // events that begin as is wanted, each looked up on its own
	maxLook  = 5_000 // rows that are looked at because no index has all that is wanted
)

// List gives the organization's deliveries, newest first, and what the next page
// begins before; "" where there are no more. What comes in meanwhile changes no
// page that follows. Where a query combines what no index has together, a page may
// be short, or empty, although there is a next one: a call looks at a bounded
// number of rows. What is wrong with a query is said by a *carillon.Error.
func (l *Ledger) List(ctx context.Context, org carillon.OrgID, q Query) (page []Delivery, next string, err error) {
	s, err := q.search(org)
	if err != nil {
		return nil, "", err
	}
	err = l.view(ctx, func(c querier) error {
		page, next, err = s.run(ctx, c)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return page, next, nil
}

// spot is a row's place in the order of a list.
type spot struct{ received, place int64 }

func (s spot) String() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(s.received))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, uint64(s.place)))
}

func parseSpot(s string) (spot, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 16 {
		return spot{}, carillon.BadRequest("%q is not where a page begins: take what the page before it said is next", clip(s, 40))
	}
	return spot{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

// newest orders spots.
func newest(a, b spot) int {
	return cmp.Or(cmp.Compare(b.received, a.received), cmp.Compare(b.place, a.place))
}

// search is a query that has been looked at. It is a walk through ranges of one
// index, one for each state and name, which are merged.
type search struct {
	index  string
	equal  string   // the index's column beside org and state, or ""
	names  []string // its values; of the index without one, ""
	prefix string   // the events to look up first, if equal is event
	states []State

	rest     []string // conditions that the index does not know
	restArgs []any

	org          carillon.OrgID
	since, until int64 // inclusive; the range that the index is asked for
	before       spot
	limit        int
}

func (q *Query) search(org carillon.OrgID) (*search, error) {
	s := &search{
		org: org, since: math.MinInt64, until: math.MaxInt64, before: spot{math.MaxInt64, math.MaxInt64}, limit: q.Limit,
		index: "delivery_state", names: []string{""},
	}
	if q.Limit == 0 {
		s.limit = DefaultPage
	}
	if s.limit < 1 || s.limit > MaxPage {
		return nil, carillon.BadRequest("a page has 1 to %d deliveries, not %d", MaxPage, q.Limit)
	}
	if q.Before != "" {
		var err error
		if s.before, err = parseSpot(q.Before); err != nil {
			return nil, err
		}
	}
	if !q.Since.IsZero() {
		s.since = q.Since.Add(time.Millisecond - 1).UnixMilli() // rows have whole ones
	}
	if !q.Until.IsZero() {
		s.until = q.Until.Add(time.Millisecond-1).UnixMilli() - 1
	}
	s.until = min(s.until, s.before.received)
	for state := range State(len(states)) {
		if len(q.States) == 0 || slices.Contains(q.States, state) {
			s.states = append(s.states, state)
		}
	}
	// The first of these that is wanted is looked up, since few rows have it; the
	// others are conditions.
	for _, c := range [...]struct{ column, want string }{
		{"delivery", q.Delivery}, {"remote", q.Remote}, {"event", q.Event}, {"source", q.Source},
	} {
		if c.want == "" {
			continue
		}
		want := clip(c.want, maxName)
		begin, many := strings.CutSuffix(want, "*")
		many = many && c.column == "event"
		switch {
		case many && begin == "":
		case s.equal == "" && many:
			s.index, s.equal, s.prefix = "delivery_event", "event", begin
		case s.equal == "":
			s.index, s.equal, s.names = "delivery_"+c.column, c.column, []string{want}
		case many:
			s.among(begin)
		default:
			s.rest, s.restArgs = append(s.rest, c.column+" = ?"), append(s.restArgs, want)
		}
	}
	return s, nil
}

// among makes it a condition that the event begins so.
func (s *search) among(begin string) {
	s.rest, s.restArgs = append(s.rest, "event >= ? AND event < ?"), append(s.restArgs, begin, after(begin))
}

// after is above all texts that begin so, and above no other that is larger than
// these. No text has the byte 0xff.
func after(begin string) string { return begin + "\xff" }

func (s *search) run(ctx context.Context, q querier) (page []Delivery, next string, err error) {
	if s.prefix != "" {
		if err := s.lookUp(ctx, q); err != nil {
			return nil, "", err
		}
	}
	last, cut := spot{math.MinInt64, math.MinInt64}, false
	if len(s.rest) > 0 {
		if last, cut, err = s.horizon(ctx, q); err != nil {
			return nil, "", err
		}
		s.since = max(s.since, last.received)
	}
	found, err := s.walk(ctx, q, last)
	if err != nil {
		return nil, "", err
	}
	switch {
	case len(found) > s.limit:
		found = found[:s.limit]
		next = found[s.limit-1].String()
	case cut:
		next = last.String()
	}
	page, err = fetch(ctx, q, s.org, found)
	return page, next, err
}

// lookUp finds the events that begin as is wanted. If they are many, their being
// so becomes a condition.
func (s *search) lookUp(ctx context.Context, q querier) error {
	rows, err := q.QueryContext(ctx, `WITH RECURSIVE found (event) AS (
			SELECT min(event) FROM delivery INDEXED BY delivery_event WHERE org = ?1 AND event >= ?2 AND event < ?3
			UNION ALL
			SELECT (SELECT min(event) FROM delivery INDEXED BY delivery_event WHERE org = ?1 AND event > found.event AND event < ?3)
			FROM found WHERE found.event IS NOT NULL)
		SELECT event FROM found WHERE event IS NOT NULL LIMIT ?4`, string(s.org), s.prefix, after(s.prefix), maxNames+1)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err has said it
	s.names = nil
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		s.names = append(s.names, name)
	}
	if len(s.names) > maxNames {
		s.index, s.equal, s.names = "delivery_state", "", []string{""}
		s.among(s.prefix)
	}
	return rows.Err()
}

// from is the range of an index that args begins.
func (s *search) from(what string) string {
	query := `SELECT ` + what + ` FROM delivery INDEXED BY ` + s.index + ` WHERE org = ? AND state = ?
		AND received BETWEEN ? AND ? AND (+received, place) < (?, ?)`
	if s.equal != "" {
		query += ` AND ` + s.equal + ` = ?`
	}
	return query
}

func (s *search) args(state State, name string, more ...any) []any {
	args := []any{string(s.org), int64(state), s.since, s.until, s.before.received, s.before.place}
	if s.equal != "" {
		args = append(args, name)
	}
	return append(args, more...)
}

// horizon is how far down a call may look, if there is more.
func (s *search) horizon(ctx context.Context, q querier) (last spot, cut bool, err error) {
	last = spot{math.MinInt64, math.MinInt64}
	each := max(maxLook/(len(s.states)*max(len(s.names), 1)), 1)
	query := s.from("received, place") + ` ORDER BY received DESC, place DESC LIMIT 1 OFFSET ?`
	ends, err := s.spots(ctx, q, query, each)
	for _, end := range ends {
		if newest(end, last) < 0 {
			last, cut = end, true
		}
	}
	return last, cut, err
}

// walk finds what is wanted down to last, newest first: one more than the limit,
// if there are.
func (s *search) walk(ctx context.Context, q querier, last spot) ([]spot, error) {
	conditions := append([]string{s.from("received, place"), "(+received, place) >= (?, ?)"}, s.rest...)
	query := strings.Join(conditions, " AND ") + ` ORDER BY received DESC, place DESC LIMIT ?`
	args := append([]any{last.received, last.place}, s.restArgs...)
	all, err := s.spots(ctx, q, query, append(args, s.limit+1)...)
	slices.SortFunc(all, newest)
	return all, err
}

// spots asks each range.
func (s *search) spots(ctx context.Context, q querier, query string, more ...any) (all []spot, err error) {
	stmt, err := q.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer stmt.Close() //nolint:errcheck // it was only read
	for _, name := range s.names {
		for _, state := range s.states {
			if all, err = appendSpots(ctx, all, stmt, s.args(state, name, more...)); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func appendSpots(ctx context.Context, all []spot, stmt *sql.Stmt, args []any) ([]spot, error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err has said it
	for rows.Next() {
		var at spot
		if err := rows.Scan(&at.received, &at.place); err != nil {
			return nil, err
		}
		all = append(all, at)
	}
	return all, rows.Err()
}

// fetch reads the rows.
func fetch(ctx context.Context, q querier, org carillon.OrgID, found []spot) ([]Delivery, error) {
	if len(found) == 0 {
		return nil, nil
	}
	places := make([]int64, len(found))
	for i, at := range found {
		places[i] = at.place
	}
	list, err := json.Marshal(places)
	if err != nil {
		return nil, err
	}
	return collect(q.QueryContext(ctx, `SELECT `+columns+` FROM delivery NOT INDEXED
		WHERE place IN (SELECT value FROM json_each(?)) AND +org = ? ORDER BY received DESC, place DESC`, string(list), string(org)))
}
