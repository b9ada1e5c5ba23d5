package carillon

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Code says what kind of error it is. Codes are stable.
type Code string

// The codes that the server uses.
const (
	CodeBadRequest       Code = "bad_request"
	CodeUnauthenticated  Code = "unauthenticated"
	CodeForbidden        Code = "forbidden"
	CodeNotFound         Code = "not_found"
	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeConflict         Code = "conflict"
	CodeGone             Code = "gone"
	CodeTooLarge         Code = "too_large"
	CodeUnsupportedMedia Code = "unsupported_media_type"
	CodeRateLimited      Code = "rate_limited"
	CodeQuotaExceeded    Code = "quota_exceeded"
	CodeInternal         Code = "internal"
	CodeUnavailable      Code = "unavailable"
)

// The codes for what happens on this side.
const (
	CodeNetwork  Code = "network"  // no answer, or a connection that broke or went silent
	CodeProtocol Code = "protocol" // an answer that is not Carillon's; perhaps a proxy is in between
	CodeCanceled Code = "canceled" // the context ended first; Err is why
	CodeToken    Code = "token"    // TokenFunc returned an error; Err is it
)

// Error is what went wrong.
type Error struct {
	// Op is what was attempted: publish, history, poll or subscribe.
	Op string

	// Code says what kind of error it is.
	Code Code

	// Message says what was wrong and what would be right.
	Message string

	// Status is the HTTP status of the answer, or 0.
	Status int

	// CloseCode is the WebSocket close code that ended the connection, or 0.
	CloseCode int

	// Retryable reports whether the same call may succeed later.
	Retryable bool

	// RetryAfter is how long the server asked to wait, or 0.
	RetryAfter time.Duration

	// Err is the cause, or nil.
	Err error

	atOnce bool // come back without a back-off
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(string(e.Code))
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Gap says that events are missing between what was delivered before it and
// what comes next. It is an error only so that it cannot be overlooked: the
// subscription or page it belongs to goes on.
type Gap struct { //nolint:errname // the protocol's word; it is an error only where nobody asked for it
	Reason GapReason `json:"reason"`
	Cursor string    `json:"cursor"` // delivery goes on after this
}

// GapReason says why events are missing.
type GapReason string

// The reasons.
const (
	GapExpired GapReason = "expired" // older than the log keeps; what is kept comes next
	GapReset   GapReason = "reset"   // the cursor is not of this log; what happens from now on comes next
)

func (g *Gap) Error() string {
	switch g.Reason {
	case GapExpired:
		return "gap: expired: some events are older than the log keeps and were missed"
	case GapReset:
		return "gap: reset: the cursor is not of this log; state built from events should be loaded anew"
	}
	return "gap: " + string(g.Reason)
}

// ErrClosed is returned by a subscription after Close.
var ErrClosed = errors.New("the subscription is closed")

// statusCode is the code of an answer that names none.
func statusCode(status int) Code {
	switch status {
	case http.StatusUnauthorized:
		return CodeUnauthenticated
	case http.StatusForbidden:
		return CodeForbidden
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusMethodNotAllowed:
		return CodeMethodNotAllowed
	case http.StatusConflict:
		return CodeConflict
	case http.StatusGone:
		return CodeGone
	case http.StatusRequestEntityTooLarge:
		return CodeTooLarge
	case http.StatusUnsupportedMediaType:
		return CodeUnsupportedMedia
	case http.StatusTooManyRequests:
		return CodeRateLimited
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return CodeUnavailable
	}
	switch {
	case status >= 500:
		return CodeInternal
	case status >= 400:
		return CodeBadRequest
	}
	return CodeProtocol
}

// retryable reports whether an error of this code may pass. A quota does only
// where the server says when.
func (c Code) retryable(after time.Duration) bool {
	switch c { //nolint:exhaustive // the others will not pass
	case CodeRateLimited, CodeInternal, CodeUnavailable, CodeNetwork, CodeToken:
		return true
	case CodeQuotaExceeded:
		return after > 0
	}
	return false
}

func networkError(op string, err error, format string, args ...any) *Error {
	return &Error{Op: op, Code: CodeNetwork, Message: fmt.Sprintf(format, args...), Retryable: true, Err: err}
}

// canceled says that a context ended the call; last, if any, is what the call
// was waiting to try again.
func canceled(op string, cause error, last *Error) *Error {
	e := &Error{Op: op, Code: CodeCanceled, Err: cause}
	if last != nil {
		e.Message = "gave up after " + strings.TrimPrefix(last.Error(), op+": ")
		e.Status, e.Retryable, e.RetryAfter = last.Status, last.Retryable, last.RetryAfter
	}
	return e
}

// asError gives any error of this package's own making its type.
func asError(op string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return networkError(op, err, "")
}
