package bench

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
)

// hookEvent is what the webhooks say they are about.
const hookEvent = "push"

// markSize is what the body of a webhook begins with: a mark, made up to always the
// same length.
const markSize = 160

// hookMaker makes signed webhooks as GitHub sends them. It is not safe for
// concurrent use.
type hookMaker struct {
	mac  hash.Hash
	tail []byte // of every body, after the mark
	sum  []byte
}

func newHookMaker(secret string, size int) *hookMaker {
	return &hookMaker{mac: hmac.New(sha256.New, []byte(secret)), tail: pushTail(size - markSize)}
}

// appendBody appends the body of a push.
func (k *hookMaker) appendBody(dst []byte, s *stream, lane int, seq uint64, at int64) []byte {
	dst = appendData(dst, s.run, s.org, lane, seq, at, markSize)
	dst[len(dst)-1] = ',' // it goes on
	return append(dst, k.tail...)
}

// appendHeaders appends what of the head depends on the body, up to its length.
func (k *hookMaker) appendHeaders(dst, body []byte, run string, lane int, seq uint64) []byte {
	k.mac.Reset()
	k.mac.Write(body)
	k.sum = k.mac.Sum(k.sum[:0])
	dst = append(dst, "X-GitHub-Delivery: "...)
	dst = append(dst, run...)
	dst = strconv.AppendInt(append(dst, '-'), int64(lane), 10)
	dst = strconv.AppendUint(append(dst, '-'), seq, 10)
	dst = append(dst, "\r\nX-Hub-Signature-256: sha256="...)
	dst = hex.AppendEncode(dst, k.sum)
	return append(dst, "\r\nContent-Length: "...)
}

// What a push is about, beside its commits.
const pushHead = `"ref":"refs/heads/main","before":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","after":"0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c",` +
	`"created":false,"deleted":false,"forced":false,"base_ref":null,"compare":"https://github.example/harbour/lighthouse/compare/6113728f27ae...0d1a26e67d8f",` +
	`"repository":{"id":186853002,"node_id":"R_kgDOCyMxig","name":"lighthouse","full_name":"harbour/lighthouse","private":true,` +
	`"owner":{"name":"harbour","email":null,"login":"harbour","id":21031067,"type":"Organization","site_admin":false},` +
	`"html_url":"https://github.example/harbour/lighthouse","description":"Lamps, lenses \u0026 fog signals","fork":false,"size":10413,"stargazers_count":42,` +
	`"language":"Go","has_issues":true,"open_issues_count":7,"license":null,"topics":["light","fog"],"visibility":"private","default_branch":"main"},` +
	`"pusher":{"name":"keeper","email":"keeper@harbour.example"},"sender":{"login":"keeper","id":583231,"type":"User","site_admin":false},"commits":[`

// pushCommit is one commit of a push.
const pushCommit = `{"id":"0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c","tree_id":"f9d2a07e9488b91af2641b26b9407fe22a451433","distinct":true,` +
	`"message":"Turn the lamp by hand when the motor fails\n\nThe \"night watch\" asked for it.","timestamp":"2026-11-20T18:04:11+01:00",` +
	`"url":"https://github.example/harbour/lighthouse/commit/0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c",` +
	`"author":{"name":"Keeper","email":"keeper@harbour.example","username":"keeper"},` +
	`"committer":{"name":"Keeper","email":"keeper@harbour.example","username":"keeper"},` +
	`"added":["lamp/hand.go"],"removed":[],"modified":["lamp/motor.go","docs/watch.md"]}`

// minHook is the smallest body of a webhook: a mark, and a push without commits.
const minHook = markSize + len(pushHead) + len(pushEnd) + len(`"}`)

const pushEnd = `],"note":"`

// pushTail is a push, without its opening brace, of so many bytes: as many commits
// as there is room for, and a note that fills it up.
func pushTail(size int) []byte {
	b := append(make([]byte, 0, size), pushHead...)
	rest := len(pushEnd) + len(`"}`)
	for k := 0; len(b)+1+len(pushCommit)+rest <= size; k++ {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(b, pushCommit...)
	}
	b = append(b, pushEnd...)
	for len(b) < size-2 {
		b = append(b, padding[:min(len(padding), size-2-len(b))]...)
	}
	return append(b, `"}`...)
}
