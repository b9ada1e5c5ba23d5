package main

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryFigureIsACommandLineOfAScenario(t *testing.T) {
	lines := figures()
	for i, line := range lines {
		if _, err := figure(append([]string{"bench"}, strings.Fields(line)...)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if slices.Contains(lines[:i], line) {
			t.Errorf("%s: is there twice", line)
		}
	}
	for _, not := range []string{"plot " + t.TempDir(), "all", "idle --connections many"} {
		if _, err := figure(append([]string{"bench"}, strings.Fields(not)...)); err == nil {
			t.Errorf("%s: was taken", not)
		}
	}
}

func TestNoSecretIsPartOfAResultsCommand(t *testing.T) {
	for _, args := range [][]string{
		{"bench", "idle", "--secret", "hush", "--orgs", "3"},
		{"bench", "idle", "--secret=hush", "--orgs", "3"},
		{"bench", "hooks", "--hook-secret", "hush", "--orgs", "3"},
		{"bench", "hooks", "--hook-secret=hush", "--orgs", "3"},
	} {
		if got := commandLine(args); strings.Contains(got, "hush") || !strings.HasSuffix(got, "--orgs 3") {
			t.Errorf("%q became %q", args, got)
		}
	}
}
