package hub

import "testing"

// What the ring counts is what the runtime takes: the classes are those of this Go.
func TestWhatIsCountedIsWhatTheRuntimeAllocates(t *testing.T) {
	for n := 0; n <= 100_000; n = n + 1 + n/50 {
		if got, want := allocated(n), cap(append([]byte(nil), make([]byte, n)...)); got != want {
			t.Fatalf("%d bytes take %d, and %d are counted", n, want, got)
		}
	}
}
