package hub

import "context"

// Stats are a shard's own counters, and summed those of the hub.
type Stats struct {
	MailboxOverflows uint64 // notices had no room and the ring was read instead
	FellBehind       uint64 // live feeds that became behind
	Replayed         uint64 // entries given by feeds that were behind
	RingResumes      uint64 // cursors that the ring could verify
	LogLookups       uint64 // cursors that the log was asked about
	TooManyShapes    uint64 // subscriptions refused for the placement of their wildcards
	Conflated        uint64 // entries left out for a newer one of their subject
	DroppedOldest    uint64 // entries left out for newer ones of any
	TooManySubjects  uint64 // entries that could not leave older ones out
	Feeds            uint64 // now

	// Ephemeral events that a feed did not give: it was behind or held, a newer
	// one came, or there was no room.
	EphemeralBehind, EphemeralSuperseded, EphemeralFull uint64
	EphemeralUnposted                                   uint64 // for shards whose mailbox was full

	Entries, Notices, Marked, Reopened, Resets uint64 // of the tails
	Passes, Scanned, StalePasses, Queued       uint64 // of the scans; queued had to wait for a worker
	Evictions                                  uint64 // times the oldest entries left a ring that was full
	RingBytes, RingEntries                     uint64 // now
	Realms                                     uint64 // now
}

// Stats asks every shard and sums up. It returns what it has when ctx ends.
func (h *Hub) Stats(ctx context.Context) Stats {
	var sum Stats
	for _, p := range h.parts {
		sum.Entries += p.entries.Load()
		sum.Notices += p.notices.Load()
		sum.Marked += p.marked.Load()
		sum.Reopened += p.reopened.Load()
		sum.Resets += p.resets.Load()
		sum.Evictions += p.ring.evictions.Load()
		sum.RingBytes += uint64(max(p.ring.bytes.Load(), 0))
		sum.RingEntries += uint64(p.ring.count.Load())
	}
	sum.Passes, sum.Scanned, sum.StalePasses = h.passes.Load(), h.scanned.Load(), h.stale.Load()
	sum.Queued = h.scans.queued.Load()
	sum.EphemeralUnposted = h.unposted.Load()
	h.mu.Lock()
	sum.Realms = uint64(len(h.realms))
	h.mu.Unlock()
	answers := make(chan Stats, len(h.shards))
	for _, s := range h.shards {
		s.Post(TaskFunc(func() {
			st := s.stats
			st.Feeds = uint64(s.feeds.count)
			answers <- st
		}))
	}
	for range h.shards {
		select {
		case st := <-answers:
			sum.MailboxOverflows += st.MailboxOverflows
			sum.FellBehind += st.FellBehind
			sum.Replayed += st.Replayed
			sum.RingResumes += st.RingResumes
			sum.LogLookups += st.LogLookups
			sum.TooManyShapes += st.TooManyShapes
			sum.Conflated += st.Conflated
			sum.DroppedOldest += st.DroppedOldest
			sum.TooManySubjects += st.TooManySubjects
			sum.EphemeralBehind += st.EphemeralBehind
			sum.EphemeralSuperseded += st.EphemeralSuperseded
			sum.EphemeralFull += st.EphemeralFull
			sum.Feeds += st.Feeds
		case <-ctx.Done():
			return sum
		}
	}
	return sum
}
