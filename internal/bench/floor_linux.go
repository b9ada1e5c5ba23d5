package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// FloorServer is the bare write(2) loop that a server is compared with. It
// accepts conns readers, each of which says its number (4 bytes, big endian) and
// is told that it is accepted, then takes orders on one control connection: a reader's number or 2^32-1 for
// all, a length, and bytes that it writes to each in a loop. No upgrade, no auth,
// no subscriptions, no queue. It ends when the control connection does or ctx is
// done. Its addresses stand in envFile once it listens.
func FloorServer(ctx context.Context, conns int, envFile string) error {
	if err := needFiles(conns + 64); err != nil {
		return err
	}
	var lc net.ListenConfig
	data, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bench: floor: %w", err)
	}
	defer data.Close()
	ctl, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bench: floor: %w", err)
	}
	defer ctl.Close()
	stop := context.AfterFunc(ctx, func() { data.Close(); ctl.Close() })
	defer stop()
	text := fmt.Sprintf("FLOOR_DATA=%s\nFLOOR_CTL=%s\n", data.Addr(), ctl.Addr())
	if err := os.WriteFile(envFile, []byte(text), 0o600); err != nil {
		return fmt.Errorf("bench: floor: %w", err)
	}
	// The control connection is dialed first, so that it can also end the waiting
	// for readers.
	c, err := ctl.Accept()
	if err != nil {
		return fmt.Errorf("bench: floor: %w", err)
	}
	defer c.Close()
	stopCtl := context.AfterFunc(ctx, func() { c.Close() })
	defer stopCtl()

	accepted := appendServerFrame(nil, opText, []byte(`{"type":"subscribed"}`))
	fds := make([]int32, conns)
	for range conns {
		id, fd, err := acceptBare(data)
		if err != nil {
			return err
		}
		if id >= conns {
			return fmt.Errorf("bench: floor: reader %d of %d", id, conns)
		}
		fds[id] = int32(fd)
		writeAll(fd, accepted)
	}
	return broadcast(c, fds)
}

// acceptBare takes one reader as a bare file descriptor that outlives its
// net.Conn.
func acceptBare(l net.Listener) (id, fd int, err error) {
	c, err := l.Accept()
	if err != nil {
		return 0, 0, fmt.Errorf("bench: floor: %w", err)
	}
	defer c.Close()
	var n [4]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return 0, 0, fmt.Errorf("bench: floor: %w", err)
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, 0, fmt.Errorf("bench: floor: %w", err)
	}
	var dupErr error
	err = raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, dupErr); err != nil {
		return 0, 0, fmt.Errorf("bench: floor: %w", err)
	}
	return int(binary.BigEndian.Uint32(n[:])), fd, nil
}

// maxOrder is the largest order that the floor server takes: some frames.
const maxOrder = 256 << 20

func broadcast(ctl io.Reader, fds []int32) error {
	r := bufio.NewReaderSize(ctl, 64<<10)
	var head [8]byte
	var msg []byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil //nolint:nilerr // the client is done
		}
		to, size := binary.BigEndian.Uint32(head[:]), int(binary.BigEndian.Uint32(head[4:]))
		if size > maxOrder {
			return fmt.Errorf("bench: floor: an order of %d bytes", size)
		}
		if cap(msg) < size {
			msg = make([]byte, size)
		}
		msg = msg[:size]
		if _, err := io.ReadFull(r, msg); err != nil {
			return nil //nolint:nilerr // as above
		}
		if to != toAll {
			if int(to) < len(fds) {
				writeAll(int(fds[to]), msg)
			}
			continue
		}
		for _, fd := range fds {
			writeAll(int(fd), msg)
		}
	}
}

// writeAll waits for a socket that is full: the floor has no queue. What a reader
// that left does not get is the client's to notice.
func writeAll(fd int, b []byte) {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000)
		case unix.EINTR:
		default:
			return
		}
	}
}

// floor is a running floor server.
type floor struct {
	child *child
	data  netip.AddrPort
	ctl   netip.AddrPort
}

func startFloor(ctx context.Context, cfg *Config, dir string, conns int) (*floor, error) {
	env := filepath.Join(dir, "floor.env")
	_ = os.Remove(env) // of a run before
	argv := append([]string(nil), cfg.Program...)
	argv = append(argv, "bench", "floor-server", "--conns", strconv.Itoa(conns), "--env-file", env)
	c, err := startChild("the floor server", filepath.Join(dir, "floor.log"), cfg.ServerCPUs, cfg.Procs, argv)
	if err != nil {
		return nil, err
	}
	f := &floor{child: c}
	vars, err := c.waitFor(ctx, env, "FLOOR_DATA", "FLOOR_CTL")
	if err == nil {
		f.data, err = resolve(ctx, vars["FLOOR_DATA"])
	}
	if err == nil {
		f.ctl, err = resolve(ctx, vars["FLOOR_CTL"])
	}
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return f, nil
}
