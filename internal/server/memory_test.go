package server

import (
	"bytes"
	"errors"
	"math"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/carillon-rt/carillon"
)

func TestMemoryIsRefusedAboveTheLimitUntilWellBelow(t *testing.T) {
	var used uint64
	var m memoryGuard
	m.limit(1000, 90, func() uint64 { return used })
	for _, step := range []struct {
		used    uint64
		refused bool
	}{
		{0, false}, {899, false}, {900, true}, {899, true}, {850, true}, {849, false}, {899, false}, {2000, true}, {0, false},
	} {
		used = step.used
		m.next.Store(0) // it looks now
		err := m.full()
		if (err != nil) != step.refused {
			t.Errorf("with %d of 1000 bytes: %v", step.used, err)
		}
		var e *carillon.Error
		if err != nil && (!errors.As(err, &e) || e.Code != carillon.CodeUnavailable || e.RetryAfter == 0) {
			t.Errorf("it is refused with %+v", err)
		}
	}
	if n := m.hits.Load(); n != 4 {
		t.Errorf("%d refusals were counted, want 4", n)
	}
}

func TestMemoryIsLookedAtNowAndThen(t *testing.T) {
	looks := 0
	var m memoryGuard
	m.limit(1000, 90, func() uint64 { looks++; return 0 })
	for range 1000 {
		if err := m.full(); err != nil {
			t.Fatal(err)
		}
		m.next.Store(math.MaxInt64) // it is not time yet
	}
	if looks != 1 {
		t.Errorf("%d looks", looks)
	}
}

func TestWithoutAMemoryLimitNothingIsRefused(t *testing.T) {
	for _, given := range []struct {
		available uint64
		percent   int
	}{{0, 90}, {1000, 0}} {
		var m memoryGuard
		m.limit(given.available, given.percent, func() uint64 { return math.MaxInt64 })
		if err := m.full(); err != nil {
			t.Errorf("%+v: %v", given, err)
		}
	}
}

func TestMemoryInUseIsWhatLives(t *testing.T) {
	before := memoryUsed()
	const size = 64 << 20
	kept := bytes.Repeat([]byte{1}, size)
	debug.FreeOSMemory()
	if grown := int64(memoryUsed()) - int64(before); grown < size/2 {
		t.Errorf("with %d bytes more that live it has grown by %d", size, grown)
	}
	runtime.KeepAlive(kept)
	debug.FreeOSMemory()
	if grown := int64(memoryUsed()) - int64(before); grown > size/2 {
		t.Errorf("when they are gone it has still grown by %d", grown)
	}
}

func TestTheMemoryThereIsIsTheLeastThatAnybodySays(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n")} }
	for _, tt := range []struct {
		name string
		told int64 // GOMEMLIMIT
		fs   fstest.MapFS
		want uint64
	}{
		{"nobody", math.MaxInt64, nil, 0},
		{"GOMEMLIMIT", 5 << 30, nil, 5 << 30},
		{"a group", math.MaxInt64, fstest.MapFS{"proc/self/cgroup": file("0::/a/b"), "sys/fs/cgroup/a/b/memory.max": file("1073741824")}, 1 << 30},
		{"no limit of a group", math.MaxInt64, fstest.MapFS{"proc/self/cgroup": file("0::/a"), "sys/fs/cgroup/a/memory.max": file("max")}, 0},
		{"a group around it", math.MaxInt64, fstest.MapFS{
			"proc/self/cgroup": file("0::/a/b"), "sys/fs/cgroup/a/b/memory.max": file("max"), "sys/fs/cgroup/a/memory.max": file("4096"),
		}, 4096},
		{"a container, whose group is the mount", math.MaxInt64, fstest.MapFS{"proc/self/cgroup": file("0::/"), "sys/fs/cgroup/memory.max": file("8192")}, 8192},
		{"a container that sees the host's path", math.MaxInt64, fstest.MapFS{
			"proc/self/cgroup": file("0::/kubepods/x"), "sys/fs/cgroup/memory.max": file("8192"),
		}, 8192},
		{"both, the group less", 1 << 30, fstest.MapFS{"proc/self/cgroup": file("0::/"), "sys/fs/cgroup/memory.max": file("8192")}, 8192},
		{"both, GOMEMLIMIT less", 1 << 30, fstest.MapFS{"proc/self/cgroup": file("0::/"), "sys/fs/cgroup/memory.max": file("8589934592")}, 1 << 30},
		{"version 1", math.MaxInt64, fstest.MapFS{
			"proc/self/cgroup": file("3:cpu,cpuacct:/a\n2:memory:/a"),
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": file("1073741824"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712"),
		}, 1 << 30},
		{"version 1 without a limit", math.MaxInt64, fstest.MapFS{
			"proc/self/cgroup": file("2:memory:/"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712"),
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(tt.told))
			if got := memoryAvailable(tt.fs); got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
		})
	}
}

func TestAKeyOfTheOperatorIsReadExactly(t *testing.T) {
	if _, err := newOperators([]string{"x"}); err == nil || !strings.Contains(err.Error(), "ops.keys") {
		t.Errorf("got %v", err)
	}
}
