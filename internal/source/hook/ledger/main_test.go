package ledger_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain draws fewer histories than rapid does by itself: under the race detector
// SQLite takes half a second for each. More come with -rapid.checks.
func TestMain(m *testing.M) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("30"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
