package jetstream_test

import (
	"strings"
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/enginetest"
	"github.com/carillon-rt/carillon/internal/engine/jetstream"
)

func open(t testing.TB, c jetstream.Config) *jetstream.Engine {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	e, err := jetstream.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// fewPieces has a delivery in several pieces where the embedded engine has passed one
// of 25 MiB: the race detector looks at every byte, each time that it is moved.
const fewPieces = 5

func TestContract(t *testing.T) {
	t.Parallel() // it waits for the disk
	enginetest.Run(t, func(t *testing.T) engine.Engine {
		c := jetstream.Config{Durability: jetstream.Strict}
		if strings.HasSuffix(t.Name(), "OrganizationsNeverSeeEachOther") {
			c.Durability = jetstream.Relaxed // thousands of appends, one after the other
		}
		return open(t, c)
	})
}

func TestContractOfTheIntake(t *testing.T) {
	t.Parallel() // it waits for the disk
	enginetest.RunIntake(t, enginetest.WholeDelivery, func(t *testing.T) engine.Engine {
		c := jetstream.Config{Durability: jetstream.Strict}
		if strings.HasSuffix(t.Name(), "OrganizationsNeverSeeEachOther") {
			c.Durability = jetstream.Relaxed // as above
		}
		return open(t, c)
	})
}

func TestContractOfRestarts(t *testing.T) {
	enginetest.RunRestart(t, func(t *testing.T) (engine.Engine, func() engine.Engine) {
		c := jetstream.Config{Dir: t.TempDir(), Partitions: 2}
		return open(t, c), func() engine.Engine { return open(t, c) }
	})
}

func TestContractRelaxed(t *testing.T) {
	if testing.Short() {
		t.Skip("the strict engine has run the same")
	}
	t.Parallel() // beside those that mostly wait
	// The intake's runs on an external server, which is relaxed too.
	enginetest.Run(t, func(t *testing.T) engine.Engine { return open(t, jetstream.Config{Durability: jetstream.Relaxed}) })
}

// faults are the engine's, with a test that fails when breaking fails.
type faults struct {
	t *testing.T
	jetstream.Faults
}

func (f faults) must(err error) {
	if err != nil {
		f.t.Error(err)
	}
}

func (f faults) Truncate(partition int, last uint64) {
	f.must(f.TruncateStream(f.t.Context(), partition, last))
}

func (f faults) Recreate(partition int) { f.must(f.RecreateStream(f.t.Context(), partition)) }

func (f faults) ExpireBefore(partition int, seq uint64) {
	f.must(f.Faults.ExpireBefore(f.t.Context(), partition, seq))
}

func TestContractUnderFaults(t *testing.T) {
	enginetest.RunFaults(t, func(t *testing.T) (engine.Engine, enginetest.Faults) {
		e := open(t, jetstream.Config{})
		return e, faults{t, e.Faults()}
	})
}

func TestContractOfBudgets(t *testing.T) {
	enginetest.RunBudget(t, func(t *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine {
		return open(t, jetstream.Config{OrgBudget: budget})
	})
	enginetest.RunIntakeBudget(t, func(t *testing.T, budget func(carillon.OrgID) engine.Budget) engine.Engine {
		return open(t, jetstream.Config{IntakeBudget: budget})
	})
}
