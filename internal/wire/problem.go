package wire

import (
	"strconv"
	"time"

	"github.com/carillon-rt/carillon"
)

// ProblemContentType is the media type of an error in an HTTP answer (RFC 9457).
const ProblemContentType = "application/problem+json"

// AppendProblem appends the body of an HTTP answer to an error. It holds what e
// may show, not its cause. The status is e.Code.Status().
func AppendProblem(dst []byte, e *carillon.Error) []byte {
	status := e.Code.Status()
	dst = append(dst, `{"type":"about:blank","title":"`...)
	dst = append(dst, title(status)...)
	dst = append(dst, `","status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"code":"`...)
	dst = append(dst, e.Code...)
	dst = append(dst, `","detail":`...)
	dst = AppendString(dst, e.Message)
	return append(dst, '}')
}

// RetryAfter is the value of the Retry-After header of an answer to e, whole
// seconds rounded up, or "" where waiting does not help.
func RetryAfter(e *carillon.Error) string {
	if e.RetryAfter <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10)
}

// title is the reason phrase of the status of a code (RFC 9110, RFC 6585): with
// the type about:blank the title is that phrase.
func title(status int) string {
	switch status {
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 409:
		return "Conflict"
	case 410:
		return "Gone"
	case 413:
		return "Content Too Large"
	case 415:
		return "Unsupported Media Type"
	case 429:
		return "Too Many Requests"
	case 503:
		return "Service Unavailable"
	}
	return "Internal Server Error"
}
