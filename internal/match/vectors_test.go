package match_test

import (
	"testing"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/match"
	"github.com/carillon-rt/carillon/internal/testkit/vectors"
)

type matchVector struct {
	Pattern string
	Types   []string
}

type containVector struct {
	Granted  string
	Patterns []string
}

type grantVector struct {
	Role        carillon.Role
	Permissions *struct{ Subscribe, Publish []string }
	Subscribe   []string
	Publish     []string
}

func TestPatternsOfTheVectors(t *testing.T) {
	vectors.Run(t, "patterns.json", "match", func(t *testing.T, in matchVector) (any, error) {
		return those(in.Types, func(s string) bool { return match.Match(pattern(t, in.Pattern), typ(t, s)) }), nil
	})
	vectors.Run(t, "patterns.json", "contain", func(t *testing.T, in containVector) (any, error) {
		return those(in.Patterns, func(s string) bool { return match.Contains(pattern(t, in.Granted), pattern(t, s)) }), nil
	})
}

func TestGrantsOfTheVectors(t *testing.T) {
	vectors.Run(t, "credentials.json", "grant", func(t *testing.T, in grantVector) (any, error) {
		who := &carillon.Principal{User: "alice", Role: in.Role}
		if in.Permissions != nil {
			who.Permissions = new(carillon.Permissions)
			for _, s := range in.Permissions.Subscribe {
				who.Permissions.Subscribe = append(who.Permissions.Subscribe, pattern(t, s))
			}
			for _, s := range in.Permissions.Publish {
				who.Permissions.Publish = append(who.Permissions.Publish, pattern(t, s))
			}
		}
		return map[string][]string{
			"subscribe": those(in.Subscribe, func(s string) bool { return match.MaySubscribe(who, pattern(t, s)) }),
			"publish":   those(in.Publish, func(s string) bool { return match.MayPublish(who, typ(t, s)) }),
		}, nil
	})
}

// those are the texts for which f holds.
func those(all []string, f func(string) bool) []string {
	some := []string{}
	for _, s := range all {
		if f(s) {
			some = append(some, s)
		}
	}
	return some
}
