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
	dst = append(dst, titles[status]...)
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

// titles are the reason phrases of the statuses of carillon's codes (RFC 9110,
// RFC 6585): with the type about:blank the title is that phrase.
var titles = map[int]string{
	400: "Bad Request",
	401: "Unauthorized",
	403: "Forbidden",
	404: "Not Found",
	405: "Method Not Allowed",
	409: "Conflict",
	410: "Gone",
	413: "Content Too Large",
	415: "Unsupported Media Type",
	429: "Too Many Requests",
	500: "Internal Server Error",
	503: "Service Unavailable",
}
