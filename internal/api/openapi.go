package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"github.com/carillon-rt/carillon/internal/answer"
	"github.com/carillon-rt/carillon/protocol"
)

// openAPI is GET /v1/openapi.json. The document holds nothing of anybody, so it
// needs no credential and caches may keep it.
func (a *api) openAPI(w http.ResponseWriter, r *http.Request) error {
	sum := sha256.Sum256(protocol.OpenAPI)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("Vary", "Authorization, Cookie, Origin, Accept-Encoding")
	h.Set("ETag", "W/"+tag) // the same in every encoding
	if answer.Has(r.Header, tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	body := a.compressor.Compress(r.Header, h, protocol.OpenAPI)
	h.Set("Content-Type", answer.JSON)
	answer.Write(w, http.StatusOK, body, a.WriteTimeout)
	return nil
}
