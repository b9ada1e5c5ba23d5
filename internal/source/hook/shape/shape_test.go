package shape_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/shape"
)

const push = `{"ref":"refs/heads/main","size":1.0,"repository":{"id":7,"full_name":"a/b","owner":{"login":"a","token":"x"}},` +
	`"commits":[{"id":"c1","author":{"name":"Ann","email":"ann@example.com"}},{"id":"c2","author":{"name":"Bob"}}],"pusher":null}`

func TestWhatIsPickedDroppedAndRenamed(t *testing.T) {
	for _, tc := range []struct {
		name       string
		pick, drop []string
		rename     map[string]string
		in, want   string
	}{
		{name: "nothing is said", in: push, want: push},
		{name: "one field", pick: []string{"ref"}, in: push, want: `{"ref":"refs/heads/main"}`},
		{name: "a field below, with those around it", pick: []string{"repository.owner.login"}, in: push, want: `{"repository":{"owner":{"login":"a"}}}`},
		{
			name: "fields of everything in a list", pick: []string{"commits.author.name", "size"}, in: push,
			want: `{"size":1.0,"commits":[{"author":{"name":"Ann"}},{"author":{"name":"Bob"}}]}`,
		},
		{name: "a whole value and less of it", pick: []string{"repository"}, drop: []string{"repository.owner"}, in: push, want: `{"repository":{"id":7,"full_name":"a/b"}}`},
		{
			name: "what is dropped in a list", drop: []string{"commits.author", "repository"}, in: push,
			want: `{"ref":"refs/heads/main","size":1.0,"commits":[{"id":"c1"},{"id":"c2"}],"pusher":null}`,
		},
		{name: "a new name keeps its place", pick: []string{"ref", "size"}, rename: map[string]string{"ref": "branch"}, in: push, want: `{"branch":"refs/heads/main","size":1.0}`},
		{name: "a new name takes the place of another field", rename: map[string]string{"a": "b"}, in: `{"a":1,"b":2,"c":3}`, want: `{"b":1,"c":3}`},
		{name: "and does not where the first is not there", rename: map[string]string{"a": "b"}, in: `{"b":2,"c":3}`, want: `{"b":2,"c":3}`},
		{name: "names change with each other", rename: map[string]string{"a": "b", "b": "a"}, in: `{"a":1,"b":2}`, want: `{"b":1,"a":2}`},
		{name: "a new name is quoted as JSON", rename: map[string]string{"a": "\"<\n"}, in: `{"a":1}`, want: `{"\"\u003c\n":1}`},
		{name: "a name with escapes in the value is found", pick: []string{"a\"b"}, in: `{"a\"b":1,"c":2}`, want: `{"a\"b":1}`},
		{name: "text that looks like structure", pick: []string{"b"}, in: `{"a":"}],{\"b\":9","b":"\\"}`, want: `{"b":"\\"}`},
		{name: "a value that is no object", pick: []string{"a"}, in: `"text"`, want: `"text"`},
		{name: "scalars of a list of which only fields are picked", pick: []string{"l.a"}, in: `{"l":[1,{"a":2},"x",[{"a":3,"b":4}]]}`, want: `{"l":[{"a":2},[{"a":3}]]}`},
		{name: "empty things", pick: []string{"a", "b"}, in: `{"a":{},"b":[],"c":{}}`, want: `{"a":{},"b":[]}`},
		{name: "nothing that is picked is there", pick: []string{"z"}, in: push, want: `{}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := shape.New(tc.pick, tc.drop, tc.rename)
			if err != nil {
				t.Fatal(err)
			}
			before := tc.in
			got, err := s.Apply([]byte(tc.in))
			if err != nil || string(got) != tc.want {
				t.Errorf("got  %s, %v\nwant %s", got, err, tc.want)
			}
			if tc.in != before {
				t.Error("the value was changed in place")
			}
		})
	}
}

func TestLookingUpAPath(t *testing.T) {
	for path, want := range map[string]string{
		"ref": "refs/heads/main", "size": "1.0", "repository.id": "7", "repository.owner.login": "a", "commits.id": "c1",
		"commits.author.email": "ann@example.com", "pusher": "", "repository": "", "repository.owner.login.x": "", "nope": "", "": "", "a..b": "",
	} {
		got, ok := shape.Lookup([]byte(push), path)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", path, got, ok, want)
		}
	}
}

func TestAPathIsNamesWithDots(t *testing.T) {
	for _, path := range []string{"", ".", "a.", ".a", "a..b", strings.Repeat("x", shape.MaxPath+1)} {
		if err := shape.Check(path); err == nil {
			t.Errorf("%.20q: taken", path)
		}
		if _, err := shape.New([]string{path}, nil, nil); err == nil {
			t.Errorf("%.20q: taken to pick", path)
		}
		if _, err := shape.New(nil, nil, map[string]string{path: "x"}); err == nil {
			t.Errorf("%.20q: taken to rename", path)
		}
	}
	if _, err := shape.New(nil, nil, map[string]string{"a": ""}); err == nil {
		t.Error("an empty new name was taken")
	}
	if _, err := shape.New(make([]string, shape.MaxPaths+1), nil, nil); err == nil {
		t.Error("more paths than there may be were taken")
	}
}

func TestAValueThatIsNestedTooDeepIsRefused(t *testing.T) {
	s, err := shape.New(nil, []string{strings.Repeat("a.", 249) + "b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat(`[`, shape.MaxDepth+2) + strings.Repeat(`]`, shape.MaxDepth+2)
	if _, err := s.Apply([]byte(deep)); err == nil {
		t.Error("taken")
	}
	if _, ok := shape.Lookup([]byte(deep), "a"); ok {
		t.Error("found")
	}
}

// Whatever is done to a value, it stays one, and no shape panics on any text.
func FuzzApply(f *testing.F) {
	f.Add(push, "commits.author.name", "repository.owner", "ref", "branch")
	f.Add(`{"a":1,"b":2}`, "a", "", "b", "a")
	f.Add(`[[{"a":[]}]]`, "a", "a.b", "a.c", "d")
	f.Add(`{"`, "a", "a", "a", "a")
	f.Fuzz(func(t *testing.T, js, pick, drop, path, name string) {
		s, err := shape.New([]string{pick}, []string{drop}, map[string]string{path: name})
		if err != nil {
			return
		}
		var compact bytes.Buffer
		if json.Compact(&compact, []byte(js)) != nil {
			_, _ = s.Apply([]byte(js)) // must only end
			_, _ = shape.Lookup([]byte(js), pick)
			return
		}
		got, err := s.Apply(compact.Bytes())
		if err == nil && !json.Valid(got) {
			t.Errorf("%s became %s", compact.Bytes(), got)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	s, err := shape.New([]string{"ref", "commits.author", "repository.full_name"}, []string{"commits.author.email"}, map[string]string{"ref": "branch"})
	if err != nil {
		b.Fatal(err)
	}
	js := []byte(push)
	b.SetBytes(int64(len(js)))
	for b.Loop() {
		if _, err := s.Apply(js); err != nil {
			b.Fatal(err)
		}
	}
}
