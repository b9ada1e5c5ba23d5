// Package vectors runs the test vectors of protocol/vectors, whose README says
// how they are written.
package vectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon"
)

// Text is a text of a vector, whichever way it is written.
type Text string

// UnmarshalJSON reads every form of a text.
func (t *Text) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		return json.Unmarshal(b, (*string)(t))
	case '[':
		var parts []Text
		if err := json.Unmarshal(b, &parts); err != nil {
			return err
		}
		*t = ""
		for _, p := range parts {
			*t += p
		}
		return nil
	}
	var form struct {
		Base64 []byte
		Repeat string
		Times  int
	}
	if err := strict(b, &form); err != nil {
		return err
	}
	*t = Text(form.Base64) + Text(strings.Repeat(form.Repeat, form.Times))
	return nil
}

type vector struct {
	Name  string
	In    json.RawMessage
	Want  json.RawMessage
	Error carillon.Code
}

// Run runs every case of a table: what run makes of its in is its want, as JSON,
// or the error it returns has the code.
func Run[In any](t *testing.T, file, table string, run func(t *testing.T, in In) (any, error)) {
	t.Helper()
	for _, v := range read[[]vector](t, file, table) {
		t.Run(v.Name, func(t *testing.T) {
			got, err := run(t, decode[In](t, v.In))
			switch {
			case err != nil && v.Error == "":
				t.Fatalf("refused: %v", err)
			case err != nil:
				if code := carillon.AsError(err).Code; code != v.Error {
					t.Fatalf("refused: %v, want %s", err, v.Error)
				}
				return
			}
			b, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if v.Error != "" {
				t.Fatalf("accepted as %s, want %s", b, v.Error)
			}
			if diff := cmp.Diff(value(t, v.Want), value(t, b)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Inputs are the in of a table's cases: seeds for fuzzing.
func Inputs[In any](t testing.TB, file, table string) []In {
	t.Helper()
	var all []In
	for _, v := range read[[]vector](t, file, table) {
		all = append(all, decode[In](t, v.In))
	}
	return all
}

// Given is what holds for all cases of a file.
func Given[T any](t testing.TB, file string) T {
	t.Helper()
	return read[T](t, file, "given")
}

// read reads one member of a file.
func read[T any](t testing.TB, file, name string) T {
	t.Helper()
	b, err := find(file)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if members[name] == nil {
		t.Fatalf("%s has no %q", file, name)
	}
	return decode[T](t, members[name])
}

// find reads a file from the directory of a test.
func find(file string) ([]byte, error) {
	for up := "."; len(up) < 20; up = filepath.Join(up, "..") {
		b, err := os.ReadFile(filepath.Join(up, "protocol", "vectors", file))
		if !errors.Is(err, os.ErrNotExist) {
			return b, err
		}
	}
	return nil, fmt.Errorf("protocol/vectors/%s is not there", file)
}

func decode[T any](t testing.TB, b []byte) (v T) {
	t.Helper()
	if err := strict(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// strict refuses fields that v has not.
func strict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the JSON")
	}
	return nil
}

// value is JSON as it is compared: numbers as they are written.
func value(t testing.TB, b []byte) any {
	t.Helper()
	return decode[any](t, b)
}
