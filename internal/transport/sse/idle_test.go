package sse

import (
	"testing"
	"unsafe"
)

func TestAnIdleStreamIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(looped{}); size > 80 {
		t.Errorf("a stream's connection is %d bytes, which take a piece of 96", size)
	}
}
