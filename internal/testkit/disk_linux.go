package testkit

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// diskEnv has the directory of the small disk in a child process.
const diskEnv = "CARILLON_TEST_DISK"

// SmallDisk gives a test a file system of its own, of a size like "64m". Only a
// process with its own mounts can have one, so the test runs again in a child;
// in the parent SmallDisk returns "" when that is over, and the test ends.
func SmallDisk(t *testing.T, size string) (dir string) {
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
	own := func(id int) []syscall.SysProcIDMap { return []syscall.SysProcIDMap{{HostID: id, Size: 1}} }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: own(os.Getuid()), GidMappings: own(os.Getgid()),
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("here no process may have its own mounts: %v", err)
	case err != nil:
		t.Errorf("on a small disk: %v\n%s", err, out)
	default:
		t.Logf("%s", out)
	}
	return ""
}

// FillDisk takes all that is left of a file system.
func FillDisk(t *testing.T, path string) {
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
