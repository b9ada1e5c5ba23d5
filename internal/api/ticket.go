package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/internal/wire"
)

// ticket is POST /v1/tickets. What the body says does not matter.
func (a *api) ticket(w http.ResponseWriter, r *http.Request) error {
	c, err := a.Auth.FromRequest(r, 0)
	if err != nil {
		return err
	}
	ticket, life, err := a.Auth.Ticket(r.Context(), c)
	if err != nil {
		return err
	}
	if _, err := query(r.URL, params{}); err != nil {
		return err
	}
	out := wire.AppendString([]byte(`{"ticket":`), ticket)
	out = append(out, `,"expires_in":`...)
	out = strconv.AppendInt(out, int64((life+time.Second-1)/time.Second), 10)
	w.Header().Set("Content-Type", answer.JSON)
	answer.Write(w, http.StatusCreated, append(out, '}'), a.WriteTimeout)
	return nil
}
