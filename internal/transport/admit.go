package transport

import (
	"context"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon/internal/admission"
	"github.com/carillon-rt/carillon/internal/front"
)

// visit is a request that the gate has let through.
type visit struct{ leave func() } // nil: it has left

type visitKey struct{}

// end says that the work is done which the gate limits. It may be called again.
func (v *visit) end() {
	if v != nil && v.leave != nil {
		v.leave()
		v.leave = nil
	}
}

// Admit waits until the gate lets a request through. It is to go on with the one
// returned; leave says that it has been judged, which Verify does too. A loop does
// not wait: where it would have to, the error says so to Problem, as Caller's. Any
// other error is that of the gate: nothing else has been looked at.
func Admit(g *admission.Gate, w http.ResponseWriter, r *http.Request) (_ *http.Request, leave func(), err error) {
	if front.Of(w) != nil {
		if !g.Try(time.Now()) {
			return r, nil, errElsewhere
		}
		return r, func() {}, nil
	}
	v := &visit{}
	if v.leave, err = g.Enter(r.Context()); err != nil {
		return r, nil, err
	}
	if g != nil {
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
	}
	return r, v.end, nil
}
