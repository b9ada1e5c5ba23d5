package carillon

import (
	"errors"
	"fmt"
	"time"
)

// Code says what kind of error it is; the same codes are in HTTP answers and
// in error frames.
type Code string

// The codes, each with its HTTP status.
const (
	CodeBadRequest       Code = "bad_request"            // 400
	CodeUnauthenticated  Code = "unauthenticated"        // 401
	CodeForbidden        Code = "forbidden"              // 403
	CodeNotFound         Code = "not_found"              // 404
	CodeMethodNotAllowed Code = "method_not_allowed"     // 405
	CodeConflict         Code = "conflict"               // 409
	CodeGone             Code = "gone"                   // 410
	CodeTooLarge         Code = "too_large"              // 413
	CodeUnsupportedMedia Code = "unsupported_media_type" // 415
	CodeRateLimited      Code = "rate_limited"           // 429
	CodeQuotaExceeded    Code = "quota_exceeded"         // 429
	CodeInternal         Code = "internal"               // 500
	CodeUnavailable      Code = "unavailable"            // 503
)

// Status is the HTTP status of the code.
func (c Code) Status() int {
	switch c {
	case CodeBadRequest:
		return 400
	case CodeUnauthenticated:
		return 401
	case CodeForbidden:
		return 403
	case CodeNotFound:
		return 404
	case CodeMethodNotAllowed:
		return 405
	case CodeConflict:
		return 409
	case CodeGone:
		return 410
	case CodeTooLarge:
		return 413
	case CodeUnsupportedMedia:
		return 415
	case CodeRateLimited, CodeQuotaExceeded:
		return 429
	case CodeUnavailable:
		return 503
	case CodeInternal:
	}
	return 500
}

// Error is an error that may be shown to a client: Message says what was wrong
// and what would be right, and holds no secret and nothing of another org. Err,
// if any, is for the log only.
type Error struct {
	Code       Code
	Message    string
	RetryAfter time.Duration // > 0 where waiting helps
	Limit      string        // the limit that was met, by its key under limits: in the config; not shown
	Err        error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Err)
	}
	return string(e.Code) + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an error with a code and a message for the client.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Over says which limit was met, by its key under limits: in the config, and
// returns e.
func (e *Error) Over(limit string) *Error {
	e.Limit = limit
	return e
}

// BadRequest makes the most common error.
func BadRequest(format string, args ...any) *Error { return Errorf(CodeBadRequest, format, args...) }

// Unavailable says that waiting helps; err is for the log.
func Unavailable(retryAfter time.Duration, err error, format string, args ...any) *Error {
	return &Error{Code: CodeUnavailable, Message: fmt.Sprintf(format, args...), RetryAfter: retryAfter, Err: err}
}

// AsError turns any error into one that may be shown: an *Error in its chain,
// or else an internal error that says nothing of the cause.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Message: "something went wrong on our side", Err: err}
}
