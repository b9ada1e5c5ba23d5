package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

// binaryHeader is a header of version 2.
func binaryHeader(command, family byte, rest string) string {
	b := append([]byte(signature), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(rest)))) + rest
}

const (
	v4 = "\xc0\x00\x02\x07" + "\x0a\x00\x00\x01" + "\xdc\x04" + "\x01\xbb" // 192.0.2.7:56324 → 10.0.0.1:443
	v6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\xdc\x04" + "\x01\xbb"
)

func TestAProxyHeaderTellsTheClient(t *testing.T) {
	mapped := strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x07"
	for _, tt := range []struct{ name, header, want string }{
		{"text, IPv4", "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", "192.0.2.7:56324"},
		{"text, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", "[2001:db8::7]:56324"},
		{"text, IPv4 as IPv6", "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 1 2\r\n", "192.0.2.7:1"},
		{"text, the largest port", "PROXY TCP4 192.0.2.7 10.0.0.1 65535 0\r\n", "192.0.2.7:65535"},
		{"text, unknown", "PROXY UNKNOWN\r\n", ""},
		{"text, unknown with more", "PROXY UNKNOWN ff:f ff:f 65535 65535\r\n", ""},
		{"text, as long as may be", "PROXY UNKNOWN " + strings.Repeat("x", maxText-16) + "\r\n", ""},
		{"binary, IPv4", binaryHeader(0x21, 0x11, v4), "192.0.2.7:56324"},
		{"binary, IPv6", binaryHeader(0x21, 0x21, v6), "[2001:db8::7]:56324"},
		{"binary, IPv4 as IPv6", binaryHeader(0x21, 0x21, mapped+v6[16:]), "192.0.2.7:56324"},
		{"binary, with extensions", binaryHeader(0x21, 0x11, v4+"\x04\x00\x03abc"), "192.0.2.7:56324"},
		{"binary, a Unix socket", binaryHeader(0x21, 0x31, strings.Repeat("x", 216)), ""},
		{"binary, no family", binaryHeader(0x21, 0x00, ""), ""},
		{"binary, the proxy's own", binaryHeader(0x20, 0x00, ""), ""},
		{"binary, the proxy's own, with addresses", binaryHeader(0x20, 0x11, v4), ""},
		{"binary, as long as may be", binaryHeader(0x21, 0x11, v4+strings.Repeat("x", 512-28)), "192.0.2.7:56324"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const behind = "GET / HTTP/1.1\r\n"
			in := strings.NewReader(tt.header + behind)
			client, err := readProxy(iotest.HalfReader(in), 512)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if client.IsValid() {
				got = client.String()
			}
			if got != tt.want {
				t.Errorf("the client is %q, want %q", got, tt.want)
			}
			if rest, _ := io.ReadAll(in); string(rest) != behind {
				t.Errorf("what is left is %q", rest)
			}
		})
	}
}

func TestWhatIsNoProxyHeaderIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, header, want string }{
		{"a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "does not begin with"},
		{"a handshake of TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00", "does not begin with"},
		{"lower case", "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "does not begin with"},
		{"another family", "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "TCP4|TCP6"},
		{"too few fields", "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "TCP4|TCP6"},
		{"too many", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "TCP4|TCP6"},
		{"two spaces", "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "TCP4|TCP6"},
		{"no address", "PROXY TCP4 localhost 1.2.3.4 1 2\r\n", "not one of TCP4"},
		{"an address with a zone", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "not one of TCP6"},
		{"an address of the other family", "PROXY TCP4 ::1 ::1 1 2\r\n", "not one of TCP4"},
		{"a bad second address", "PROXY TCP4 1.2.3.4 x 1 2\r\n", "not one of TCP4"},
		{"a port too large", "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "0 to 65535"},
		{"a port with zeros before", "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "0 to 65535"},
		{"a line that does not end", "PROXY TCP4 " + strings.Repeat("1", 200), "a line of more than 107"},
		{"a line that ends with LF", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n" + strings.Repeat("x", 107), "a line of more than 107"},
		{"another version", binaryHeader(0x11, 0x11, v4), "0x11"},
		{"another command", binaryHeader(0x22, 0x11, v4), "0x22"},
		{"UDP", binaryHeader(0x21, 0x12, v4), "not TCP"},
		{"half an address", binaryHeader(0x21, 0x11, v4[:11]), "11 bytes"},
		{"half an address of IPv6", binaryHeader(0x21, 0x21, v4), "12 bytes"},
		{"too large", binaryHeader(0x21, 0x11, v4+strings.Repeat("x", 512-27)), "more than 512"},
		{"half a header", binaryHeader(0x21, 0x11, v4)[:20], "unexpected EOF"},
		{"nothing", "", "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if client, err := readProxy(strings.NewReader(tt.header), 512); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want an error with %q", client, err, tt.want)
			}
		})
	}
}

// Whatever comes, it is read no further than the header goes, nor than it may.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\nGET"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(binaryHeader(0x21, 0x11, v4) + "GET"))
	f.Add([]byte(binaryHeader(0x20, 0x00, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 300
		in := bytes.NewReader(b)
		client, err := readProxy(in, limit)
		read := len(b) - in.Len()
		if read > limit {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			if client.IsValid() {
				t.Errorf("an error, and the client %v", client)
			}
			return
		}
		again, err := readProxy(bytes.NewReader(b[:read]), limit)
		if err != nil || again != client {
			t.Errorf("the header alone is %v, %v; with what follows it is %v", again, err, client)
		}
		if _, err := readProxy(bytes.NewReader(b[:read-1]), limit); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("without its last byte it is %v", err)
		}
		if client.IsValid() && (client.Addr().Is4In6() || client.Addr() == netip.Addr{}) {
			t.Errorf("the client is %v", client)
		}
	})
}
