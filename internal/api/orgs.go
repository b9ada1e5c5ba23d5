package api

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/org"
)

// Management is what the API of organizations stands on. It belongs on the
// operations port: its caller lets only the operator in.
type Management struct {
	Orgs  *org.Directory // required
	Store *org.Store     // required

	// Kept is what is kept of everybody's events, where an organization says less.
	Kept org.Retention

	// Purge removes every event of an organization. Required.
	Purge func(context.Context, carillon.OrgID) error

	Logger *slog.Logger // of what went wrong on our side; nil: none
}

const (
	// Pages of the list of organizations.
	defaultOrgPage = 100
	maxOrgPage     = 1000

	// purgeRetry is when to ask again to remove what could not be removed.
	purgeRetry = 5 * time.Second
)

// NewManagement makes the handler of everything under /v1/orgs.
func NewManagement(m Management) http.Handler {
	if m.Logger == nil {
		m.Logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	allow := map[string][]string{}
	for _, r := range []struct {
		method, path string
		handle       func(http.ResponseWriter, *http.Request) error
	}{
		{http.MethodGet, "/v1/orgs", m.list},
		{http.MethodPost, "/v1/orgs", m.create},
		{http.MethodGet, "/v1/orgs/{org}", m.get},
		{http.MethodPatch, "/v1/orgs/{org}", m.patch},
		{http.MethodDelete, "/v1/orgs/{org}", m.remove},
		{http.MethodPost, "/v1/orgs/{org}/keys", m.addKey},
		{http.MethodDelete, "/v1/orgs/{org}/keys/{key}", m.removeKey},
	} {
		mux.Handle(r.method+" "+r.path, m.handler(r.handle))
		allow[r.path] = append(allow[r.path], r.method)
	}
	for path, methods := range allow {
		sort.Strings(methods)
		refuse := methodNotAllowed(strings.Join(methods, ", "))
		mux.Handle(path, m.handler(func(w http.ResponseWriter, r *http.Request) error { return refuse(nil, w, r) }))
	}
	mux.Handle("/", m.handler(func(http.ResponseWriter, *http.Request) error {
		return carillon.Errorf(carillon.CodeNotFound, "there is nothing at this path; organizations are at /v1/orgs")
	}))
	return mux
}

func (m *Management) handler(handle func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := handle(w, r); err != nil {
			answerProblem(m.Logger, w, r, err)
		}
	})
}

// orgView is an organization as it is shown.
type orgView struct {
	ID string `json:"id"`
	org.Settings

	Keys       []keyView    `json:"keys"`
	Effective  org.Settings `json:"effective"` // with the node's defaults
	FromConfig bool         `json:"from_config,omitempty"`
	Revision   string       `json:"revision,omitempty"`
}

type keyView struct {
	ID  string `json:"id"`
	Key string `json:"key,omitempty"` // only in the answer that made it
}

func (m *Management) view(o *org.Org) orgView {
	v := orgView{ID: string(o.ID), Settings: o.Settings, Keys: []keyView{}, FromConfig: m.Orgs.FromConfig(o.ID)}
	v.Disabled = o.Disabled
	for _, k := range o.Keys {
		v.Keys = append(v.Keys, keyView{ID: k.ID})
	}
	l, r := o.Limits, o.Retention
	r.Age, r.Events, r.Bytes = cmp.Or(r.Age, m.Kept.Age), cmp.Or(r.Events, m.Kept.Events), cmp.Or(r.Bytes, m.Kept.Bytes)
	age := int64(r.Age.Seconds())
	v.Effective = org.Settings{
		Disabled: o.Disabled,
		Limits: org.LimitSettings{
			PublishPerSecond: &l.PublishPerSecond, PublishBurst: &l.PublishBurst,
			PublishBytesPerSecond: &l.PublishBytesPerSecond, Connections: &l.Connections,
		},
		Retention: org.RetentionSettings{AgeSeconds: &age, Events: &r.Events, Bytes: &r.Bytes},
	}
	if o.Revision != 0 {
		v.Revision = strconv.FormatUint(o.Revision, 10)
	}
	return v
}

func answerOrg(w http.ResponseWriter, status int, v orgView) {
	if v.Revision != "" {
		w.Header().Set("ETag", `"`+v.Revision+`"`)
	}
	answerJSON(w, status, v)
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

func (m *Management) list(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r.URL, params{once: []string{"after", "limit"}})
	if err != nil {
		return err
	}
	limit := defaultOrgPage
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxOrgPage {
			return carillon.BadRequest("limit is a number from 1 to %d", maxOrgPage)
		}
	}
	page := struct {
		Orgs []orgView `json:"orgs"`
		More bool      `json:"more"`
	}{Orgs: []orgView{}}
	ids := m.Orgs.IDs()
	after := carillon.OrgID(q.Get("after"))
	for _, id := range ids[sort.Search(len(ids), func(i int) bool { return ids[i] > after }):] {
		if len(page.Orgs) == limit {
			page.More = true
			break
		}
		if o, ok := m.Orgs.Lookup(id); ok {
			page.Orgs = append(page.Orgs, m.view(o))
		}
	}
	answerJSON(w, http.StatusOK, page)
	return nil
}

func (m *Management) create(w http.ResponseWriter, r *http.Request) error {
	body, err := readSettings(r)
	if err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		return carillon.BadRequest(`an organization is an object such as {"id":"acme","limits":{"connections":1000}}`)
	}
	var id string
	if err := json.Unmarshal(all["id"], &id); err != nil {
		return carillon.BadRequest(`"id" is missing or not a string; it is the organization's name, 1–64 of a–z, 0–9, _ and -`)
	}
	delete(all, "id")
	rest, err := json.Marshal(all)
	if err != nil {
		return err
	}
	settings, err := org.ParseSettings(rest)
	if err != nil {
		return err
	}
	name, err := carillon.ParseOrgID(id)
	if err != nil {
		return err
	}
	o, err := m.Store.Create(r.Context(), name, settings)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/orgs/"+string(o.ID))
	answerOrg(w, http.StatusCreated, m.view(o))
	return nil
}

// named is the organization of the path.
func (m *Management) named(r *http.Request) (*org.Org, error) {
	id, err := carillon.ParseOrgID(r.PathValue("org"))
	if err != nil {
		return nil, err
	}
	o, ok := m.Orgs.Lookup(id)
	if !ok {
		return nil, carillon.Errorf(carillon.CodeNotFound, "there is no organization %q; make it with POST /v1/orgs", id)
	}
	return o, nil
}

func (m *Management) get(w http.ResponseWriter, r *http.Request) error {
	o, err := m.named(r)
	if err != nil {
		return err
	}
	answerOrg(w, http.StatusOK, m.view(o))
	return nil
}

// patch changes what the body names (RFC 7396). With If-Match it does so only
// when the organization is at that revision.
func (m *Management) patch(w http.ResponseWriter, r *http.Request) error {
	o, err := m.named(r)
	if err != nil {
		return err
	}
	body, err := readSettings(r)
	if err != nil {
		return err
	}
	revision := uint64(0)
	if tag := r.Header.Get("If-Match"); tag != "" && tag != "*" {
		if revision, err = strconv.ParseUint(strings.Trim(tag, `"`), 10, 64); err != nil || revision == 0 {
			return carillon.BadRequest("If-Match is the ETag of the organization as it was read")
		}
	}
	o, err = m.Store.Update(r.Context(), o.ID, revision, func(s org.Settings) (org.Settings, error) { return s.Merge(body) })
	if err != nil {
		return err
	}
	answerOrg(w, http.StatusOK, m.view(o))
	return nil
}

// remove ends an organization: nobody may come in, its events go, then it does
// itself. What broke off in between is done by asking again.
func (m *Management) remove(w http.ResponseWriter, r *http.Request) error {
	o, err := m.named(r)
	if err != nil {
		return err
	}
	_, err = m.Store.Update(r.Context(), o.ID, 0, func(s org.Settings) (org.Settings, error) {
		s.Disabled = true
		return s, nil
	})
	if err != nil {
		return err
	}
	if err := m.Purge(r.Context(), o.ID); err != nil {
		return carillon.Unavailable(purgeRetry, err, "the organization is disabled, but its events are still there; ask again")
	}
	if err := m.Store.Delete(r.Context(), o.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (m *Management) addKey(w http.ResponseWriter, r *http.Request) error {
	o, err := m.named(r)
	if err != nil {
		return err
	}
	text, k, err := m.Store.AddKey(r.Context(), o.ID)
	if err != nil {
		return err
	}
	answerJSON(w, http.StatusCreated, keyView{ID: k.ID, Key: text})
	return nil
}

func (m *Management) removeKey(w http.ResponseWriter, r *http.Request) error {
	o, err := m.named(r)
	if err != nil {
		return err
	}
	if err := m.Store.RemoveKey(r.Context(), o.ID, r.PathValue("key")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readSettings reads a body of JSON. The type is asked for, which no page of
// another origin can say without asking first.
func readSettings(r *http.Request) ([]byte, error) {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "application/json" && t != "application/merge-patch+json" {
		return nil, carillon.Errorf(carillon.CodeUnsupportedMedia, "the Content-Type is application/json, or application/merge-patch+json for a change")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, org.MaxSettings+1))
	if err != nil {
		return nil, &carillon.Error{Code: carillon.CodeBadRequest, Message: "the body could not be read to its end, or not in the time that the server allows", Err: err}
	}
	if len(body) > org.MaxSettings {
		return nil, carillon.Errorf(carillon.CodeTooLarge, "the body is larger than %d bytes", org.MaxSettings)
	}
	return body, nil
}
