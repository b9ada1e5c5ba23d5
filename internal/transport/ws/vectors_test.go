package ws

import (
	"encoding/hex"
	"testing"

	"github.com/carillon-rt/carillon/internal/testkit/vectors"
)

func TestCloseCodesOfTheVectors(t *testing.T) {
	vectors.Run(t, "close_codes.json", "answer", func(_ *testing.T, in string) (any, error) {
		payload, err := hex.DecodeString(in)
		code, _ := closing(payload)
		return code, err
	})
}
