package action

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"hash"
	"strings"
	"time"
)

// maxSignatures is how many of a list are tried.
const maxSignatures = 16

// scalrDate is how the Date header of scalr-signature is written.
const scalrDate = "Mon 02 Jan 2006 15:04:05 MST"

// errNoSecret is a match that everybody could sign for.
var errNoSecret = errors.New("action: the secret of a signature is empty")

// hash is that of a payload-hmac or payload-hash; nil: the match is neither.
func (m *match) hash() func() hash.Hash {
	switch m.algorithm() {
	case "sha1":
		return sha1.New
	case "sha256":
		return sha256.New
	case "sha512":
		return sha512.New
	}
	return nil
}

// algorithm is the name of that hash.
func (m *match) algorithm() string {
	for _, prefix := range []string{"payload-hmac-", "payload-hash-"} { // the second is an old name of the first
		if name, ok := strings.CutPrefix(m.kind, prefix); ok {
			return name
		}
	}
	return ""
}

// signed says whether one of the signatures is that of the body. One without a
// comma may have the algorithm in front; in a list all must.
func (m *match) signed(body []byte, signature string) (bool, error) {
	if m.secret == "" {
		return false, errNoSecret
	}
	mac := hmac.New(m.hash(), []byte(m.secret))
	mac.Write(body)
	want := []byte(hex.EncodeToString(mac.Sum(nil)))

	prefix := m.algorithm() + "="
	if !strings.Contains(signature, ",") {
		if hmac.Equal([]byte(strings.TrimPrefix(signature, prefix)), want) {
			return true, nil
		}
		return false, ErrSignature
	}
	tried, good := 0, false
	for part := range strings.SplitSeq(signature, ",") {
		got, ok := strings.CutPrefix(part, prefix)
		if !ok {
			continue
		}
		if tried++; tried > maxSignatures {
			break
		}
		if hmac.Equal([]byte(got), want) {
			good = true
		}
	}
	if !good {
		return false, ErrSignature
	}
	return true, nil
}

// scalr says whether X-Signature is that of body and Date, and Date is near.
func (m *match) scalr(r *Request) (bool, error) {
	if len(r.Header["X-Signature"]) == 0 || len(r.Header["Date"]) == 0 {
		return false, nil
	}
	if m.secret == "" {
		return false, errNoSecret
	}
	date := r.Header.Get("Date")
	mac := hmac.New(sha1.New, []byte(m.secret))
	mac.Write(r.Body)
	mac.Write([]byte(date))
	if !hmac.Equal([]byte(r.Header.Get("X-Signature")), []byte(hex.EncodeToString(mac.Sum(nil)))) {
		return false, ErrSignature
	}
	at, err := time.Parse(scalrDate, date)
	if err != nil {
		return false, errors.New("action: Date is not written like Fri 08 Sep 2017 11:24:32 UTC")
	}
	if r.now().Sub(at).Abs() > defaultTolerance {
		return false, ErrSignature
	}
	return true, nil
}
