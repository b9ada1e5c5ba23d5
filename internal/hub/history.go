package hub

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/limit"
	"github.com/carillon-rt/carillon/internal/match"
)

// HistoryConfig is what a History needs. Zero fields mean the defaults given.
type HistoryConfig struct {
	Open func(carillon.OrgID) engine.Log // required
	// Head is the end of a partition as this process knows it (engine.Engine's).
	// With it, the cursor of an organization without entries moves on too.
	Head func(partition int) carillon.Position

	Retention  time.Duration    // how long entries are kept; 0: not known. A cursor further back is a gap
	Page       int              // 1,000 entries in a page at most
	Bytes      int              // 1 MiB in a page at most
	Look       int              // 10,000 entries looked at for one page, matching or not
	Concurrent int              // 16 reads at the same time; others wait
	Now        func() time.Time // time.Now
}

// Defaults and bounds of history.
const (
	DefaultHistoryLimit      = 100
	DefaultHistoryPage       = 1000
	DefaultHistoryBytes      = 1 << 20
	DefaultHistoryLook       = 10_000
	DefaultHistoryConcurrent = 16

	historyWait    = 5 * time.Second  // for a turn
	historyTimeout = 15 * time.Second // for the log
	historyRetry   = time.Second      // what a caller is told to wait

	historyPiece  = 512 // entries in one read of the log
	historyWindow = 512 // sequences in the first window of a read backwards
	windowGrows   = 8   // a window that has few entries makes the next so much wider
	entryExtra    = 256 // bytes of an entry's JSON beside its data, roughly
)

// History reads an organization's past: whatever the caller may receive, filtered
// by what is asked for. Its methods may be called from any goroutine.
type History struct {
	cfg    HistoryConfig
	turns  chan struct{} // one for each read that goes on; never closed
	limits limit.Hits
}

// The limits of history, as the config calls them.
const (
	historyPage       = "history_page"
	historyBytes      = "history_bytes"
	historyConcurrent = "history_concurrent"
)

// NewHistory makes a History. It panics if Open is nil.
func NewHistory(cfg HistoryConfig) *History {
	if cfg.Open == nil {
		panic("hub: HistoryConfig.Open is required")
	}
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.Page, DefaultHistoryPage)
	def(&cfg.Bytes, DefaultHistoryBytes)
	def(&cfg.Look, DefaultHistoryLook)
	def(&cfg.Concurrent, DefaultHistoryConcurrent)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &History{
		cfg: cfg, turns: make(chan struct{}, cfg.Concurrent),
		limits: limit.Of(historyPage, historyBytes, historyConcurrent),
	}
}

// Limits counts how often each limit of the config was met, by its name: a page
// larger than allowed was asked for, or ended for its bytes; a read had to wait
// for others.
func (h *History) Limits() map[string]uint64 { return h.limits.Load() }

// Query is what is asked for.
type Query struct {
	// Patterns filter every event, direct ones too. Each must be within what
	// the caller may subscribe to. None: everything the caller may receive.
	Patterns []carillon.Pattern
	Subject  string   // only events about it, if not empty
	Rooms    []string // only events of these rooms

	Start carillon.Cursor // oldest first, after it; none: earliest
	Desc  bool            // newest first
	// Before is for Desc: only what lies before it. None: the end.
	Before carillon.Cursor

	Limit    int // entries in the page; 0: DefaultHistoryLimit
	MaxBytes int // of their JSON, roughly, but at least one entry; 0: as configured
}

// Page is an answer.
type Page struct {
	Entries []*carillon.Entry
	// Cursor is where looking stopped, past entries that were filtered out too:
	// the next page's Start, or Before if newest come first.
	Cursor carillon.Position
	More   bool          // there are entries beyond Cursor, which may match or not
	Gap    *carillon.Gap // entries that were asked for are missing
}

// Read answers q for p, with one page. It looks at a limited number of entries
// and stops there, so a page may be short or empty although more follow. An
// event that was acknowledged before Read was called is never overlooked.
//
// Errors: forbidden names a pattern beyond what p may subscribe to; not_found a
// room; bad_request a limit or a combination that is not possible; unavailable
// comes when too many read at once or the log does not answer.
func (h *History) Read(ctx context.Context, p *carillon.Principal, q Query) (*Page, error) {
	r, err := h.reader(p, q)
	if err != nil {
		return nil, err
	}
	if err := h.turn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-h.turns }()
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	if err := r.read(ctx); err != nil {
		var shown *carillon.Error
		if errors.As(err, &shown) {
			return nil, err
		}
		return nil, carillon.Unavailable(historyRetry, err, "history could not be read just now; ask again later")
	}
	if r.heavy && r.MaxBytes == h.cfg.Bytes {
		h.limits.Add(historyBytes)
	}
	return &r.page, nil
}

// turn waits until there is room for one more read.
func (h *History) turn(ctx context.Context) error {
	select {
	case h.turns <- struct{}{}:
		return nil
	default:
	}
	h.limits.Add(historyConcurrent)
	t := time.NewTimer(historyWait)
	defer t.Stop()
	var cause error
	select {
	case h.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		cause = ctx.Err()
	case <-t.C:
	}
	return carillon.Unavailable(historyRetry, cause, "too many are reading history at the same time; ask again later").Over(historyConcurrent)
}

// historyReader makes one page.
type historyReader struct {
	*Query
	h       *History
	p       *carillon.Principal
	log     engine.Log
	granted bool // no pattern was asked for: the grants filter instead
	looked  int
	bytes   int
	heavy   bool // the page ends for its bytes
	head    carillon.Position
	newest  carillon.Position // of the organization, from the leader
	oldest  carillon.Position
	page    Page
}

// reader checks the query.
func (h *History) reader(p *carillon.Principal, q Query) (*historyReader, error) {
	r := &historyReader{Query: &q, h: h, p: p}
	for _, pattern := range q.Patterns {
		if !match.MaySubscribe(p, pattern) {
			return nil, carillon.Errorf(carillon.CodeForbidden, "this credential may not subscribe to %q; ask for patterns within its permissions", pattern)
		}
	}
	if len(q.Patterns) == 0 {
		q.Patterns = []carillon.Pattern{">"}
		r.granted = p.Permissions != nil
	}
	if len(q.Rooms) > 0 {
		return nil, carillon.Errorf(carillon.CodeNotFound, "room %q is not known here", q.Rooms[0])
	}
	switch {
	case q.Limit > h.cfg.Page:
		h.limits.Add(historyPage)
		return nil, carillon.BadRequest("limit is %d; it is 1–%d", q.Limit, h.cfg.Page).Over(historyPage)
	case q.Limit < 0:
		return nil, carillon.BadRequest("limit is %d; it is 1–%d", q.Limit, h.cfg.Page)
	case q.Desc && q.Start.Kind != carillon.CursorNone:
		return nil, carillon.BadRequest("newest first goes back from 'before'; 'after' is for the order asc")
	case !q.Desc && q.Before.Kind != carillon.CursorNone:
		return nil, carillon.BadRequest("'before' is for the order desc; oldest first goes on from 'after'")
	case q.Limit == 0:
		q.Limit = min(DefaultHistoryLimit, h.cfg.Page)
	}
	if q.MaxBytes <= 0 || q.MaxBytes > h.cfg.Bytes {
		q.MaxBytes = h.cfg.Bytes
	}
	r.log = h.cfg.Open(p.Org)
	return r, nil
}

// wants reports whether e is asked for and for this caller.
func (r *historyReader) wants(e *carillon.Entry) bool {
	switch {
	case r.Subject != "" && e.Subject != r.Subject:
		return false
	case e.To.Room != "":
		return false // rooms have no members yet
	case e.To.Direct():
		if r.p.User == "" || !slices.Contains(e.To.Users, r.p.User) {
			return false
		}
	case r.granted:
		if !slices.ContainsFunc(r.p.Permissions.Subscribe, func(g carillon.Pattern) bool { return match.Match(g, e.Type) }) {
			return false
		}
	}
	return slices.ContainsFunc(r.Patterns, func(p carillon.Pattern) bool { return match.Match(p, e.Type) })
}

func weight(e *carillon.Entry) int {
	return len(e.Data) + len(e.Type) + len(e.Subject) + len(e.CE) + entryExtra
}

func (r *historyReader) read(ctx context.Context) (err error) {
	if r.h.cfg.Head != nil {
		// Read before the bounds, so that these are at least as new.
		r.head = r.h.cfg.Head(r.log.Partition())
	}
	if r.oldest, r.newest, err = r.log.Bounds(ctx); err != nil {
		return err
	}
	if r.Desc {
		return r.backward(ctx)
	}
	return r.forward(ctx)
}

// end is the position behind everything the organization had when Read began.
func (r *historyReader) end() carillon.Position {
	switch {
	case r.head.Seq > r.newest.Seq:
		return r.head
	case r.newest.Seq > 0:
		return r.newest
	}
	return r.origin()
}

// origin is the position before everything.
func (r *historyReader) origin() carillon.Position {
	return carillon.Position{Partition: uint16(r.log.Partition())}
}

// start turns a cursor into a position. Whether entries behind it are missing is
// for missing to say, after they have been read: then none can have gone in
// between.
func (r *historyReader) start(ctx context.Context, c carillon.Cursor) (pos carillon.Position, gap *carillon.Gap, err error) {
	switch c.Kind {
	case carillon.CursorNone, carillon.CursorEarliest:
		return r.origin(), nil, nil
	case carillon.CursorNow:
		return r.end(), nil, nil
	case carillon.CursorAgo:
		pos, err = r.log.At(ctx, r.h.cfg.Now().Add(-c.Ago))
		if kept := r.h.cfg.Retention; kept > 0 && c.Ago > kept {
			gap = &carillon.Gap{Reason: carillon.GapExpired, Pos: pos}
		}
		return pos, gap, err
	case carillon.CursorAt:
		if int(c.Pos.Partition) == r.log.Partition() {
			return c.Pos, nil, nil
		}
	case carillon.CursorForeign:
	}
	return r.end(), r.reset(), nil
}

func (r *historyReader) reset() *carillon.Gap {
	return &carillon.Gap{Reason: carillon.GapReset, Pos: r.end()}
}

// missing asks the log whether a reader at pos has lost entries; the gap says
// where to go on.
func (r *historyReader) missing(ctx context.Context, pos carillon.Position) (*carillon.Gap, error) {
	if pos.Seq == 0 {
		return nil, nil
	}
	out, err := r.log.Resume(ctx, pos)
	switch {
	case err != nil:
		return nil, err
	case out.Status == engine.Expired:
		return &carillon.Gap{Reason: carillon.GapExpired, Pos: out.From}, nil
	case out.Status == engine.Reset:
		return r.reset(), nil
	}
	return nil, nil
}

// forward fills the page, oldest first.
func (r *historyReader) forward(ctx context.Context) error {
	at, gap, err := r.start(ctx, r.Start)
	if err != nil {
		return err
	}
	if err := r.fill(ctx, at); err != nil {
		return err
	}
	if gap == nil || gap.Reason != carillon.GapReset {
		missing, err := r.missing(ctx, at)
		if err != nil {
			return err
		}
		if missing != nil {
			gap = missing
			if err := r.fill(ctx, gap.Pos); err != nil {
				return err
			}
		}
	}
	r.page.Gap = gap
	return nil
}

var errPageFull = errors.New("hub: the page is full")

// fill makes the page of what follows at.
func (r *historyReader) fill(ctx context.Context, at carillon.Position) error {
	r.page, r.looked, r.bytes, r.heavy = Page{}, 0, 0, false
	full := false
	for from := at.Seq; !full && from < r.newest.Seq; {
		seen, err := r.piece(ctx, from, r.newest.Seq, func(e *carillon.Entry) error {
			if r.looked >= r.h.cfg.Look {
				return errPageFull
			}
			if r.wants(e) {
				if !r.fits(e) {
					return errPageFull
				}
				r.page.Entries = append(r.page.Entries, e)
			}
			r.looked++
			at = e.Pos
			return nil
		})
		if full = errors.Is(err, errPageFull); err != nil && !full {
			return err
		}
		from = seen
	}
	if full {
		r.page.Cursor, r.page.More = at, true
		return nil
	}
	if end := r.end(); end.Seq > at.Seq {
		at = end // nothing of the organization is in between
	}
	r.page.Cursor = at
	return nil
}

// fits counts a matching entry, if there is room for it in the page.
func (r *historyReader) fits(e *carillon.Entry) bool {
	n := len(r.page.Entries)
	r.heavy = n > 0 && n < r.Limit && r.bytes+weight(e) > r.MaxBytes
	if n >= r.Limit || r.heavy {
		return false
	}
	r.bytes += weight(e)
	return true
}

// piece reads one piece of the organization's log in (after, upTo] and says how
// far it got: beyond after, unless f failed. A piece that ends short comes from a
// replica that lags, and the leader has the rest; what it has not is gone.
func (r *historyReader) piece(ctx context.Context, after, upTo uint64, f func(*carillon.Entry) error) (seen uint64, err error) {
	for _, leader := range []bool{false, true} {
		end, err := r.log.Read(ctx, engine.Range{After: after, UpTo: upTo, Limit: historyPiece, Leader: leader}, f)
		if err != nil {
			return after, err
		}
		if end.Seen > after && (end.More || end.Seen >= upTo) {
			return end.Seen, nil
		}
		after = max(after, end.Seen)
	}
	return upTo, nil
}

// backward fills the page, newest first: it reads windows of the log, each below
// the one before, which grow while they hold little.
func (r *historyReader) backward(ctx context.Context) error {
	at, hi, err := r.before(ctx)
	if err != nil {
		return err
	}
	hi = min(hi, r.newest.Seq)
	floor := max(r.oldest.Seq, 1) - 1
	width := uint64(historyWindow)
	cut := false
	for hi > floor && !cut && len(r.page.Entries) < r.Limit && r.looked < r.h.cfg.Look {
		lo := floor
		if hi-floor > width {
			lo = hi - width
		}
		w, err := r.window(ctx, lo, hi)
		if err != nil {
			return err
		}
		r.looked += w.looked
		if w.dense {
			width /= windowGrows
			continue
		}
		for _, e := range slices.Backward(w.entries) {
			r.page.Entries = append(r.page.Entries, e)
			r.bytes += weight(e)
			at = e.Pos
		}
		r.heavy = w.heavy
		if cut = w.cut; !cut && w.looked > 0 {
			at = w.first
		}
		if !cut {
			hi = lo
		}
		if w.looked < historyWindow/windowGrows {
			width = min(width*windowGrows, 1<<48)
		}
	}
	r.page.Cursor = at
	r.page.More = hi > floor
	return nil
}

// before is where to begin backwards: at, as a cursor, and the highest sequence
// below it.
func (r *historyReader) before(ctx context.Context) (at carillon.Position, hi uint64, err error) {
	switch r.Before.Kind {
	case carillon.CursorNone, carillon.CursorNow:
		return r.end(), r.newest.Seq, nil
	case carillon.CursorEarliest:
		return r.origin(), 0, nil
	default:
	}
	at, r.page.Gap, err = r.start(ctx, r.Before)
	if err != nil || r.page.Gap != nil && r.page.Gap.Reason == carillon.GapReset {
		return at, at.Seq, err
	}
	missing, err := r.missing(ctx, at)
	switch {
	case err != nil:
		return at, 0, err
	case missing != nil && missing.Reason == carillon.GapExpired:
		r.page.Gap = missing
		return missing.Pos, 0, nil // what was before it is gone as well
	case missing != nil:
		r.page.Gap = missing
		return missing.Pos, missing.Pos.Seq, nil
	case r.Before.Kind == carillon.CursorAt && at.Seq > 0:
		return at, at.Seq - 1, nil
	}
	return at, at.Seq, nil
}

// windowed is what a window of the log holds.
type windowed struct {
	entries []*carillon.Entry // those wanted, oldest first, as many of the newest as there is room for
	cut     bool              // there was no room for older ones
	heavy   bool              // for their bytes
	first   carillon.Position // of the oldest entry looked at
	looked  int
	dense   bool // it has too many entries and was given up
}

// window reads (lo, hi].
func (r *historyReader) window(ctx context.Context, lo, hi uint64) (w windowed, err error) {
	bytes := r.bytes
	take := func(e *carillon.Entry) error {
		if hi-lo > historyWindow && w.looked >= windowGrows*historyWindow {
			w.dense = true
			return errPageFull
		}
		if w.looked++; w.looked == 1 {
			w.first = e.Pos
		}
		if !r.wants(e) {
			return nil
		}
		w.entries = append(w.entries, e)
		bytes += weight(e)
		have := len(r.page.Entries)
		for n := len(w.entries); n > 0 && (have+n > r.Limit || have+n > 1 && bytes > r.MaxBytes); n-- {
			bytes -= weight(w.entries[0])
			w.entries[0] = nil
			w.entries = w.entries[1:]
			w.cut, w.heavy = true, have+n <= r.Limit
		}
		return nil
	}
	for from := lo; from < hi; {
		if from, err = r.piece(ctx, from, hi, take); err != nil {
			if errors.Is(err, errPageFull) {
				err = nil
			}
			return w, err
		}
	}
	return w, nil
}
