package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol, versions 1 and 2, as haproxy's proxy-protocol.txt has it.
const (
	signature = "\r\n\r\n\x00\r\nQUIT\n" // of version 2
	maxText   = 107                      // bytes of a version 1 header, at most

	commandLocal = 0x20 // version and command: the proxy's own connection
	commandProxy = 0x21

	familyNone  = 0x00 // family and transport
	familyTCP4  = 0x11
	familyTCP6  = 0x21
	familyUnix  = 0x31
	bytesOfTCP4 = 4 + 4 + 2 + 2
	bytesOfTCP6 = 16 + 16 + 2 + 2
)

// What a header may be beside malformed.
var (
	errNoProxy = errors.New("listen: the connection does not begin with a PROXY header")
	errLarge   = errors.New("listen: the PROXY header is too large")
)

// readProxy reads one header and not a byte more. The client is not valid where
// the proxy does not name one: then the connection is the proxy's own.
func readProxy(r io.Reader, limit int) (client netip.AddrPort, err error) {
	var start [len(signature)]byte // both versions have so many bytes, and more
	if _, err := io.ReadFull(r, start[:]); err != nil {
		return client, err
	}
	switch {
	case string(start[:]) == signature:
		return readBinary(r, limit)
	case strings.HasPrefix(string(start[:]), "PROXY "):
		return readText(r, start[:])
	}
	return client, errNoProxy
}

// readBinary reads on after the signature of version 2.
func readBinary(r io.Reader, limit int) (client netip.AddrPort, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return client, err
	}
	command, family, n := head[0], head[1], int(binary.BigEndian.Uint16(head[2:]))
	if total := len(signature) + len(head) + n; total > limit {
		return client, fmt.Errorf("%w: %d bytes, more than %d", errLarge, total, limit)
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(r, rest); err != nil {
		return client, err
	}
	switch command {
	case commandLocal:
		return client, nil
	case commandProxy:
	default:
		return client, fmt.Errorf("listen: a PROXY header with version and command %#02x", command)
	}
	var size int
	switch family {
	case familyNone, familyUnix:
		return client, nil
	case familyTCP4:
		size = bytesOfTCP4
	case familyTCP6:
		size = bytesOfTCP6
	default:
		return client, fmt.Errorf("listen: a PROXY header of family and transport %#02x, which is not TCP", family)
	}
	if n < size {
		return client, fmt.Errorf("listen: a PROXY header with %d bytes of addresses instead of %d", n, size)
	}
	width := (size - 4) / 2
	addr, _ := netip.AddrFromSlice(rest[:width]) // 4 or 16
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(rest[2*width:])), nil
}

// readText reads on after the first bytes of version 1, to the end of the line.
func readText(r io.Reader, start []byte) (client netip.AddrPort, err error) {
	line := append(make([]byte, 0, maxText), start...)
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == maxText {
			return client, fmt.Errorf("%w: a line of more than %d bytes", errLarge, maxText)
		}
		n := len(line)
		if _, err := io.ReadFull(r, line[n:n+1]); err != nil {
			return client, err
		}
		line = line[:n+1]
	}
	fields := strings.Split(string(line[:len(line)-2]), " ")
	switch {
	case fields[1] == "UNKNOWN":
		return client, nil
	case len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6":
		return client, errors.New("listen: a PROXY line is PROXY TCP4|TCP6 <from> <to> <port> <port>, or PROXY UNKNOWN")
	}
	from, err := textAddr(fields[2], fields[4], fields[1])
	if err != nil {
		return client, err
	}
	if _, err := textAddr(fields[3], fields[5], fields[1]); err != nil {
		return client, err
	}
	return from, nil
}

func textAddr(host, port, family string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" || addr.Is4() != (family == "TCP4") {
		return netip.AddrPort{}, fmt.Errorf("listen: a PROXY line with an address that is not one of %s", family)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, errors.New("listen: a PROXY line with a port that is not from 0 to 65535")
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}
