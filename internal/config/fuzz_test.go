package config_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/carillon-rt/carillon/internal/config"
)

// FuzzLoad: no file makes Parse panic, and what it accepts is valid and, where
// it holds no secret, is the same again when printed and read.
func FuzzLoad(f *testing.F) {
	f.Add(config.Example(), "")
	f.Add([]byte("listen: :1\norgs: [{id: a}]\n"), "CARILLON_LIMITS_MAILBOX=64")
	f.Add([]byte("a: &a [*a]\n<<: *a\n? {x: y}\n: z\n"), "CARILLON_ORIGINS=,")
	f.Add([]byte("orgs: &o\n- &p {id: x, limits: {publish_bytes_per_second: 1KB}}\n"), "=")
	f.Fuzz(func(t *testing.T, file []byte, env string) {
		if bytes.Contains(file, []byte("secret_file")) {
			t.Skip("reads the machine's files")
		}
		c, err := config.Parse("f.yaml", file, []string{env})
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted, but not valid: %v", err)
		}
		var out bytes.Buffer
		if err := c.Print(&out); err != nil {
			t.Fatal(err)
		}
		if len(c.Issuers) > 0 {
			return
		}
		again, err := config.Parse("printed.yaml", out.Bytes(), nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out.String())
		}
		if d := cmp.Diff(c, again, opts); d != "" {
			t.Fatalf("%s in\n%s", d, out.String())
		}
	})
}
