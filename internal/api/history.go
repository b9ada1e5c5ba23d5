package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// maxPatterns bounds the patterns, and the rooms, of one question.
const maxPatterns = 1000

// history is GET /v1/events.
func (a *api) history(w http.ResponseWriter, r *http.Request) error {
	p, err := a.caller(w, r)
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Vary", "Authorization, Cookie, Origin, Accept, Accept-Encoding")
	cloud, err := answer.TakesCloudEvents(r.Header)
	if err != nil {
		return err
	}
	values, err := query(r.URL, params{
		repeated: []string{"pattern", "room"},
		once:     []string{"subject", "after", "before", "order", "limit"},
	})
	if err != nil {
		return err
	}
	ids := a.IDs.Org(p.Org)
	q, err := question(values, ids)
	if err != nil {
		return err
	}
	page, err := a.History.Read(r.Context(), p, q)
	if err != nil {
		return err
	}
	if !q.Desc {
		tag := `"` + ids.String(page.Cursor) + `"`
		header.Set("ETag", tag)
		if len(page.Entries) == 0 && !page.More && page.Gap == nil && answer.Has(r.Header, tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	appendEvent := wire.AppendEvent
	if cloud {
		appendEvent = wire.AppendCloudEvent
	}
	body := a.compressor.Compress(r.Header, header, appendPage(nil, ids, page, appendEvent))
	header.Set("Content-Type", answer.JSON)
	answer.Write(w, http.StatusOK, body, a.WriteTimeout)
	return nil
}

// question makes a query of the parameters.
func question(v url.Values, ids *wire.IDs) (q hub.Query, err error) {
	if n := max(len(v["pattern"]), len(v["room"])); n > maxPatterns {
		return q, carillon.BadRequest("%d patterns or rooms; at most %d are allowed", n, maxPatterns)
	}
	for _, s := range v["pattern"] {
		p, err := carillon.ParsePattern(s)
		if err != nil {
			return q, err
		}
		q.Patterns = append(q.Patterns, p)
	}
	for _, s := range v["room"] {
		room, err := carillon.ParseRoom(s)
		if err != nil {
			return q, err
		}
		q.Rooms = append(q.Rooms, room)
	}
	if q.Subject, err = carillon.ParseSubject(v.Get("subject")); err != nil {
		return q, err
	}
	switch order := v.Get("order"); order {
	case "", "asc":
	case "desc":
		q.Desc = true
	default:
		return q, carillon.BadRequest("order %q: it is asc, the oldest first, or desc", clip(order))
	}
	if q.Start, err = ids.ParseCursor(v.Get("after")); err != nil {
		return q, err
	}
	if q.Before, err = ids.ParseCursor(v.Get("before")); err != nil {
		return q, err
	}
	if s := v.Get("limit"); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 {
			return q, carillon.BadRequest("limit %q: it is a whole number, 1 or more", clip(s))
		}
		q.Limit = int(n)
	}
	return q, nil
}

// appendPage appends a page as JSON, its events by appendEvent.
func appendPage(dst []byte, ids *wire.IDs, page *hub.Page, appendEvent func([]byte, *wire.IDs, *carillon.Entry) []byte) []byte {
	size := 128
	for _, e := range page.Entries {
		size += 256 + len(e.Data) + len(e.CE)
	}
	dst = slices.Grow(dst, size)
	dst = append(dst, `{"events":[`...)
	for i, e := range page.Entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendEvent(dst, ids, e)
	}
	dst = append(dst, `],"cursor":"`...)
	dst = ids.Append(dst, page.Cursor)
	dst = append(dst, `","more":`...)
	dst = strconv.AppendBool(dst, page.More)
	if page.Gap != nil {
		dst = append(dst, `,"gap":`...)
		dst = wire.AppendGap(dst, ids, page.Gap)
	}
	return append(dst, '}')
}

// clip shortens what a client sent for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
