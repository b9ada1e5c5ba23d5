package carillon

import (
	"strconv"
	"time"
)

// CursorKind says what a Cursor is.
type CursorKind uint8

// The kinds of cursor.
const (
	CursorNone     CursorKind = iota // none was given
	CursorNow                        // what comes from now on
	CursorEarliest                   // everything kept
	CursorAgo                        // what was accepted at most Ago before now
	CursorAt                         // after Pos
	CursorForeign                    // shaped like a position, but not of this log
)

// Cursor is where a reader wants to start; always exclusive. A position in text
// is opaque: package wire reads and writes it.
type Cursor struct {
	Kind CursorKind
	Ago  time.Duration
	Pos  Position
}

// At is the cursor after pos.
func At(pos Position) Cursor { return Cursor{Kind: CursorAt, Pos: pos} }

// MaxAgo bounds a relative cursor.
const MaxAgo = 10 * 366 * 24 * time.Hour

// ParseNamedCursor reads the cursors that have a readable form: now, earliest,
// -10m (s, m, h, d). ok is false for any other text.
func ParseNamedCursor(s string) (c Cursor, ok bool) {
	switch s {
	case "":
		return Cursor{}, true
	case "now":
		return Cursor{Kind: CursorNow}, true
	case "earliest":
		return Cursor{Kind: CursorEarliest}, true
	}
	if len(s) < 3 || s[0] != '-' {
		return Cursor{}, false
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	unit, ok := units[s[len(s)-1]]
	if !ok {
		return Cursor{}, false
	}
	n, err := strconv.ParseUint(s[1:len(s)-1], 10, 32)
	if err != nil || time.Duration(n) > MaxAgo/unit {
		return Cursor{}, false
	}
	return Cursor{Kind: CursorAgo, Ago: time.Duration(n) * unit}, true
}

// Gap says that entries between a reader's position and Cursor are missing.
type Gap struct {
	Reason GapReason
	Pos    Position // delivery goes on after this
}

// GapReason says why.
type GapReason string

// The reasons.
const (
	GapExpired GapReason = "expired" // the log no longer has them
	GapReset   GapReason = "reset"   // the position was not of this log
)
