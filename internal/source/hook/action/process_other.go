//go:build !unix

package action

import (
	"os"
	"os/exec"
)

// ownGroup does nothing: whom a command starts is not ended with it here.
func ownGroup(*exec.Cmd) {}

// terminate ends a process, which cannot be asked.
func terminate(p *os.Process) { _ = p.Kill() } // it has ended already

// kill ends a process.
func kill(p *os.Process) { _ = p.Kill() } // as above

// signalOf is none.
func signalOf(*os.ProcessState) string { return "" }
