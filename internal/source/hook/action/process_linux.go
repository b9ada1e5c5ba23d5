package action

import (
	"errors"
	"os/exec"

	"golang.org/x/sys/unix"
)

// ended returns when a command has ended. Its process is still there, so that the
// number of its group belongs to nobody else.
func ended(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
