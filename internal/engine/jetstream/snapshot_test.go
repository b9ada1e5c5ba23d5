package jetstream_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
	"github.com/carillon-rt/carillon/internal/testkit"
)

// history is what a store had before it was exported.
type history struct {
	acme, gone, quiet, intake []carillon.Position
	head                      carillon.Position
}

const partitionsOfExport = 3

// fillStore makes a store with a history: a purge, keys, settings.
func fillStore(t *testing.T, dir string) (h history) {
	t.Helper()
	e := open(t, jetstream.Config{Dir: dir, Partitions: partitionsOfExport})
	defer closeEngine(t, e)
	for i := range 50 {
		h.acme = append(h.acme, appendAll(t, e.Open("acme"), engine.Append{Event: numbered(i), Key: fmt.Sprintf("k:%d", i)})[0].Pos)
		h.gone = append(h.gone, appendAll(t, e.Open("gone"), engine.Append{Event: numbered(i)})[0].Pos)
	}
	var batch []engine.Append
	for range 200 { // several pieces
		batch = append(batch, engine.Append{Event: &carillon.Event{Type: "n", Time: time.UnixMilli(1).UTC(), Data: bytes.Repeat([]byte("12345678"), 500)}})
	}
	for _, r := range appendAll(t, e.Open("acme"), batch...) {
		h.acme = append(h.acme, r.Pos)
	}
	h.quiet = append(h.quiet, appendAll(t, e.Open("quiet"), engine.Append{Event: numbered(0)})[0].Pos)
	if err := e.Open("gone").Purge(t.Context(), h.gone[29].Seq); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		h.intake = append(h.intake, appendAll(t, e.Intake("acme"), engine.Append{Event: numbered(i), Key: fmt.Sprintf("k:%d", i)})[0].Pos)
	}
	for _, r := range appendAll(t, e.Intake("acme"), large(1, 3)...) {
		h.intake = append(h.intake, r.Pos)
	}
	if err := e.Intake("acme").Purge(t.Context(), h.intake[9].Seq); err != nil {
		t.Fatal(err)
	}
	if err := e.KV().Put(t.Context(), "install.key", []byte("secret of the install")); err != nil {
		t.Fatal(err)
	}
	h.head = e.Head(e.Open("acme").Partition())
	return h
}

// check finds everything where it was.
func (h history) check(t *testing.T, e *jetstream.Engine, keys bool) {
	t.Helper()
	if key, _, err := e.KV().Get(t.Context(), "install.key"); err != nil || string(key) != "secret of the install" {
		t.Errorf("the install's key is %q %v", key, err)
	}
	got := readAll(t, e.Open("acme"))
	if len(got) != len(h.acme) {
		t.Fatalf("%d entries, want %d", len(got), len(h.acme))
	}
	for i, entry := range got {
		if entry.Pos != h.acme[i] || i < 50 && string(entry.Data) != fmt.Sprint(i) {
			t.Fatalf("entry %d is %.20s at %v, want it at %v", i, entry.Data, entry.Pos, h.acme[i])
		}
	}
	for i, entry := range readAll(t, e.Intake("acme")) {
		if i += 10; entry.Pos != h.intake[i] || i < 20 && string(entry.Data) != fmt.Sprint(i) || i >= 20 && len(entry.Data) != 768<<10 {
			t.Errorf("entry %d of the intake is %.20q at %v, want it at %v", i, entry.Data, entry.Pos, h.intake[i])
		}
	}
	for i, pos := range h.intake {
		want := engine.OK
		if i < 9 {
			want = engine.Expired
		}
		if out, err := e.Intake("acme").Resume(t.Context(), pos); err != nil || out.Status != want {
			t.Errorf("the intake at %v: %v %v, want %v", pos, out, err, want)
		}
	}
	if next := appendAll(t, e.Intake("acme"), engine.Append{Event: numbered(0)})[0].Pos; next.Seq != h.intake[22].Seq+1 {
		t.Errorf("the next entry of the intake is at %v after %v", next, h.intake[22])
	}
	resume := func(org carillon.OrgID, want engine.Status, at ...carillon.Position) {
		t.Helper()
		for _, pos := range at {
			if out, err := e.Open(org).Resume(t.Context(), pos); err != nil || out.Status != want {
				t.Errorf("%s at %v: %v %v, want %v", org, pos, out, err, want)
			}
		}
	}
	resume("acme", engine.OK, h.acme...)
	resume("acme", engine.OK, carillon.Position{Partition: h.acme[0].Partition})
	resume("quiet", engine.OK, h.quiet...)
	resume("gone", engine.Expired, h.gone[:29]...)
	resume("gone", engine.OK, h.gone[29:]...)
	if next := appendAll(t, e.Open("acme"), engine.Append{Event: numbered(0)})[0].Pos; next.Seq != h.head.Seq+1 {
		t.Errorf("the next entry is at %v after %v", next, h.head)
	}
	if !keys {
		return
	}
	if again := appendAll(t, e.Intake("acme"), engine.Append{Event: numbered(17), Key: "k:17"})[0]; !again.Duplicate || again.Pos != h.intake[17] {
		t.Errorf("a key of the intake of before: %+v, want a duplicate of %v", again, h.intake[17])
	}
	if again := appendAll(t, e.Open("acme"), engine.Append{Event: numbered(7), Key: "k:7"})[0]; !again.Duplicate || again.Pos != h.acme[7] {
		t.Errorf("a key of before: %+v, want a duplicate of %v", again, h.acme[7])
	}
}

func export(t *testing.T, c jetstream.Config) []byte {
	t.Helper()
	var out bytes.Buffer
	m, err := jetstream.Export(t.Context(), c, &out)
	if err != nil {
		t.Fatal(err)
	}
	if m.Partitions != partitionsOfExport || m.Intake != 1 || m.Format != 2 || m.Prefix != "car" {
		t.Errorf("the manifest is %+v", m)
	}
	return out.Bytes()
}

func TestExportedLogGoesOnElsewhere(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	h := fillStore(t, dir)
	file := export(t, jetstream.Config{Dir: dir})
	single := natsServer(t, server.Options{JetStream: true, JetStreamMaxStore: 1 << 40})
	places := map[string]jetstream.Config{
		"InAnotherDirectory": {Dir: t.TempDir()},
		"OnAnExternalServer": {NATS: &jetstream.NATS{URL: single.ClientURL(), Replicas: 1}},
		"OnAClusterOfThree":  {NATS: &jetstream.NATS{Replicas: 3}},
	}
	for name, c := range places {
		t.Run(name, func(t *testing.T) {
			if c.NATS != nil && c.NATS.URL == "" {
				c.NATS.URL = testkit.NewCluster(t).URL
			}
			if _, err := jetstream.Import(t.Context(), c, bytes.NewReader(file)); err != nil {
				t.Fatal(err)
			}
			e := openExternal(t, c)
			defer closeEngine(t, e)
			h.check(t, e, c.NATS == nil)
		})
	}
	// And back, from one that is in use.
	c := places["OnAnExternalServer"]
	e := openExternal(t, c)
	defer closeEngine(t, e)
	back := jetstream.Config{Dir: t.TempDir()}
	if _, err := jetstream.Import(t.Context(), back, bytes.NewReader(export(t, c))); err != nil {
		t.Fatal(err)
	}
	last := e.Head(e.Open("acme").Partition())
	e2 := open(t, back)
	defer closeEngine(t, e2)
	if out, err := e2.Open("acme").Resume(t.Context(), last); err != nil || out.Status != engine.OK {
		t.Errorf("resume at %v: %v %v", last, out, err)
	}
}

func TestImportRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	fillStore(t, dir)
	file := export(t, jetstream.Config{Dir: dir})
	edit := func(from, to string) []byte {
		if len(from) != len(to) || !bytes.Contains(file, []byte(from)) {
			t.Fatalf("%q cannot become %q", from, to)
		}
		return bytes.Replace(bytes.Clone(file), []byte(from), []byte(to), 1)
	}
	target := jetstream.Config{Dir: t.TempDir()}
	for _, tt := range []struct {
		name   string
		file   []byte
		config func(jetstream.Config) jetstream.Config
		want   string
	}{
		{"Format", edit(`"format": 2`, `"format": 3`), nil, "format 3; this version reads 1 to 2"},
		{"MoreIntakes", edit(`"intake": 1`, `"intake": 7`), nil, "7 partitions of an intake; this version has 1"},
		{"IntakeInAnOldFormat", edit(`"format": 2`, `"format": 1`), nil, "1 partitions of an intake"},
		{"NewerServer", edit(`"nats_server": "2.`, `"nats_server": "9.`), nil, "made by NATS server 9."},
		{"Prefix", file, func(c jetstream.Config) jetstream.Config { c.Prefix = "other"; return c }, `prefix "car"`},
		{"Partitions", file, func(c jetstream.Config) jetstream.Config { c.Partitions = 8; return c }, "3 partitions"},
		{"AnotherFile", []byte("something else"), nil, "not a whole export"},
		{"NoFile", nil, nil, "not a whole export"},
		{"CutInTheMiddle", file[:len(file)/2], nil, "not a whole export"},
		{"CutAtTheEnd", file[:bytes.LastIndex(file, []byte("end.json"))], nil, "not a whole export"},
		{"IntoOneThatIsThere", file, func(c jetstream.Config) jetstream.Config { c.Dir = dir; return c }, "has a log already"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := target
			if tt.config != nil {
				c = tt.config(c)
			}
			if _, err := jetstream.Import(t.Context(), c, bytes.NewReader(tt.file)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("imported with %v, want %q", err, tt.want)
			}
		})
	}
	// Nothing was left behind by any of them.
	if _, err := jetstream.Import(t.Context(), target, bytes.NewReader(file)); err != nil {
		t.Error(err)
	}
}

func TestExportOfNoLogIsRefused(t *testing.T) {
	s := natsServer(t, server.Options{JetStream: true})
	_, err := jetstream.Export(t.Context(), jetstream.Config{NATS: &jetstream.NATS{URL: s.ClientURL(), Replicas: 1}}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), `no log with the prefix "car"`) {
		t.Errorf("exported: %v", err)
	}
}
