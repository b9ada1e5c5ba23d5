package config

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written 25s, 1h30m or 7d.
type Duration time.Duration

const (
	second = Duration(time.Second)
	minute = Duration(time.Minute)
	day    = Duration(24 * time.Hour)
)

// D is the duration as the rest of the program wants it.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String writes the duration as ParseDuration reads it.
func (d Duration) String() string {
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if d%minute == 0 && d != 0 {
		s = strings.TrimSuffix(s, "0s")
		if d%(60*minute) == 0 {
			s = strings.TrimSuffix(s, "0m")
		}
	}
	return s
}

// MarshalYAML writes the duration as ParseDuration reads it.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// ParseDuration reads a duration that is not negative: what time.ParseDuration
// takes, or whole days as in 7d.
func ParseDuration(s string) (Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.ParseUint(n, 10, 32)
		if err != nil || Duration(days) > math.MaxInt64/day {
			return 0, fmt.Errorf("%q is not a duration; write it like 25s, 5m, 1h30m or 7d", clip(s))
		}
		return Duration(days) * day, nil
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && isNumber(s):
		return 0, fmt.Errorf("%s has no unit; write it like %ss, %sm or %sd", clip(s), clip(s), clip(s), clip(s))
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration; write it like 25s, 5m, 1h30m or 7d", clip(s))
	case d < 0:
		return 0, fmt.Errorf("%s is negative", clip(s))
	}
	return Duration(d), nil
}

// Size is a number of bytes that is written 200KB (1000), 64MiB (1024) or plain.
type Size int64

const (
	kb  Size = 1000
	mb  Size = 1000 * kb
	gb  Size = 1000 * mb
	tb  Size = 1000 * gb
	kib Size = 1024
	mib Size = 1024 * kib
	gib Size = 1024 * mib
	tib Size = 1024 * gib
)

// The units, those that ParseSize tries first before their own endings.
var units = []struct {
	name string
	size Size
}{
	{"TiB", tib},
	{"GiB", gib},
	{"MiB", mib},
	{"KiB", kib},
	{"TB", tb},
	{"GB", gb},
	{"MB", mb},
	{"KB", kb},
	{"B", 1},
}

// N is the size as the rest of the program wants it.
func (s Size) N() int { return int(s) }

// String writes the size as ParseSize reads it, exactly, in the unit that makes
// the smallest number.
func (s Size) String() string {
	if s == 0 {
		return "0"
	}
	best, name := s, "B"
	for _, u := range units {
		if s%u.size == 0 && s/u.size < best {
			best, name = s/u.size, u.name
		}
	}
	return strconv.FormatInt(int64(best), 10) + name
}

// MarshalYAML writes the size as ParseSize reads it.
func (s Size) MarshalYAML() (any, error) {
	if s == 0 {
		return 0, nil
	}
	return s.String(), nil
}

// ParseSize reads a whole number of bytes, alone or with a unit: B, KB, MB, GB,
// TB (1000) or KiB, MiB, GiB, TiB (1024), in any case.
func ParseSize(s string) (Size, error) {
	num, unit := s, Size(1)
	for _, u := range units {
		if n := len(s) - len(u.name); n > 0 && strings.EqualFold(s[n:], u.name) {
			num, unit = strings.TrimRight(s[:n], " "), u.size
			break
		}
	}
	n, err := strconv.ParseUint(strings.ReplaceAll(num, "_", ""), 10, 63)
	if err != nil || n > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf("%q is not a size; write it like 200KB, 64MiB or 1048576", clip(s))
	}
	return Size(n) * unit, nil
}

// Secret is text that is never printed.
type Secret string

const redacted = "(secret)"

// String hides the secret.
func (Secret) String() string { return redacted }

// GoString hides the secret.
func (Secret) GoString() string { return redacted }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML hides the secret.
func (Secret) MarshalYAML() (any, error) { return redacted, nil }

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// clip shortens what an error repeats.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
