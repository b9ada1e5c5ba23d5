package hook

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-rt/carillon"
	"github.com/carillon-rt/carillon/internal/source/hook/intake"
	"github.com/carillon-rt/carillon/internal/source/hook/provider"
)

// Run hands what lies on this node's disk to the log, until ctx ends.
func (r *Receiver) Run(ctx context.Context) {
	if r.spool == nil {
		return
	}
	store := func(ctx context.Context, org carillon.OrgID, received *intake.Received) error {
		key := "s\x00" + received.Source + "\x00" + received.Delivery + "\x00" + strconv.FormatInt(received.At.UnixNano(), 10)
		_, err := r.store(ctx, org, received, key)
		return err
	}
	r.spool.run(ctx, store, r.Logger)
}

// VerifyWith reports whether a request of a provider, by one of its kinds, is signed
// with one of the secrets.
func VerifyWith(kind string, secrets []string, h http.Header, body []byte, now time.Time) bool {
	if kind == "standard-webhooks" {
		kind = string(provider.KindStandard)
	}
	p, err := provider.New(provider.Config{Kind: provider.Kind(strings.ToLower(kind))})
	if err != nil {
		return false
	}
	claim, refusal := p.Look(h, now)
	if refusal != nil {
		return false
	}
	keys := make([]provider.Secret, len(secrets))
	for i, text := range secrets {
		keys[i] = provider.Secret{Key: []byte(text)}
	}
	_, refusal = claim.Verify(body, keys)
	return refusal == nil
}
