package transporttest_test

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/transport/transporttest"
	"github.com/carillon-rt/carillon/internal/wire"
)

// A cursor that is not of this log opens nothing: the client is told, and gets
// what comes from now on.
func TestACursorOfElsewhereIsAReset(t *testing.T) {
	all(t, func(t *testing.T, door transporttest.Door) {
		n := transporttest.New(t, transporttest.Config{})
		last := n.Publish(t, "acme", "orders.paid", 1, 5)[4]
		foreign := n.Publish(t, "umbrella", "orders.paid", 1, 5)[2]
		here := n.IDs.Org("acme")
		at, ok := here.Decode(last)
		if !ok {
			t.Fatal("the node does not know its own id")
		}
		future, bent, beside := at, at, at
		future.Seq += 1000
		bent.Check++
		beside.Partition = 4095
		for name, cursor := range map[string]string{
			"of another organization":             foreign,
			"of another install":                  wire.NewKeyring([]byte("another install's key of 32 bytes")).Org("acme").String(at),
			"of the future":                       here.String(future),
			"of an event that was never there":    here.String(bent),
			"of a partition that there is not":    here.String(beside),
			"that somebody made up":               "00000000000000000000000000",
			"of the future, as far as numbers go": here.String(carillon.Position{Partition: at.Partition, Seq: 1<<64 - 1, Check: at.Check}),
		} {
			c := open(t, n, door, ask{Token: n.Token(t, "acme", "alice"), Patterns: []string{">"}, After: cursor})
			if m := next(t, c, "gap"); m.Type != "gap" || m.Reason != "reset" {
				t.Errorf("%s: got %+v, want a gap, reset", name, m)
				continue
			}
			want(t, c, n.Publish(t, "acme", "orders.paid", 6, 6)[0])
			c.Close()
		}
	})
}
