package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// maxPatterns bounds the patterns, and the rooms, of one question.
const maxPatterns = 1000

// history is GET /v1/events.
func (a *api) history(w http.ResponseWriter, r *http.Request) error {
	p, err := a.caller(r)
	if err != nil {
		return err
	}
	for _, accept := range r.Header["Accept"] {
		if strings.Contains(accept, "application/cloudevents") {
			return carillon.Errorf(carillon.CodeUnsupportedMedia, "CloudEvents are not supported by this server yet; accept application/json")
		}
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
	answer(w, http.StatusOK, appendPage(nil, ids, page))
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

// appendPage appends a page as JSON.
func appendPage(dst []byte, ids *wire.IDs, page *hub.Page) []byte {
	size := 128
	for _, e := range page.Entries {
		size += 256 + len(e.Data)
	}
	dst = slices.Grow(dst, size)
	dst = append(dst, `{"events":[`...)
	for i, e := range page.Entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = wire.AppendEvent(dst, ids, e)
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
