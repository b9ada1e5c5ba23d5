package carillon

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Query says which events of the past to read. Zero reads from the earliest
// event kept, everything the caller may receive.
type Query struct {
	Patterns []string // none means every type
	Rooms    []string // limits room events to these rooms
	Subject  string   // only events about this entity
	Limit    int      // events in a page: at most 1,000; 0 means the server's default of 100

	// After is where to start: a cursor, an event id, "earliest", "now", or a
	// time back such as "-10m".
	After string

	// Newest reads backwards, from before Before or else from the newest event.
	// After may not be set with it.
	Newest bool
	Before string
}

// Page is a part of the log.
type Page struct {
	Events []Event `json:"events"`
	Cursor string  `json:"cursor"` // where looking stopped: After (or Before) of the next page
	More   bool    `json:"more"`   // there is more: ask again at once
	Gap    *Gap    `json:"gap"`    // events are missing before these, or nil
}

// History reads one page of the past, oldest first unless q.Newest. To read on,
// ask again with the page's Cursor while More is true.
func (c *Client) History(ctx context.Context, q Query) (Page, error) {
	v := url.Values{}
	add := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	for _, p := range q.Patterns {
		v.Add("pattern", p)
	}
	for _, room := range q.Rooms {
		v.Add("room", room)
	}
	add("subject", q.Subject)
	add("after", q.After)
	add("before", q.Before)
	if q.Newest {
		v.Set("order", "desc")
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	var page Page
	r := &request{op: "history", method: http.MethodGet, path: "/v1/events", query: v, timeout: requestTimeout}
	if err := c.do(ctx, r, &page); err != nil {
		return Page{}, err
	}
	return page, nil
}

// PollQuery says what to poll for.
type PollQuery struct {
	Patterns []string // none means room and direct events only
	Rooms    []string // limits room events to these rooms
	After    string   // the Cursor of the last page; "" means now
	Limit    int      // events in a page, as in Query

	// Wait is how long the server may hold the request when there is nothing:
	// whole seconds, rounded up, at most 30. 0 answers at once.
	Wait time.Duration
}

// Poll receives what came after q.After, waiting for it up to q.Wait. Its page
// always has a Cursor, even without events; the next poll's After is the
// acknowledgement of everything before it. Between polls nothing is lost.
func (c *Client) Poll(ctx context.Context, q PollQuery) (Page, error) {
	const op = "poll"
	wait := (q.Wait + time.Second - 1) / time.Second
	body, err := encode(struct {
		Patterns []string `json:"patterns,omitempty"`
		Rooms    []string `json:"rooms,omitempty"`
		After    string   `json:"after,omitempty"`
		Wait     int      `json:"wait"`
		Limit    int      `json:"limit,omitempty"`
	}{q.Patterns, q.Rooms, q.After, int(wait), q.Limit})
	if err != nil {
		return Page{}, &Error{Op: op, Code: CodeBadRequest, Err: err}
	}
	var page Page
	r := &request{op: op, method: http.MethodPost, path: "/v1/poll", body: body, timeout: requestTimeout + wait*time.Second}
	if err := c.do(ctx, r, &page); err != nil {
		return Page{}, err
	}
	return page, nil
}
