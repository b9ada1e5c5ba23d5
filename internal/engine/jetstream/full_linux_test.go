package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

// diskEnv names the small disk of a test that runs again in a child process.
const diskEnv = "CARILLON_ENGINE_DISK"

// smallDisk gives the test a file system of its own: the test runs again in a
// child process that may mount one. In the parent it returns "" when that is
// over.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if dir := os.Getenv(diskEnv); dir != "" {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), diskEnv+"="+t.TempDir())
	id := func(n int) []syscall.SysProcIDMap { return []syscall.SysProcIDMap{{HostID: n, Size: 1}} }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: id(os.Getuid()), GidMappings: id(os.Getgid()),
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("this system lets no process have its own mounts: %v", err)
	case err != nil:
		t.Errorf("on a small disk: %v\n%s", err, out)
	default:
		t.Logf("%s", out)
	}
	return ""
}

// fillDisk takes all that is left of a file system.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

func TestFullDiskRefusesAndRecoversByItself(t *testing.T) {
	disk := smallDisk(t, "200m")
	if disk == "" {
		return
	}
	for _, d := range []jetstream.Durability{jetstream.Strict, jetstream.Relaxed} {
		if testing.Short() && d == jetstream.Relaxed {
			continue
		}
		t.Run(string(d), func(t *testing.T) { testFullDisk(t, filepath.Join(disk, string(d)), d) })
	}
}

func testFullDisk(t *testing.T, dir string, d jetstream.Durability) {
	e := open(t, jetstream.Config{Dir: dir, Partitions: 2, Durability: d})
	defer closeEngine(t, e)

	// Publishers, each with events of its own that it sends until they are stored.
	const publishers = 8
	acked := make([][]carillon.Position, publishers)
	refused, stop := make(chan error, 1), make(chan struct{})
	var all sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(stop)
		all.Wait()
	})
	defer end()
	logOf := func(p int) engine.Log { return e.Open(carillon.OrgID(fmt.Sprintf("org-%d", p%3))) }
	for p := range publishers {
		all.Go(func() {
			for n := 0; ; {
				batch := []engine.Append{{Event: numbered(p*1_000_000 + n), Key: fmt.Sprintf("%d:%d", p, n)}}
				if p%2 == 1 {
					batch = append(batch, engine.Append{Event: numbered(-1), Key: fmt.Sprintf("%d:%d:", p, n)})
				}
				r, err := engine.AppendWait(context.Background(), logOf(p), batch)
				if err == nil {
					acked[p] = append(acked[p], r[0].Pos)
					n++
				} else {
					if shown := carillon.AsError(err); shown.Code != carillon.CodeUnavailable || shown.RetryAfter <= 0 {
						t.Errorf("append: %v", err)
					}
					select {
					case refused <- err:
					default:
					}
					select { // as it is told, but sooner
					case <-time.After(50 * time.Millisecond):
					case <-stop:
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	eventually(t, "appends", func() bool { return e.Stats().Appends > 500 })

	ballast := filepath.Join(filepath.Dir(dir), "ballast")
	for range 2 {
		fillDisk(t, ballast)
		for i := range 3 { // more than any page has left
			_, err := engine.AppendWait(t.Context(), logOf(i), []engine.Append{{Event: &carillon.Event{Type: "n", Data: make([]byte, 100_000)}}})
			if shown := carillon.AsError(err); shown.Code != carillon.CodeUnavailable || shown.RetryAfter <= 0 {
				t.Errorf("append to a full disk: %v", err)
			}
		}
		eventually(t, "unhealthy", func() bool { return e.Healthy(t.Context()) != nil })
		if len(readAll(t, logOf(0))) == 0 {
			t.Error("nothing is read while the disk is full")
		}
		<-refused
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		eventually(t, "healthy again", func() bool { return e.Healthy(t.Context()) == nil })
		for i := range 3 {
			appendAll(t, logOf(i), engine.Append{Event: numbered(-1)})
		}
	}
	end()

	have := make(map[carillon.Position]string)
	for i := range 3 {
		seen := make(map[string]bool)
		for _, entry := range readAll(t, logOf(i)) {
			data := string(entry.Data)
			have[entry.Pos] = data
			if data != "-1" && seen[data] {
				t.Errorf("%s is stored twice", data)
			}
			seen[data] = true
		}
	}
	for p, positions := range acked {
		last := uint64(0)
		for n, pos := range positions {
			if want := fmt.Sprint(p*1_000_000 + n); have[pos] != want || pos.Seq <= last {
				t.Errorf("publisher %d: event %d was acknowledged at %v after %d; there is %q", p, n, pos, last, have[pos])
			}
			last = pos.Seq
		}
	}
}
