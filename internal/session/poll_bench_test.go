package session_test

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/wire"
)

func newPollNode(b testing.TB, limits session.Limits) (core *session.Core, publish func()) {
	e := memory.New(memory.Config{})
	h := hub.New(hub.Config{Engine: e, Shards: 1})
	if err := h.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		h.Stop()
		_ = e.Close(context.Background())
	})
	core = session.NewCore(session.Config{Hub: h, IDs: wire.NewKeyring(make([]byte, 32)), Limits: limits})
	return core, func() {
		batch := []engine.Append{{Event: &carillon.Event{Type: "a.b", Data: []byte("1")}}}
		if _, err := engine.AppendWait(context.Background(), e.Open("acme"), batch); err != nil {
			b.Error(err)
		}
	}
}

func polling(i int) session.PollOptions {
	return session.PollOptions{
		Principal: &carillon.Principal{Org: "acme", User: "user-" + strconv.Itoa(i), Role: carillon.RoleMember},
		Patterns:  []carillon.Pattern{"a.*"}, Limit: 100, Wait: time.Hour,
	}
}

// BenchmarkPollAgain is one answer to a held poll, with one event, and the same
// caller's next poll.
func BenchmarkPollAgain(b *testing.B) {
	const polls = 1000
	core, publish := newPollNode(b, session.Limits{PollGather: -1})
	var wg sync.WaitGroup
	rounds := (b.N + polls - 1) / polls
	left := make([]int, polls)
	var ask func(i int, opt session.PollOptions)
	ask = func(i int, opt session.PollOptions) {
		core.Poll(opt, func(a session.PollAnswer) {
			if len(a.Events) != 1 || a.Err != nil {
				b.Errorf("answer is %+v", a)
			}
			if left[i]--; left[i] > 0 {
				opt.Cursor, _ = core.IDs.Org("acme").ParseCursor(a.Cursor)
				ask(i, opt)
			}
			wg.Done()
		})
	}
	for i := range polls {
		left[i] = rounds + 1
		wg.Add(1)
		ask(i, polling(i))
	}
	settle(core)
	publish()
	wg.Wait()
	b.ReportAllocs()
	b.ResetTimer()
	for range rounds {
		settle(core)
		wg.Add(polls)
		publish()
		wg.Wait()
	}
	if st := core.Stats(); st.Attached+polls != st.Polls {
		b.Errorf("%d of %d polls went on with a feed", st.Attached, st.Polls)
	}
}

// settle waits until the shard has done what it was asked to.
func settle(core *session.Core) {
	for range 3 {
		done := make(chan struct{})
		core.Hub.Shards()[0].Post(hub.TaskFunc(func() { close(done) }))
		<-done
	}
}

// BenchmarkHeldPoll is what a poll that waits keeps in memory, without its
// connection.
func BenchmarkHeldPoll(b *testing.B) {
	const polls = 20_000
	for b.Loop() {
		core, _ := newPollNode(b, session.Limits{})
		opts := make([]session.PollOptions, polls)
		for i := range opts {
			opts[i] = polling(i)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range opts {
			core.Poll(opts[i], func(session.PollAnswer) {})
		}
		settle(core)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/polls, "B/poll")
		b.ReportMetric(float64(int64(after.HeapObjects)-int64(before.HeapObjects))/polls, "objects/poll")
		runtime.KeepAlive(opts)
	}
}
