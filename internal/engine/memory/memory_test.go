package memory_test

import (
	"testing"

	"github.com/carillon-rt/carillon/internal/engine"
	"github.com/carillon-rt/carillon/internal/engine/enginetest"
	"github.com/carillon-rt/carillon/internal/engine/memory"
)

func TestContract(t *testing.T) {
	enginetest.Run(t, func(*testing.T) engine.Engine { return memory.New(memory.Config{}) })
}

func TestContractUnderFaults(t *testing.T) {
	enginetest.RunFaults(t, func(*testing.T) (engine.Engine, enginetest.Faults) {
		e := memory.New(memory.Config{})
		return e, e
	})
}
