package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
)

// connectionID is where a session is: on which shard, its number there, and, since
// numbers are given again, which of the shard's sessions it is.
type connectionID struct {
	shard  uint8
	number uint32
	serial uint32
}

// connectionIDs makes the text of connection ids: each is enciphered as one block
// with a key that the node makes when it starts. It is unguessable: who knows it may
// act for the connection, given a credential of the same user. So no session has to
// keep it.
type connectionIDs struct{ block cipher.Block }

// idText is unpadded, in small letters.
var idText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func newConnectionIDs() connectionIDs {
	var key [16]byte
	rand.Read(key[:]) // never fails (crypto/rand)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("session: aes refused a 16-byte key: " + err.Error()) // cannot happen
	}
	return connectionIDs{block}
}

func (c connectionIDs) text(id connectionID) string {
	var b [16]byte // seven of them stay 0, by which an id is known
	b[0] = id.shard
	binary.BigEndian.PutUint32(b[1:], id.number)
	binary.BigEndian.PutUint32(b[5:], id.serial)
	c.block.Encrypt(b[:], b[:])
	return idText.EncodeToString(b[:])
}

func (c connectionIDs) parse(s string) (id connectionID, ok bool) {
	var b [16]byte
	if len(s) != idText.EncodedLen(len(b)) {
		return id, false
	}
	if _, err := idText.Decode(b[:], []byte(s)); err != nil || idText.EncodeToString(b[:]) != s {
		return id, false
	}
	c.block.Decrypt(b[:], b[:])
	if [7]byte(b[9:]) != [7]byte{} {
		return id, false
	}
	return connectionID{b[0], binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint32(b[5:])}, true
}
