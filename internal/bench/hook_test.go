package bench

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

func TestAWebhookIsJSONOfItsSizeWithTheMarkAndAValidSignature(t *testing.T) {
	st := &stream{run: "abcdef", org: "demo"}
	ids := map[string]bool{}
	for _, size := range []int{minHook, minHook + 1, 3000, 7000, 190_000} {
		k := newHookMaker("hush", size)
		for _, seq := range []uint64{0, 7, maxMark} {
			body := k.appendBody(nil, st, 63, seq, 1<<50)
			var push struct {
				Ref     string
				Commits []struct{ ID string }
			}
			if err := json.Unmarshal(body, &push); err != nil || push.Ref != "refs/heads/main" || len(body) != size {
				t.Fatalf("%d bytes, want %d: %v\n%s", len(body), size, err, body)
			}
			if size == 7000 && len(push.Commits) < 5 {
				t.Errorf("%d commits", len(push.Commits))
			}
			var m mark
			if !m.read(body) || m.lane != 63 || m.seq != seq || m.at != 1<<50 || string(m.run) != st.run || string(m.org) != st.org {
				t.Errorf("the mark is read as %+v", m)
			}
			head := string(k.appendHeaders(nil, body, st.run, 63, seq))
			mac := hmac.New(sha256.New, []byte("hush"))
			mac.Write(body)
			if !strings.Contains(head, "X-Hub-Signature-256: sha256="+hex.EncodeToString(mac.Sum(nil))+"\r\n") {
				t.Errorf("the head is %q", head)
			}
			id, _, _ := strings.Cut(head, "\r\n")
			ids[id] = true
		}
	}
	if len(ids) != 3 {
		t.Errorf("3 deliveries have the ids %v", ids)
	}
}

func TestMarksKnowWhatIsInOneSetAndNotInAnother(t *testing.T) {
	var a, b marks
	for _, n := range []uint64{0, 63, 64, 200, maxMark} {
		if !a.add(n) || a.add(n) {
			t.Errorf("%d is not new once", n)
		}
	}
	for _, n := range []uint64{0, 63} {
		b.add(n)
	}
	if n, least := a.without(&b); n != 3 || least != 64 {
		t.Errorf("%d, the least %d", n, least)
	}
	if n, _ := b.without(&a); n != 0 || a.count != 5 {
		t.Errorf("%d in the smaller set alone, %d in the larger", n, a.count)
	}
}

func TestAReceiverInAnyOrderIsHeldToWhatWasAnswered(t *testing.T) {
	var c checker
	st := &stream{run: "r", org: "o", eventType: "gh.push", pattern: "gh.>"}
	r := newReceiver(0, st, 2)
	r.seen = make([]marks, 2)
	arrive := func(lane int, seq uint64) {
		var m message
		event := bytes.Join([][]byte{[]byte(`{"type":"event","id":"x","event_type":"gh.push","payload":`), appendData(nil, "r", "o", lane, seq, 0, 80), []byte(`}`)}, nil)
		if !m.read(event) {
			t.Fatal("unreadable")
		}
		c.event(&r, &m)
	}
	for _, seq := range []uint64{2, 0, 1, 1} {
		arrive(1, seq)
	}
	arrive(0, maxMark+1)
	var answered [2]marks
	for seq := range uint64(5) {
		answered[1].add(seq)
	}
	c.missed(&r, 0, &answered[0])
	c.missed(&r, 1, &answered[1])
	if c.Lost != 2 || c.Duplicated != 1 || c.Misrouted != 1 || c.Reordered != 0 {
		t.Errorf("%+v", c.Checks)
	}
}
