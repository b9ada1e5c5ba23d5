//go:build !linux

package action

import "os/exec"

// ended returns when a command has ended. Its process is gone by then: the number
// of its group could in theory belong to somebody else.
func ended(cmd *exec.Cmd) { _ = cmd.Wait() } // ProcessState says how it ended
