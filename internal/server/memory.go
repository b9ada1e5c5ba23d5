package server

import (
	"io/fs"
	"math"
	"math/rand/v2"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon"
)

const (
	memoryEvery = 100 * time.Millisecond // between two looks
	memoryBand  = 5                      // percent below the limit, where it is over
	memoryRetry = 5 * time.Second        // at least, and at most twice
)

// memoryGuard refuses what is new while the node needs more of its memory than it
// should: what lives after the last garbage collection, with what is no garbage at
// all. The zero value refuses nothing.
type memoryGuard struct {
	// Set once.
	high, low uint64 // bytes; refusing begins at the one and ends below the other
	used      func() uint64

	next atomic.Int64 // when to look again, in nanoseconds
	over atomic.Bool
	hits atomic.Uint64
}

// limit sets the limit: a share of the memory there is, which nothing says where
// available is 0.
func (m *memoryGuard) limit(available uint64, percent int, used func() uint64) {
	if percent == 0 || available == 0 {
		return
	}
	m.high = available / 100 * uint64(percent)
	m.low = available / 100 * uint64(max(percent-memoryBand, 0))
	m.used = used
}

// full returns why nothing new is taken now, or nil.
func (m *memoryGuard) full() error {
	if m.high == 0 {
		return nil
	}
	now := time.Now().UnixNano()
	if next := m.next.Load(); now >= next && m.next.CompareAndSwap(next, now+int64(memoryEvery)) {
		m.look()
	}
	if !m.over.Load() {
		return nil
	}
	m.hits.Add(1)
	return carillon.Unavailable(memoryRetry+rand.N(memoryRetry), nil, "this server is short of memory; try again later")
}

func (m *memoryGuard) look() {
	switch used := m.used(); {
	case used >= m.high:
		m.over.Store(true)
	case used < m.low:
		m.over.Store(false)
	}
}

// memoryUsed is the memory that the process needs: all that it has, less what the
// garbage collector would find or has found.
func memoryUsed() uint64 {
	sample := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(sample)
	used := sample[0].Value.Uint64() + sample[1].Value.Uint64()
	for _, s := range sample[2:] {
		used -= min(used, s.Value.Uint64())
	}
	return used
}

// memoryAvailable is the least of what Go was told (GOMEMLIMIT) and what the
// process's control groups have, or 0 if nobody says.
func memoryAvailable(root fs.FS) uint64 {
	least := uint64(math.MaxInt64)
	if told := debug.SetMemoryLimit(-1); told > 0 {
		least = min(least, uint64(told))
	}
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // none on other systems
	for line := range strings.Lines(string(groups)) {
		// <number>:<controllers>:<path>; version 2 has no controllers.
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		mount, file := "sys/fs/cgroup", "memory.max"
		switch controllers {
		case "":
		case "memory":
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// A group has no more than those around it; in a container the path may be
		// that of the host, and its own group is the mount.
		for dir := path.Join("/", group); ; dir = path.Dir(dir) {
			text, err := fs.ReadFile(root, path.Join(mount, dir, file))
			if n, bad := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63); err == nil && bad == nil && n > 0 {
				least = min(least, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	if least >= math.MaxInt64>>12<<12 { // version 1 says so when there is no limit
		return 0
	}
	return least
}
