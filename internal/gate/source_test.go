package gate_test

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/gate"
)

// sourceOf is an install in which one organization has one source.
func sourceOf(org carillon.OrgID, name string) func(carillon.OrgID, string) bool {
	return func(o carillon.OrgID, s string) bool { return o == org && s == name }
}

func TestASourcePublishesUnderItsOwnName(t *testing.T) {
	r := newRig(t, gate.Config{Source: sourceOf("acme", "gh")})
	submit := func(typ, id string) (carillon.Receipt, error) {
		t.Helper()
		type answer struct {
			receipts []carillon.Receipt
			err      error
		}
		done := make(chan answer, 1)
		r.SubmitFrom("acme", "gh", "guid-1", carillon.Draft{Type: typ, Data: []byte(`{}`), ID: id}, func(receipts []carillon.Receipt, err error) {
			done <- answer{receipts, err}
		})
		a := <-done
		if a.err != nil {
			return carillon.Receipt{}, a.err
		}
		return a.receipts[0], nil
	}
	if _, err := submit("gh.pull_request.opened", "7"); err != nil {
		t.Fatal(err)
	}
	if again, err := submit("gh.pull_request.opened", "7"); err != nil || !again.Duplicate {
		t.Errorf("the same id of the same source: %+v, %v; want a duplicate", again, err)
	}
	if _, err := submit("other.thing", "8"); carillon.AsError(err).Code != carillon.CodeForbidden {
		t.Errorf("a type that does not begin with its name: %v; want forbidden", err)
	}
	entries := r.log(t, "acme")
	if len(entries) != 1 {
		t.Fatalf("%d events in the log; want 1", len(entries))
	}
	if e := entries[0]; e.Source != "gh" || e.Delivery != "guid-1" || e.From != "" {
		t.Errorf("source %q, delivery %q, from %q", e.Source, e.Delivery, e.From)
	}
}

func TestTheIDsOfASourceAreNotThoseOfPublishers(t *testing.T) {
	r := newRig(t, gate.Config{})
	d := draft()
	d.ID = "7"
	if _, err := r.Publish(t.Context(), &carillon.Principal{Org: "acme", KeyID: "k"}, []carillon.Draft{d}); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool, 1)
	r.SubmitFrom("acme", "gh", "", carillon.Draft{Type: "gh.push", Data: []byte(`{}`), ID: "7"}, func(receipts []carillon.Receipt, err error) {
		done <- err == nil && !receipts[0].Duplicate
	})
	if !<-done {
		t.Error("an id of the organization's servers was taken for one of the source")
	}
}

func TestTheNameOfASourceIsReservedInItsOrganizationOnly(t *testing.T) {
	r := newRig(t, gate.Config{Source: sourceOf("other", "gh")})
	d := draft()
	d.Type = "gh.push"
	if _, err := r.Publish(t.Context(), &carillon.Principal{Org: "acme", KeyID: "k"}, []carillon.Draft{d}); err != nil {
		t.Errorf("another organization's source: %v", err)
	}
}
