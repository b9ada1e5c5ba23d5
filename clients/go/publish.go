package carillon

import (
	"context"
	"fmt"
	"net/http"
)

// MaxDrafts is how many drafts one Publish may take.
const MaxDrafts = 1000

// Publish stores events in the durable log, in order, all of them or none. It
// returns one receipt for each draft.
//
// Every draft without an ID is sent with a random one, and a failure that may
// pass is tried again with the same IDs (see Options.Retries), so that each
// event is stored once even when an answer was lost. When the context ends or
// the tries are used up the events may have been stored or not; publishing the
// same IDs again settles it.
//
// Ephemeral drafts have no ID, and so may be handed on twice. They are published
// apart from others.
//
// It makes no request for no drafts.
func (c *Client) Publish(ctx context.Context, drafts ...Draft) ([]Receipt, error) {
	const op = "publish"
	if len(drafts) == 0 {
		return nil, nil
	}
	if len(drafts) > MaxDrafts {
		return nil, &Error{Op: op, Code: CodeTooLarge, Message: fmt.Sprintf("%d drafts at once; at most %d are taken", len(drafts), MaxDrafts)}
	}
	// Each draft is written by itself, so that an error can name it.
	body := []byte{'['}
	for i := range drafts {
		w := drafts[i].wire()
		if w.ID == "" && !w.Ephemeral {
			w.ID = NewID()
		}
		b, err := encode(w)
		if err != nil {
			return nil, &Error{Op: op, Code: CodeBadRequest, Message: fmt.Sprintf("draft %d (%s) is not JSON", i, w.Type), Err: err}
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, b...)
	}
	body = append(body, ']')

	var answer struct {
		Events []Receipt `json:"events"`
	}
	r := &request{op: op, method: http.MethodPost, path: "/v1/events", body: body, timeout: requestTimeout}
	if err := c.do(ctx, r, &answer); err != nil {
		return nil, err
	}
	if len(answer.Events) != len(drafts) {
		return nil, &Error{Op: op, Code: CodeProtocol, Message: fmt.Sprintf("%d receipts for %d drafts", len(answer.Events), len(drafts))}
	}
	return answer.Events, nil
}
