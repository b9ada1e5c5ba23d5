package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHZ is the unit of times in /proc/<pid>/stat: 100 per second on every Linux
// that Go runs on.
const userHZ = 100

// usage is what a process has used at one moment.
type usage struct {
	user, sys time.Duration
	rss       uint64 // bytes
	at        time.Time
}

func (u usage) cpu() time.Duration { return u.user + u.sys }

// readUsage reads a process' CPU time and memory. A pid of 0 has none.
func readUsage(pid int) (usage, error) {
	u := usage{at: time.Now()}
	if pid == 0 {
		return u, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("bench: CPU time: %w", err)
	}
	if u.user, u.sys, err = parseStat(stat); err != nil {
		return u, err
	}
	// smaps_rollup counts pages; VmRSS lags behind by some per CPU.
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)); err == nil {
		if rss, ok := kilobytes(b, "Rss:"); ok {
			u.rss = rss
			return u, nil
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, fmt.Errorf("bench: RSS: %w", err)
	}
	rss, ok := kilobytes(status, "VmRSS:")
	if !ok {
		return u, fmt.Errorf("bench: process %d shows no VmRSS", pid)
	}
	u.rss = rss
	return u, nil
}

// parseStat finds utime and stime after the command's name, which may hold
// anything.
func parseStat(b []byte) (user, sys time.Duration, err error) {
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return 0, 0, errors.New("bench: /proc/<pid>/stat is too short")
	}
	u, err1 := strconv.ParseInt(string(f[11]), 10, 64)
	s, err2 := strconv.ParseInt(string(f[12]), 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0, errors.New("bench: /proc/<pid>/stat has no times")
	}
	return time.Duration(u) * time.Second / userHZ, time.Duration(s) * time.Second / userHZ, nil
}

func kilobytes(b []byte, name string) (uint64, bool) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			f := bytes.Fields(rest)
			if len(f) == 0 {
				return 0, false
			}
			n, err := strconv.ParseUint(string(f[0]), 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}

func cpuSet(cpus []int) *unix.CPUSet {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	return &set
}

// pinSelf pins every thread of this process. Threads made later inherit it.
func pinSelf(cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	set := cpuSet(cpus)
	for range 2 { // a second time for threads made during the first
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("bench: own threads: %w", err)
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			if err := unix.SchedSetaffinity(tid, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("bench: pin to CPUs %v: %w", cpus, err)
			}
		}
	}
	return nil
}

// onCPUs calls start on a thread pinned to cpus, so that a process it starts is
// pinned from its first instruction.
func onCPUs(cpus []int, start func() error) error {
	if len(cpus) == 0 {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("bench: affinity: %w", err)
	}
	if err := unix.SchedSetaffinity(0, cpuSet(cpus)); err != nil {
		return fmt.Errorf("bench: pin to CPUs %v: %w", cpus, err)
	}
	err := start()
	if e := unix.SchedSetaffinity(0, &before); e != nil && err == nil {
		err = fmt.Errorf("bench: affinity: %w", e)
	}
	return err
}

// needFiles raises the limit of open files to n. A process started later
// inherits it.
func needFiles(n int) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("bench: file limit: %w", err)
	}
	want := max(uint64(n), lim.Cur)
	if want > lim.Max {
		raised := unix.Rlimit{Cur: want, Max: want}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
			return fmt.Errorf("bench: %d open files are needed and the hard limit is %d; raise it (ulimit -Hn) or ask for fewer connections", n, lim.Max)
		}
		return nil
	}
	// Even if nothing changes: a limit set here is one the runtime hands on.
	lim.Cur = want
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("bench: file limit: %w", err)
	}
	return nil
}

// machine describes where the figures come from.
func machine() Values {
	var v Values
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		v.addText("kernel", unix.ByteSliceToString(uts.Release[:]))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				v.addText("cpu", strings.TrimSpace(model))
				break
			}
		}
	}
	v.add("cpus", "", float64(runtime.NumCPU()))
	v.addText("go", runtime.Version())
	v.addText("time", time.Now().UTC().Format(time.RFC3339))
	return v
}

// onTmpfs reports whether a directory is in memory, where fsync costs nothing.
func onTmpfs(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.TMPFS_MAGIC
}

// memory is the server's own account after a forced collection.
type memory struct {
	alloc, inuse, idle, stack, spans, caches, gc, other, buckets float64
	goroutines                                                   float64
}

// used is all but what is free or was returned.
func (m *memory) used() float64 {
	return m.inuse + m.stack + m.spans + m.caches + m.gc + m.other + m.buckets
}

// readMemory forces a collection and reads the account from the operations port.
func readMemory(ctx context.Context, opsURL string) (*memory, error) {
	heap, err := get(ctx, opsURL+"/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return nil, err
	}
	m := &memory{}
	var idle, released float64
	for line := range bytes.Lines(heap) {
		name, value, ok := bytes.Cut(bytes.TrimPrefix(line, []byte("# ")), []byte(" = "))
		if !ok {
			continue
		}
		first, _, _ := bytes.Cut(bytes.TrimSpace(value), []byte(" "))
		n, err := strconv.ParseFloat(string(first), 64)
		if err != nil {
			continue
		}
		switch string(name) {
		case "HeapAlloc":
			m.alloc = n
		case "HeapInuse":
			m.inuse = n
		case "HeapIdle":
			idle = n
		case "HeapReleased":
			released = n
		case "Stack":
			m.stack = n
		case "MSpan":
			m.spans = n
		case "MCache":
			m.caches = n
		case "GCSys":
			m.gc = n
		case "OtherSys":
			m.other = n
		case "BuckHashSys":
			m.buckets = n
		}
	}
	m.idle = idle - released
	goroutines, err := get(ctx, opsURL+"/debug/pprof/goroutine?debug=1")
	if err != nil {
		return nil, err
	}
	if rest, ok := bytes.CutPrefix(goroutines, []byte("goroutine profile: total ")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		m.goroutines, _ = strconv.ParseFloat(string(line), 64)
	}
	return m, nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("bench: %s: %s: %.200s", url, res.Status, b)
	}
	return b, nil
}
