package carillon_test

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
)

func TestTypesOfTheVectors(t *testing.T) {
	vectors.Run(t, "types.json", "parse", taken(carillon.ParseType))
	vectors.Run(t, "types.json", "reserved", func(_ *testing.T, in carillon.Type) (any, error) { return in.Reserved(), nil })
}

func TestPatternsOfTheVectors(t *testing.T) {
	vectors.Run(t, "patterns.json", "parse", func(_ *testing.T, in vectors.Text) (any, error) { return carillon.ParsePattern(string(in)) })
}

func TestNamesOfTheVectors(t *testing.T) {
	vectors.Run(t, "names.json", "org", taken(carillon.ParseOrgID))
	vectors.Run(t, "names.json", "source", taken(carillon.ParseSource))
	vectors.Run(t, "names.json", "room", taken(carillon.ParseRoom))
	vectors.Run(t, "names.json", "user", taken(carillon.ParseUser))
	vectors.Run(t, "names.json", "subject", taken(carillon.ParseSubject))
}

// taken reports whether parse takes a text as it is.
func taken[T ~string](parse func(string) (T, error)) func(*testing.T, vectors.Text) (any, error) {
	return func(_ *testing.T, in vectors.Text) (any, error) {
		got, err := parse(string(in))
		return string(got) == string(in), err
	}
}
