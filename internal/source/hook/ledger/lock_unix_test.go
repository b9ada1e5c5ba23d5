//go:build linux || darwin || freebsd

package ledger_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/carillon-rt/carillon/internal/source/hook/ledger"
)

func TestAFileIsOneProcesss(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hooks.db")
	first, err := ledger.Open(t.Context(), ledger.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(t.Context(), ledger.Config{Path: path}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("opened twice: %v; want ErrInUse", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := ledger.Open(t.Context(), ledger.Config{Path: path})
	if err != nil {
		t.Fatalf("after it was closed: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}
