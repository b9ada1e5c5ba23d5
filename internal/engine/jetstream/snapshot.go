package jetstream

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// An exported log is a tar file: manifest.json; for each stream, those of events
// first, then the intake's, <name>/stream.json
// with its settings and state, and the pieces of the server's own snapshot,
// <name>/000001 and so on; end.json. The settings, with the install's key, come
// last, so that they know of everything before them. Sequences stay as they
// are, and so do positions and event ids.
const (
	exportFormat = 2
	// formatOfEvents is that of a log of the first versions, which had no intake.
	formatOfEvents = 1
	manifestName   = "manifest.json"
	streamName     = "stream.json"
	endName        = "end.json"
)

// Manifest describes an exported log.
type Manifest struct {
	Format     int       `json:"format"`
	Made       time.Time `json:"made"`
	NATSServer string    `json:"nats_server"` // the version that made the snapshots
	Prefix     string    `json:"prefix"`
	Partitions int       `json:"partitions"`
	Intake     int       `json:"intake,omitempty"` // partitions of it; 0: the log has none yet
}

// exportedStream is stream.json, and what the server takes back.
type exportedStream struct {
	Config map[string]json.RawMessage `json:"config"`
	State  json.RawMessage            `json:"state"`
}

type exportEnd struct {
	Streams int `json:"streams"`
}

const (
	snapshotChunk   = 128 << 10
	snapshotBacklog = 128 // pieces that may lie unread; the server waits for them to be taken
	snapshotWindow  = snapshotBacklog / 2 * snapshotChunk
	snapshotSilence = 30 * time.Second
)

// Export writes the whole log to w. The log of a directory must not be in use; an
// external one may be, then each stream is as it was at some moment meanwhile.
func Export(ctx context.Context, c Config, w io.Writer) (m Manifest, err error) {
	e, _, err := attach(ctx, c)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, e.release()) }()
	bucket, err := e.manage.KeyValue(ctx, e.bucketName())
	if err != nil {
		return m, fmt.Errorf("jetstream: %s has no log with the prefix %q: %w", e.config.place(), e.config.Prefix, err)
	}
	e.kv = &kv{bucket}
	if _, _, err := e.kv.Get(ctx, keyPartitions); err != nil {
		return m, wrap(err, "number of partitions")
	}
	if err := e.countPartitions(ctx); err != nil {
		return m, err
	}
	m = Manifest{
		Format: formatOfEvents, Made: time.Now().UTC().Truncate(time.Second), NATSServer: e.signals.ConnectedServerVersion(),
		Prefix: e.config.Prefix, Partitions: e.config.Partitions,
	}
	if m.Intake, err = e.countIntake(ctx); err != nil {
		return m, err
	}
	if m.Intake > 0 {
		m.Format = exportFormat
	}
	out := tar.NewWriter(w)
	if err := addJSON(out, manifestName, m.Made, m); err != nil {
		return m, err
	}
	names := e.exported(m)
	for _, name := range names {
		if err := e.exportStream(ctx, out, name, m.Made); err != nil {
			return m, fmt.Errorf("jetstream: export %s: %w", name, err)
		}
	}
	if err := addJSON(out, endName, m.Made, exportEnd{len(names)}); err != nil {
		return m, err
	}
	return m, wrap(out.Close(), "export")
}

// countIntake says how many partitions of an intake there are: none where only a
// version that knew of none has been.
func (e *Engine) countIntake(ctx context.Context) (int, error) {
	for i := range intakePartitions {
		_, err := e.manage.Stream(ctx, e.intake.streamOf(i))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return i, nil
		}
		if err != nil {
			return 0, wrap(err, "look for the intake")
		}
	}
	return intakePartitions, nil
}

// exported are the names of the streams in a file, in their order there.
func (e *Engine) exported(m Manifest) (names []string) {
	for i := range m.Partitions {
		names = append(names, e.events.streamOf(i))
	}
	for i := range m.Intake {
		names = append(names, e.intake.streamOf(i))
	}
	return append(names, e.settingsStream())
}

func addJSON(out *tar.Writer, name string, made time.Time, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return addFile(out, name, made, append(data, '\n'))
}

func addFile(out *tar.Writer, name string, made time.Time, data []byte) error {
	err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: made})
	if err == nil {
		_, err = out.Write(data)
	}
	return wrap(err, "write "+name)
}

func (e *Engine) exportStream(ctx context.Context, out *tar.Writer, name string, made time.Time) error {
	chunks := make(chan *nats.Msg, snapshotBacklog)
	inbox := newInbox()
	sub, err := e.replays.ChanSubscribe(inbox, chunks)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	var answer struct {
		Error *apiError `json:"error"`
		exportedStream
	}
	err = e.ask(ctx, apiPrefix+"STREAM.SNAPSHOT."+name, map[string]any{
		"deliver_subject": inbox, "no_consumers": true, "chunk_size": snapshotChunk, "window_size": snapshotWindow, "jsck": true,
	}, &answer)
	if err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("the log answers %d: %s", answer.Error.Code, answer.Error.Text)
	}
	if err := addJSON(out, name+"/"+streamName, made, answer.exportedStream); err != nil {
		return err
	}
	for n := 1; ; n++ {
		select {
		case msg := <-chunks:
			if len(msg.Data) == 0 {
				if status := msg.Header.Get(hdrStatus); status != "" && status != "204" {
					return fmt.Errorf("the snapshot ended with %s %s", status, msg.Header.Get("Description"))
				}
				return nil
			}
			if err := addFile(out, fmt.Sprintf("%s/%06d", name, n), made, msg.Data); err != nil {
				return err
			}
			if msg.Reply != "" {
				if err := msg.Respond(nil); err != nil {
					return err
				}
			}
		case <-time.After(snapshotSilence):
			return fmt.Errorf("nothing heard of the snapshot for %v", snapshotSilence)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ask sends a request to the server's API and reads the answer.
func (e *Engine) ask(ctx context.Context, subject string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotSilence)
	defer cancel()
	msg, err := e.replays.RequestWithContext(ctx, subject, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(msg.Data, answer)
}

// Import makes the log that Export has written, where there is none yet. When it
// fails it leaves nothing behind. External servers know the publishers' keys of
// before only after they have been started again.
func Import(ctx context.Context, c Config, r io.Reader) (m Manifest, err error) {
	e, _, err := attach(ctx, c)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, e.release()) }()
	in := &importer{engine: e, tar: tar.NewReader(r)}
	defer func() {
		if err != nil {
			in.undo(ctx)
		}
	}()
	if err := in.next(manifestName, &m); err != nil {
		return m, err
	}
	switch {
	case m.Format < formatOfEvents || m.Format > exportFormat:
		return m, fmt.Errorf("jetstream: import: the file has format %d; this version reads %d to %d", m.Format, formatOfEvents, exportFormat)
	case m.Prefix != e.config.Prefix:
		return m, fmt.Errorf("jetstream: import: the log has the prefix %q and this configuration %q; they have to be the same", m.Prefix, e.config.Prefix)
	case e.config.Partitions != 0 && m.Partitions != e.config.Partitions:
		return m, fmt.Errorf("jetstream: import: the log has %d partitions and this configuration %d; they have to be the same", m.Partitions, e.config.Partitions)
	case m.Intake < 0 || m.Intake > intakePartitions || m.Intake > 0 && m.Format == formatOfEvents:
		return m, fmt.Errorf("jetstream: import: the file has %d partitions of an intake; this version has %d", m.Intake, intakePartitions)
	case !atLeastVersion(e.signals.ConnectedServerVersion(), m.NATSServer):
		return m, fmt.Errorf("jetstream: import: the file was made by NATS server %s; this one is %s and may not read it",
			m.NATSServer, e.signals.ConnectedServerVersion())
	}
	return m, in.streams(ctx, m)
}

type importer struct {
	engine *Engine
	tar    *tar.Reader
	ahead  *tar.Header // of a file that was met and not read; nil: none
	made   []string    // streams
	open   string      // where the pieces of a restore under way go; "": none is
}

func (in *importer) header() (h *tar.Header, err error) {
	if h, in.ahead = in.ahead, nil; h != nil {
		return h, nil
	}
	return in.tar.Next()
}

// next reads a file of the archive that must come now.
func (in *importer) next(name string, v any) error {
	h, err := in.header()
	if err == nil && h.Name != name {
		err = fmt.Errorf("it has %s where %s should be", h.Name, name)
	}
	if err == nil {
		err = json.NewDecoder(in.tar).Decode(v)
	}
	if err != nil {
		return fmt.Errorf("jetstream: import: %w", notWhole(err))
	}
	return nil
}

func notWhole(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the file is not a whole export of a log: %w", err)
}

func (in *importer) streams(ctx context.Context, m Manifest) error {
	e := in.engine
	whole := m
	whole.Intake = intakePartitions // whether the file has one or not
	for _, name := range e.exported(whole) {
		_, err := e.manage.Stream(ctx, name)
		if err == nil {
			return fmt.Errorf("jetstream: import: %s has a log already (%s); import into an empty one", e.config.place(), name)
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return wrap(err, "import")
		}
	}
	names := e.exported(m)
	for _, name := range names {
		var s exportedStream
		if err := in.next(name+"/"+streamName, &s); err != nil {
			return err
		}
		if err := in.stream(ctx, name, s); err != nil {
			return fmt.Errorf("jetstream: import %s: %w", name, err)
		}
	}
	var end exportEnd
	if err := in.next(endName, &end); err != nil {
		return err
	}
	if end.Streams != len(names) {
		return fmt.Errorf("jetstream: import: the file says it has %d streams; it has %d", end.Streams, len(names))
	}
	return nil
}

// stream restores one stream.
func (in *importer) stream(ctx context.Context, name string, s exportedStream) error {
	e := in.engine
	s.Config["num_replicas"] = json.RawMessage(strconv.Itoa(e.config.replicas()))
	delete(s.Config, "placement")
	var answer struct {
		Error   *apiError `json:"error"`
		Deliver string    `json:"deliver_subject"`
	}
	in.made = append(in.made, name)
	if err := e.ask(ctx, apiPrefix+"STREAM.RESTORE."+name, s, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("the log answers %d: %s", answer.Error.Code, answer.Error.Text)
	}
	in.open = answer.Deliver
	for n := 1; ; n++ {
		h, err := in.header()
		if err != nil {
			return notWhole(err)
		}
		if h.Name != fmt.Sprintf("%s/%06d", name, n) {
			in.ahead = h
			return in.finish(ctx, s)
		}
		chunk, err := io.ReadAll(in.tar)
		if err != nil {
			return notWhole(err)
		}
		if _, err := in.send(ctx, chunk); err != nil {
			return err
		}
	}
}

// send passes a piece to the server. The server that takes it may not be known
// yet to the one we are connected to.
func (in *importer) send(ctx context.Context, chunk []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotSilence)
	defer cancel()
	for {
		msg, err := in.engine.replays.RequestWithContext(ctx, in.open, chunk)
		if !errors.Is(err, nats.ErrNoResponders) {
			if err == nil && len(chunk) > 0 && len(msg.Data) > 0 {
				err = fmt.Errorf("the log answers %s", bytes.TrimSpace(msg.Data))
			}
			return msg, err
		}
		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// finish ends a restore and compares what is there with what was exported.
func (in *importer) finish(ctx context.Context, s exportedStream) error {
	msg, err := in.send(ctx, nil)
	if err != nil {
		return err
	}
	in.open = ""
	var answer struct {
		Error *apiError             `json:"error"`
		State jetstream.StreamState `json:"state"`
	}
	var before jetstream.StreamState
	if err := errors.Join(json.Unmarshal(msg.Data, &answer), json.Unmarshal(s.State, &before)); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("the log answers %d: %s", answer.Error.Code, answer.Error.Text)
	}
	if answer.State.LastSeq < before.LastSeq { // the first ones may have gone by age
		return fmt.Errorf("it ends at %d; the exported one ended at %d", answer.State.LastSeq, before.LastSeq)
	}
	return nil
}

// undo deletes what was made.
func (in *importer) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotSilence)
	defer cancel()
	if in.open != "" { // the server makes the stream when it has all, or nothing
		_, _ = in.send(ctx, nil)
	}
	for _, name := range in.made {
		if err := in.engine.manage.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			in.engine.config.Logger.Warn("jetstream: a failed import has left a stream behind", "stream", name, "err", err)
		}
	}
}
