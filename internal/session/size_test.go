package session

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/memory"
	"github.com/carillon-rt/carillon/internal/hub"
	"github.com/carillon-rt/carillon/internal/wire"
)

// taker is a transport that takes what its session has, and forgets it.
type taker struct {
	s    *Session
	took *atomic.Int64
	bufs *[][]byte // of the shard
}

func (c *taker) Ready() {
	for {
		bufs, last := c.s.Pull((*c.bufs)[:0], 64<<10)
		*c.bufs = bufs
		if len(bufs) == 0 || last {
			return
		}
		c.took.Add(int64(len(bufs)))
	}
}

// crowd is sessions without sockets, each of a user of its own, with one
// subscription.
type crowd struct {
	hub    *hub.Hub
	engine *memory.Engine
	core   *Core
	takers []taker
	took   atomic.Int64 // frames
	begun  int

	format  Format
	pattern func(i int) string
}

func newCrowd(t testing.TB, n int, limits Limits, format Format, pattern func(int) string) *crowd {
	t.Helper()
	c := &crowd{engine: memory.New(memory.Config{}), format: format, pattern: pattern}
	c.hub = hub.New(hub.Config{Engine: c.engine, Shards: 2})
	if err := c.hub.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.hub.Stop()
		_ = c.engine.Close(context.Background())
	})
	c.core = NewCore(Config{Hub: c.hub, IDs: wire.NewKeyring(make([]byte, 32)), Limits: limits})
	c.takers = make([]taker, n)
	bufs := make([][][]byte, len(c.hub.Shards()))
	for i := range c.takers {
		c.takers[i] = taker{took: &c.took, bufs: &bufs[i%len(bufs)]}
	}
	return c
}

// busy is how many of these sessions are not idle.
func (c *crowd) busy(from, to int) (n int) {
	counts := make(chan int)
	for _, shard := range c.hub.Shards() {
		shard.Post(hub.TaskFunc(func() {
			n := 0
			for i := from; i < to; i++ {
				if s := c.takers[i].s; s.Shard() == shard && (s.active != nil || !reflect.ValueOf(&s.feed).Elem().FieldByName("busy").IsNil()) {
					n++
				}
			}
			counts <- n
		}))
	}
	for range c.hub.Shards() {
		n += <-counts
	}
	return n
}

// grow makes sessions until there are n, some at a time, each time when those before
// are idle.
func (c *crowd) grow(n int) {
	for c.begun < n {
		from, to := c.begun, min(c.begun+1000, n)
		var made sync.WaitGroup
		for k, shard := range c.hub.Shards() {
			made.Add(1)
			shard.Post(hub.TaskFunc(func() {
				defer made.Done()
				for i := from; i < to; i++ {
					if i%len(c.hub.Shards()) == k {
						c.begin(shard, i)
					}
				}
			}))
		}
		made.Wait()
		for c.busy(from, to) > 0 {
			time.Sleep(50 * time.Microsecond)
		}
		c.begun = to
	}
}

func (c *crowd) begin(shard *hub.Shard, i int) {
	p := &carillon.Principal{Org: "acme", User: userName(i), Role: carillon.RoleMember, Expires: time.Now().Add(time.Hour)}
	opt := Options{Format: c.format, Principal: p, Conn: &c.takers[i]}
	if c.format == SSE {
		opt.Subscribe, opt.Patterns = true, []carillon.Pattern{carillon.Pattern(c.pattern(i))}
	}
	s := c.core.NewOn(shard, opt)
	c.takers[i].s = s
	if c.format == WebSocket {
		s.Receive(s.Read(fmt.Appendf(nil, `{"type":"subscribe","pattern":%q}`, c.pattern(i))), func() {})
	}
}

func userName(i int) string { return fmt.Sprintf("user-%08d", i) }

func shared(int) string    { return "a.*" }
func ownType(i int) string { return fmt.Sprintf("own.%08d", i) }

// heap is what is alive, in bytes and in pieces.
func heap() (bytes, objects float64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), float64(m.HeapObjects)
}

// quiet is limits by which no heartbeat comes.
var quiet = Limits{MaxIdle: time.Hour, KeepAlive: time.Hour, DeadAfter: 2 * time.Hour}

// What a session holds while nothing happens, without its connection, but with its
// places in the realm, among the users, on its shard and in the wheel.
func TestAnIdleSessionIsSmall(t *testing.T) {
	for _, tt := range []struct {
		name           string
		format         Format
		pattern        func(int) string
		bytes, objects float64
	}{
		{"WebSocket, one pattern", WebSocket, shared, 272, 2.05},
		{"WebSocket, a type each", WebSocket, ownType, 340, 4.05},
		{"SSE, one pattern", SSE, shared, 272, 2.05},
		{"SSE, a type each", SSE, ownType, 340, 4.05},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const n, before = 20_000, 2000
			c := newCrowd(t, n, quiet, tt.format, tt.pattern)
			c.grow(before) // what is there once is not of a session, nor what is kept for those to come
			bytes0, objects0 := heap()
			c.grow(n)
			bytes, objects := heap()
			bytes, objects = (bytes-bytes0)/(n-before), (objects-objects0)/(n-before)
			t.Logf("%.0f bytes in %.2f pieces", bytes, objects)
			if bytes > tt.bytes || objects > tt.objects {
				t.Errorf("a session holds %.0f bytes in %.2f pieces, want at most %.0f in %.2f", bytes, objects, tt.bytes, tt.objects)
			}
			runtime.KeepAlive(c)
		})
	}
	if size := unsafe.Sizeof(Session{}); size > 240 {
		t.Errorf("a session is %d bytes, which take a piece of 256", size)
	}
}

// The garbage collector follows the pointers of every session, however idle.
func TestAnIdleSessionHasFewPointers(t *testing.T) {
	const most = 12
	c := newCrowd(t, 100, quiet, WebSocket, shared)
	c.grow(100)
	done := make(chan int)
	c.hub.Shards()[0].Post(hub.TaskFunc(func() {
		done <- pointers(reflect.ValueOf(c.takers[50].s).Elem())
	}))
	const tables = 3 // those of members, of feeds, and of users
	if n := <-done + tables; n > most {
		t.Errorf("a session has %d pointers, want at most %d", n, most)
	}
}

// pointers counts those in v that are not nil.
func pointers(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			n += pointers(field)
		}
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Func, reflect.Map, reflect.Chan, reflect.UnsafePointer:
		if !v.IsNil() {
			n = 1
		}
	case reflect.String:
		if v.Len() > 0 {
			n = 1
		}
	default:
	}
	return n
}

// An active session becomes an idle one again, whatever has happened.
func TestWhatASessionNeedsOnlyNowAndThenGoes(t *testing.T) {
	c := newCrowd(t, 100, quiet, WebSocket, shared)
	c.grow(100)
	log := c.engine.Open("acme")
	event := []engine.Append{{Event: &carillon.Event{Type: "a.b", Data: []byte("1")}}}
	if _, err := engine.AppendWait(context.Background(), log, event); err != nil {
		t.Fatal(err)
	}
	for _, shard := range c.hub.Shards() {
		shard.Post(hub.TaskFunc(func() {
			for i := range c.takers {
				if s := c.takers[i].s; s.Shard() == shard {
					s.Receive(s.Read([]byte(`{"type":"ping"}`)), func() {})
					s.Receive(s.Read([]byte(`{"type":"subscribe","pattern":"a.*","after":"earliest"}`)), func() {})
					s.Pong(nil)
				}
			}
		}))
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		n := c.busy(0, c.begun)
		if n == 0 && c.took.Load() > 400 { // welcome, subscribed, caught_up, and what came of that
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 100 sessions keep what they do not need any more", n)
		}
	}
}
