package org

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
)

// Settings are an organization as it is stored and managed. What is absent is as
// the node's config says.
type Settings struct {
	Disabled  bool              `json:"disabled,omitempty"`
	Limits    LimitSettings     `json:"limits,omitzero"`
	Retention RetentionSettings `json:"retention,omitzero"`
}

// LimitSettings are an organization's own limits, by their names in the config.
type LimitSettings struct {
	PublishPerSecond      *int   `json:"publish_per_second,omitempty"`
	PublishBurst          *int   `json:"publish_burst,omitempty"`
	PublishBytesPerSecond *int64 `json:"publish_bytes_per_second,omitempty"`
	Connections           *int   `json:"connections,omitempty"`
}

// RetentionSettings are an organization's own retention.
type RetentionSettings struct {
	AgeSeconds *int64 `json:"age_seconds,omitempty"`
	Events     *int64 `json:"events,omitempty"`
	Bytes      *int64 `json:"bytes,omitempty"`
}

// MaxSettings is how large the JSON of settings may be, in bytes.
const MaxSettings = 16 << 10

// ParseSettings reads settings. The error may be shown.
func ParseSettings(js []byte) (Settings, error) {
	var s Settings
	if err := decode(js, &s); err != nil {
		return Settings{}, err
	}
	return s, s.check()
}

// Merge changes what the JSON merge patch (RFC 7396) names. The error may be
// shown.
func (s Settings) Merge(patch []byte) (Settings, error) {
	var changes map[string]any
	if err := decode(patch, &changes); err != nil {
		return Settings{}, err
	}
	now, err := json.Marshal(s)
	if err != nil {
		return Settings{}, fmt.Errorf("org: settings: %w", err)
	}
	var all map[string]any
	if err := decode(now, &all); err != nil {
		return Settings{}, err
	}
	js, err := json.Marshal(merge(all, changes))
	if err != nil {
		return Settings{}, fmt.Errorf("org: settings: %w", err)
	}
	return ParseSettings(js)
}

func merge(all, changes map[string]any) map[string]any {
	if all == nil {
		all = map[string]any{}
	}
	for name, v := range changes {
		switch v := v.(type) {
		case nil:
			delete(all, name)
		case map[string]any:
			inner, _ := all[name].(map[string]any)
			all[name] = merge(inner, v)
		default:
			all[name] = v
		}
	}
	return all
}

// decode reads one JSON value, with nothing unknown in it and nothing after it.
func decode(js []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(js))
	d.DisallowUnknownFields()
	d.UseNumber()
	err := d.Decode(into)
	if err == nil {
		if _, after := d.Token(); !errors.Is(after, io.EOF) {
			err = errors.New("there is more after the object")
		}
	}
	if err != nil {
		return carillon.BadRequest("the settings of an organization are an object such as "+
			`{"limits":{"publish_per_second":100},"retention":{"events":10000}}`+": %s", reason(err))
	}
	return nil
}

// reason is a decoding error in words for whoever wrote the JSON.
func reason(err error) string {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return "it is not an object"
	case errors.As(err, &wrong):
		return fmt.Sprintf("%s is a %s; it is a whole number, or true or false", wrong.Field, wrong.Value)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

func (s Settings) check() error {
	for _, n := range []struct {
		name string
		n    int64
	}{
		{"limits.publish_per_second", value(s.Limits.PublishPerSecond)},
		{"limits.publish_burst", value(s.Limits.PublishBurst)},
		{"limits.publish_bytes_per_second", value(s.Limits.PublishBytesPerSecond)},
		{"limits.connections", value(s.Limits.Connections)},
		{"retention.age_seconds", value(s.Retention.AgeSeconds)},
		{"retention.events", value(s.Retention.Events)},
		{"retention.bytes", value(s.Retention.Bytes)},
	} {
		if n.n < 0 {
			return carillon.BadRequest("%s is %d; it is 0 for none, or more", n.name, n.n)
		}
	}
	const century = 100 * 366 * 24 * 3600
	if age := value(s.Retention.AgeSeconds); age > century {
		return carillon.BadRequest("retention.age_seconds is %d; it is at most %d", age, century)
	}
	return nil
}

func value[T int | int64](p *T) int64 {
	if p == nil {
		return 0
	}
	return int64(*p)
}

func or[T any](own *T, all T) T {
	if own != nil {
		return *own
	}
	return all
}

// org is the organization with these settings where the node has these defaults.
func (s Settings) org(id carillon.OrgID, d defaults, keys []Key, revision uint64) *Org {
	return &Org{
		ID: id, Disabled: s.Disabled, Keys: keys, Settings: s, Revision: revision,
		Limits: Limits{
			PublishPerSecond:      or(s.Limits.PublishPerSecond, d.limits.PublishPerSecond),
			PublishBurst:          or(s.Limits.PublishBurst, d.limits.PublishBurst),
			PublishBytesPerSecond: or(s.Limits.PublishBytesPerSecond, d.limits.PublishBytesPerSecond),
			Connections:           or(s.Limits.Connections, d.limits.Connections),
		},
		Retention: Retention{
			Age:    time.Duration(or(s.Retention.AgeSeconds, int64(d.retention.Age/time.Second))) * time.Second,
			Events: or(s.Retention.Events, d.retention.Events),
			Bytes:  or(s.Retention.Bytes, d.retention.Bytes),
		},
	}
}
