package transport

import (
	"context"
	"net/http"

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

// Admit waits until the gate lets a request through; on a loop it has waited
// already. It is to go on with the one returned; leave says that it has been judged,
// which Verify does too. The error is that of the gate: nothing else has been looked
// at.
func Admit(g *admission.Gate, w http.ResponseWriter, r *http.Request) (_ *http.Request, leave func(), err error) {
	if x := front.Of(w); x != nil {
		return r, func() {}, x.Refused()
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
