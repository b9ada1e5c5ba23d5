package carillon_test

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain fails when a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	for wait := time.Millisecond; runtime.NumGoroutine() > 1; wait *= 2 {
		if wait > time.Second {
			buf := make([]byte, 1<<20)
			fmt.Fprintf(os.Stderr, "%d goroutines are left:\n%s\n", runtime.NumGoroutine()-1, buf[:runtime.Stack(buf, true)])
			os.Exit(1)
		}
		time.Sleep(wait) // they may be on their way out
	}
	os.Exit(code)
}
