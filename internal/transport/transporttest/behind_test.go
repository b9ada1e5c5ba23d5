package transporttest_test

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/session"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
)

// A poll without a wait has the event that was stored a moment ago, and is
// answered at once, however it meets the tail of the log.
func TestAPollRightBehindAPublishIsAnswered(t *testing.T) {
	t.Parallel()
	n := transporttest.New(t, transporttest.Config{})
	p := &carillon.Principal{Org: "acme", User: "alice", Role: carillon.RoleAdmin}
	answers := make(chan session.PollAnswer, 1)
	late := time.After(30 * time.Second)
	cursor := carillon.Cursor{Kind: carillon.CursorEarliest}
	for i := range 5000 {
		n.Gate.Submit(p, []carillon.Draft{{Type: "orders.paid", Data: []byte("1")}}, func(receipts []carillon.Receipt, err error) {
			if err != nil {
				answers <- session.PollAnswer{Err: err}
				return
			}
			opt := session.PollOptions{Principal: p, Patterns: []carillon.Pattern{"orders.>"}, Cursor: cursor, Limit: 10}
			cursor = carillon.At(receipts[0].Pos)
			n.Core.Poll(opt, func(a session.PollAnswer) { answers <- a })
		})
		select {
		case a := <-answers:
			if a.Err != nil || len(a.Events) != 1 {
				t.Fatalf("poll %d: %+v", i, a)
			}
		case <-late:
			t.Fatalf("poll %d is not answered", i)
		}
	}
}
