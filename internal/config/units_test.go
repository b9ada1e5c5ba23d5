package config_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon/internal/config"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "25s": 25 * time.Second, "1h30m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "500ms": 500 * time.Millisecond,
	} {
		if got, err := config.ParseDuration(text); err != nil || got.D() != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1.5d", "1d12h", "5", "s", "1w", "106752d", "١s"} {
		if got, err := config.ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]config.Size{
		"0": 0, "1": 1, "5B": 5, "200KB": 200_000, "200 kb": 200_000, "64MiB": 64 << 20, "10GiB": 10 << 30, "1TB": 1e12, "1TiB": 1 << 40, "10_000": 10_000,
	} {
		if got, err := config.ParseSize(text); err != nil || got != want {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "B", "KB", "-1", "1.5MB", "1K", "1Mb!", "0x10", "9223372036854775808", "8388608TiB"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestUnitsReadWhatTheyWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := config.Size(rapid.Int64Min(0).Draw(t, "size"))
		if got, err := config.ParseSize(s.String()); err != nil || got != s {
			t.Errorf("size %d is written %s and read %d, %v", s, s, got, err)
		}
		d := config.Duration(rapid.Int64Min(0).Draw(t, "duration"))
		d -= d % config.Duration(rapid.SampledFrom([]time.Duration{1, time.Second, time.Minute, time.Hour, 24 * time.Hour}).Draw(t, "unit"))
		if got, err := config.ParseDuration(d.String()); err != nil || got != d {
			t.Errorf("duration %d is written %s and read %d, %v", d, d, got, err)
		}
	})
}
