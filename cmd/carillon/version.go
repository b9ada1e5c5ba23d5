package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// VersionCmd is `carillon version`.
type VersionCmd struct {
	JSON bool `help:"Print JSON." name:"json"`
}

// Run prints the version.
func (c *VersionCmd) Run(std *IO) error {
	b := build()
	if c.JSON {
		return std.printJSON(b)
	}
	_, err := fmt.Fprintf(std.Out, "carillon %s (%s, %s)\n", b.Version, b.Go, b.Platform)
	return err
}

// buildJSON says what was built.
type buildJSON struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // there were changes beyond the revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// build reads what Go's linker wrote into the program.
func build() buildJSON {
	b := buildJSON{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}
