package transporttest_test

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// BenchmarkIdleConnection tells what a connection costs that has subscribed and
// hears nothing: heap and stacks, of the client's side too, which is a bare
// socket.
func BenchmarkIdleConnection(b *testing.B) {
	const handshake = " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for name, request := range map[string]string{
		"WebSocket":             "GET /v1/ws?token=%s" + handshake,
		"WebSocket, compressed": "GET /v1/ws?token=%s" + strings.Replace(handshake, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1),
		"SSE":                   "GET /v1/sse?pattern=orders.>&token=%s HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			const connections = 2000
			n := transporttest.New(b, transporttest.Config{})
			request := fmt.Sprintf(request, n.Token(b, "acme", "alice"))
			before := inUse()
			for range connections {
				conn, err := net.Dial("tcp", n.Addr())
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, request); err != nil {
					b.Fatal(err)
				}
				var got strings.Builder
				for buf := make([]byte, 4096); !strings.Contains(got.String(), `"type":"welcome"`); {
					m, err := conn.Read(buf)
					if err != nil {
						b.Fatal(err)
					}
					got.Write(buf[:m])
				}
			}
			b.ReportMetric(float64(inUse()-before)/connections, "B/conn")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func inUse() int64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
