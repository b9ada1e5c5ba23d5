package carillon_test

import (
	"testing"

	"github.com/carillon-rt/carillon"
)

func TestAnAudienceIsOneOfThree(t *testing.T) {
	for name, row := range map[string]struct {
		to            carillon.Audience
		whole, direct bool
	}{
		"the organization": {carillon.Audience{}, true, false},
		"a room":           {carillon.Audience{Room: "ops"}, false, false},
		"users":            {carillon.Audience{Users: []string{"alice"}}, false, true},
	} {
		if row.to.Whole() != row.whole || row.to.Direct() != row.direct {
			t.Errorf("%s: Whole %v, Direct %v", name, row.to.Whole(), row.to.Direct())
		}
	}
}

// Size is what memory budgets count, so nothing of variable size may be left out.
func TestSizeCountsEveryText(t *testing.T) {
	empty := (&carillon.Entry{}).Size()
	const n = 1000
	text := string(make([]byte, n))
	for name, e := range map[string]carillon.Event{
		"type": {Type: carillon.Type(text)}, "subject": {Subject: text}, "data": {Data: []byte(text)}, "room": {To: carillon.Audience{Room: text}},
		"user": {To: carillon.Audience{Users: []string{text}}}, "from": {From: text}, "source": {Source: text}, "delivery": {Delivery: text}, "ce": {CE: []byte(text)},
	} {
		if got := (&carillon.Entry{Event: e}).Size(); got < empty+n {
			t.Errorf("%d bytes of %s: size %d, %d without", n, name, got, empty)
		}
	}
}
