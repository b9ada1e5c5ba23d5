package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/carillon-rt/carillon"
)

// IDLen is the length of an event id in characters.
const IDLen = 26

// idVersion stands in the first four bits of every id.
const idVersion = 1

// crockford is the alphabet of event ids: digits and capitals without I, L, O, U.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

var crockfordValue = func() (v [256]byte) { //nolint:gochecknoglobals // a table; it never changes
	for i := range v {
		v[i] = 0xff
	}
	for i := range crockford {
		v[crockford[i]] = byte(i)
	}
	return v
}()

// Keyring makes the ids of every organization from the install's key. Each
// organization has a key of its own, so that ids tell nothing about order or
// volume and one organization's id is refused by another.
type Keyring struct {
	install []byte
	mu      sync.Mutex // guards orgs
	orgs    map[carillon.OrgID]*IDs
}

// maxKeyring bounds the organizations whose derived keys are remembered; beyond
// it the oldest knowledge is thrown away and derived again when asked for.
const maxKeyring = 100_000

// NewKeyring derives from the install's key, which is at least 32 random bytes.
func NewKeyring(install []byte) *Keyring {
	return &Keyring{install: append([]byte(nil), install...), orgs: map[carillon.OrgID]*IDs{}}
}

// Org returns the ids of one organization. The result may be kept.
func (k *Keyring) Org(org carillon.OrgID) *IDs {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ids := k.orgs[org]; ids != nil {
		return ids
	}
	if len(k.orgs) >= maxKeyring {
		clear(k.orgs)
	}
	mac := hmac.New(sha256.New, k.install)
	mac.Write([]byte("carillon event id v1\x00" + string(org)))
	block, err := aes.NewCipher(mac.Sum(nil)[:16])
	if err != nil {
		panic("wire: aes refused a 16-byte key: " + err.Error()) // cannot happen
	}
	ids := &IDs{block: block}
	k.orgs[org] = ids
	return ids
}

// IDs enciphers the positions of one organization: 128 bits (version 4,
// partition 12, sequence 64, check 32, zero 16) as one AES block, printed as 26
// characters of Crockford's base32.
type IDs struct{ block cipher.Block }

// Append appends the id of p to dst.
func (ids *IDs) Append(dst []byte, p carillon.Position) []byte {
	var b [16]byte
	binary.BigEndian.PutUint16(b[0:], idVersion<<12|p.Partition&0x0fff)
	binary.BigEndian.PutUint64(b[2:], p.Seq)
	binary.BigEndian.PutUint32(b[10:], p.Check)
	ids.block.Encrypt(b[:], b[:])
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	var out [IDLen]byte
	for i := IDLen - 1; i >= 0; i-- {
		out[i] = crockford[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return append(dst, out[:]...)
}

// String is the id of p.
func (ids *IDs) String(p carillon.Position) string { return string(ids.Append(nil, p)) }

// Decode reads an id. ok is false when it is not an id of this organization and
// install, or of a version this program does not know.
func (ids *IDs) Decode(s string) (p carillon.Position, ok bool) {
	if len(s) != IDLen || s[0] > '7' { // more than 128 bits
		return p, false
	}
	var hi, lo uint64
	for i := range IDLen {
		v := crockfordValue[s[i]]
		if v == 0xff {
			return p, false
		}
		hi = hi<<5 | lo>>59
		lo = lo<<5 | uint64(v)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	ids.block.Decrypt(b[:], b[:])
	head := binary.BigEndian.Uint16(b[0:])
	if head>>12 != idVersion || b[14] != 0 || b[15] != 0 {
		return p, false
	}
	return carillon.Position{
		Partition: head & 0x0fff,
		Seq:       binary.BigEndian.Uint64(b[2:]),
		Check:     binary.BigEndian.Uint32(b[10:]),
	}, true
}

// ShapedLikeID reports whether s has the form of an event id: 26 digits and
// capitals. Not everything of this form is the id of some position.
func ShapedLikeID(s string) bool {
	if len(s) != IDLen {
		return false
	}
	for i := range IDLen {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// ParseCursor reads any cursor a client may send. Text shaped like an id that
// is not one of this log becomes CursorForeign; any other unreadable text is a
// bad_request error.
func (ids *IDs) ParseCursor(s string) (carillon.Cursor, error) {
	if c, ok := carillon.ParseNamedCursor(s); ok {
		return c, nil
	}
	if !ShapedLikeID(s) {
		if len(s) > 40 {
			s = s[:40] + "…"
		}
		return carillon.Cursor{}, carillon.BadRequest("cursor %q: it is an event id, a cursor from the server, now, earliest, or a time back such as -10m", s)
	}
	p, ok := ids.Decode(s)
	if !ok {
		return carillon.Cursor{Kind: carillon.CursorForeign}, nil
	}
	return carillon.At(p), nil
}
