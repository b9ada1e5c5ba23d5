package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	client "github.com/carillon-rt/carillon/clients/go"
)

// hookAPI manages the webhooks of an organization: everything under /v1/hooks/. Its
// errors are those of the client.
type hookAPI struct {
	base       string // without a slash at its end
	credential string
	http       *http.Client
}

const (
	hookTimeout = 30 * time.Second
	hookAnswer  = 64 << 20 // more than the largest body as base64
)

// hooks makes one. An API key is preferred to a token.
func (r *Remote) hooks() (*hookAPI, error) {
	if _, err := r.client(false, -1); err != nil {
		return nil, err
	}
	credential := r.Key
	if credential == "" {
		credential = r.Token
	}
	return &hookAPI{base: r.base(), credential: credential, http: &http.Client{Timeout: hookTimeout}}, nil
}

// base is the server's address for requests, without a slash at its end.
func (r *Remote) base() string {
	base := strings.TrimRight(r.URL, "/")
	if rest, ok := strings.CutPrefix(base, "ws"); ok { // ws means http, wss https
		base = "http" + rest
	}
	return base
}

// do makes one request, once. body is sent as it is if it is bytes, else as JSON; nil:
// none. The answer is read into out, unless that is nil.
func (a *hookAPI) do(ctx context.Context, op, method, path string, body, out any) error {
	var sent io.Reader
	if body != nil {
		text, ok := body.([]byte)
		if !ok {
			var err error
			if text, err = json.Marshal(body); err != nil {
				return err
			}
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, sent)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.credential)
	req.Header.Set("Accept", "application/json")
	away := func(err error, what string) error {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which the hint says
		}
		return &client.Error{Op: op, Code: client.CodeNetwork, Message: what, Retryable: true, Err: err}
	}
	res, err := a.http.Do(req)
	if err != nil {
		return away(err, "no answer")
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, hookAnswer+1))
	switch {
	case err != nil:
		return away(err, "the answer broke off")
	case len(text) > hookAnswer:
		return &client.Error{Op: op, Code: client.CodeProtocol, Status: res.StatusCode, Message: fmt.Sprintf("the answer is larger than %d bytes", hookAnswer)}
	case res.StatusCode < 200 || res.StatusCode > 299:
		return problemOf(op, res, text)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return &client.Error{
			Op: op, Code: client.CodeProtocol, Status: res.StatusCode, Err: err,
			Message: "the answer is not Carillon's; is " + a.base + " its public address?",
		}
	}
	return nil
}

// problemOf is the error that an answer carries. That of a proxy has no code.
func problemOf(op string, res *http.Response, text []byte) error {
	var p struct {
		Code   client.Code `json:"code"`
		Title  string      `json:"title"`
		Detail string      `json:"detail"`
	}
	_ = json.Unmarshal(text, &p) // a proxy's page leaves it empty
	e := &client.Error{Op: op, Code: p.Code, Message: p.Detail, Status: res.StatusCode}
	if e.Message == "" {
		e.Message = p.Title
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("the server answered HTTP %d", res.StatusCode)
	}
	if e.Code == "" {
		e.Code = client.CodeProtocol
	}
	e.Retryable = res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500
	if s, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 16); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

// hookDelivery is a delivery as the API shows it.
type hookDelivery struct {
	ID           string    `json:"id"`
	Source       string    `json:"source"`
	Kind         string    `json:"kind"`
	Event        string    `json:"event"`
	EventType    string    `json:"event_type"`
	EventID      string    `json:"event_id"`
	Delivery     string    `json:"delivery"`
	Remote       string    `json:"remote"`
	Size         int64     `json:"size"`
	Received     time.Time `json:"received"`
	Signature    string    `json:"signature"`
	Secret       string    `json:"secret"`
	State        string    `json:"state"`
	DuplicateOf  string    `json:"duplicate_of"`
	Attempts     int       `json:"attempts"`
	Retried      int       `json:"retried"`
	ProcessingMS float64   `json:"processing_ms"`
	Error        string    `json:"error"`
	Output       string    `json:"output"`
	Spooled      bool      `json:"spooled"`
	Status       int       `json:"status"`
}

// The states of deliveries that commands look for.
const (
	statePending   = "pending"
	statePublished = "published"
	stateDuplicate = "duplicate"
	stateDead      = "dead"
	stateRefused   = "refused"
)

// hookDetails is one with all there is.
type hookDetails struct {
	hookDelivery

	History []struct {
		At      time.Time `json:"at"`
		What    string    `json:"what"`
		Outcome string    `json:"outcome"`
		Error   string    `json:"error"`
		RetryMS int64     `json:"retry_ms"`
		By      string    `json:"by"`
	} `json:"history"`
	Query   string      `json:"query"`
	Headers http.Header `json:"headers"`
	Body    []byte      `json:"body"` // nil: it is not kept any more
}

// hookPage is the most deliveries that one request lists.
const hookPage = 500

// deliveries are those that a query of the API wants, newest first, at most so many;
// 0: all. They come as the server wrote them. An error is the last of them.
func (a *hookAPI) deliveries(ctx context.Context, query url.Values, most int) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		given := 0
		for {
			limit := hookPage
			if most > 0 {
				limit = min(limit, most-given)
			}
			query.Set("limit", strconv.Itoa(limit))
			var page struct {
				Deliveries []json.RawMessage `json:"deliveries"`
				Next       string            `json:"next"`
			}
			if err := a.do(ctx, "list", http.MethodGet, "/v1/hooks/deliveries?"+query.Encode(), nil, &page); err != nil {
				yield(nil, err)
				return
			}
			for _, d := range page.Deliveries {
				if !yield(d, nil) {
					return
				}
			}
			given += len(page.Deliveries)
			if page.Next == "" || most > 0 && given >= most {
				return
			}
			query.Set("before", page.Next)
		}
	}
}

// delivery is one, by its id or the provider's, as the server wrote it.
func (a *hookAPI) delivery(ctx context.Context, id string) (raw json.RawMessage, d hookDetails, err error) {
	if err := a.do(ctx, "show", http.MethodGet, deliveryPath(id), nil, &raw); err != nil {
		return nil, d, err
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, d, &client.Error{Op: "show", Code: client.CodeProtocol, Message: "the delivery is not as Carillon writes it", Err: err}
	}
	return raw, d, nil
}

func deliveryPath(id string) string { return "/v1/hooks/deliveries/" + escaped(id) }

// escaped is one segment of a path. One of only dots would be taken for a way.
func escaped(segment string) string {
	if strings.Trim(segment, ".") == "" {
		return strings.ReplaceAll(segment, ".", "%2E")
	}
	return url.PathEscape(segment)
}

// hookSource is a source as the API shows it.
type hookSource struct {
	Name       string          `json:"name"`
	Kind       string          `json:"kind"`
	URL        string          `json:"url"` // the path on the server
	Generic    json.RawMessage `json:"generic"`
	FromConfig bool            `json:"from_config"`
	Secrets    []hookSecret    `json:"secrets"`
}

type hookSecret struct {
	ID       string     `json:"id"`
	Secret   string     `json:"secret"` // only of one that was just made
	LastUsed *time.Time `json:"last_used"`
}

func (a *hookAPI) sources(ctx context.Context) (list []hookSource, err error) {
	var answer struct {
		Sources []hookSource `json:"sources"`
	}
	err = a.do(ctx, "sources", http.MethodGet, "/v1/hooks/sources", nil, &answer)
	return answer.Sources, err
}

// sourcePath is where a source is, if this is the name of one.
func sourcePath(name string) (string, error) {
	if _, err := carillon.ParseSource(name); err != nil {
		return "", errors.New(carillon.AsError(err).Message)
	}
	return "/v1/hooks/sources/" + name, nil
}

// org is the organization whose source it is.
func (s *hookSource) org() string {
	org, _, _ := strings.Cut(strings.TrimPrefix(s.URL, "/hooks/"), "/")
	return org
}

// isCode reports whether a server said no with this code.
func isCode(err error, code client.Code) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == code
}
