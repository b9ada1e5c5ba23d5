package hub

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// yielder lets everything else that is ready run before its goroutine goes on,
// what waits for a socket included. [runtime.Gosched] alone is not enough: the
// scheduler asks the network poller only when nothing is runnable, and a shard
// that yields is runnable, so that a busy shard would keep requests waiting until
// the poller's turn comes every 10 ms. This goroutine waits for the poller itself.
type yielder struct {
	file  *os.File // an eventfd that the poller watches; nil: there is none
	conn  syscall.RawConn
	ready func(fd uintptr) bool
	asked bool
	count [8]byte
}

func newYielder() *yielder {
	y := &yielder{}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return y
	}
	y.file = os.NewFile(uintptr(fd), "yield")
	if y.conn, err = y.file.SyscallConn(); err != nil {
		y.close()
		return y
	}
	y.ready = func(fd uintptr) bool {
		if !y.asked {
			y.asked = true
			y.count[0] = 1
			_, err := unix.Write(int(fd), y.count[:])
			return err != nil
		}
		_, _ = unix.Read(int(fd), y.count[:]) // it takes the count back, or there is none
		return true
	}
	return y
}

// yield returns when the poller has been asked and whoever was ready before has
// had its turn.
func (y *yielder) yield() {
	if y.file == nil {
		runtime.Gosched()
		return
	}
	y.asked = false
	if err := y.conn.Read(y.ready); err != nil {
		y.close()
	}
}

func (y *yielder) close() {
	if y.file != nil {
		_ = y.file.Close()
		y.file = nil
	}
}
