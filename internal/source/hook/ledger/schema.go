package ledger

// application marks a file as a ledger, and version is that of the schema. A
// ledger of another version is made anew, so there are no migrations.
const (
	application = 0x43524c47
	version     = 3
)

// schema of the file. A place is a partition and a sequence in one integer, so
// that rows lie in the order of the log, and an index needs no more than it to
// name a row.
//
// The indexes that listing uses all end in state and received. A page is merged
// from one range of such an index for each state, and so costs the same wherever
// in the history it lies.
const schema = `
CREATE TABLE cursor (
	partition INTEGER PRIMARY KEY,
	identity  TEXT NOT NULL,
	seq       INTEGER NOT NULL,
	chk       INTEGER NOT NULL
);
CREATE TABLE delivery (
	place        INTEGER PRIMARY KEY,
	chk          INTEGER NOT NULL,
	org          TEXT NOT NULL,
	source       TEXT NOT NULL,
	provider     TEXT NOT NULL,
	event        TEXT NOT NULL,
	delivery     TEXT NOT NULL,
	digest       TEXT NOT NULL,
	remote       TEXT NOT NULL,
	size         INTEGER NOT NULL,
	received     INTEGER NOT NULL,
	signature    TEXT NOT NULL,
	secret       TEXT NOT NULL,
	lane         TEXT NOT NULL,
	spooled      INTEGER NOT NULL,
	status       INTEGER NOT NULL,
	duplicate_of INTEGER NOT NULL,
	dup_chk      INTEGER NOT NULL,
	state        INTEGER NOT NULL,
	attempts     INTEGER NOT NULL,
	total        INTEGER NOT NULL,
	micros       INTEGER NOT NULL,
	due          INTEGER NOT NULL,
	error        TEXT NOT NULL,
	text         TEXT NOT NULL,
	type         TEXT NOT NULL,
	pub_part     INTEGER NOT NULL,
	pub_seq      INTEGER NOT NULL,
	pub_chk      INTEGER NOT NULL,
	again        INTEGER NOT NULL,
	notes        INTEGER NOT NULL,
	seen         BLOB
);
CREATE INDEX delivery_state    ON delivery (org, state, received);
CREATE INDEX delivery_source   ON delivery (org, source, state, received);
CREATE INDEX delivery_event    ON delivery (org, event, state, received);
CREATE INDEX delivery_delivery ON delivery (org, delivery, state, received);
CREATE INDEX delivery_remote   ON delivery (org, remote, state, received);
CREATE INDEX delivery_received ON delivery (received);
CREATE INDEX delivery_seen     ON delivery (seen, received) WHERE seen IS NOT NULL;
CREATE INDEX delivery_waiting  ON delivery (place) WHERE state = 0;
CREATE TABLE attempt (
	place    INTEGER NOT NULL,
	seq      INTEGER NOT NULL,
	at       INTEGER NOT NULL,
	kind     TEXT NOT NULL,
	outcome  TEXT NOT NULL,
	attempts INTEGER NOT NULL,
	micros   INTEGER NOT NULL,
	retry    INTEGER NOT NULL,
	error    TEXT NOT NULL,
	text     TEXT NOT NULL,
	by       TEXT NOT NULL,
	PRIMARY KEY (place, seq)
) WITHOUT ROWID;
CREATE TABLE counter (
	org    TEXT NOT NULL,
	source TEXT NOT NULL,
	state  INTEGER NOT NULL,
	n      INTEGER NOT NULL,
	PRIMARY KEY (org, source, state)
) WITHOUT ROWID;
`

// columns of a delivery, as [Delivery.fields] takes them.
const columns = `place, chk, org, source, provider, event, delivery, digest, remote, size, received, signature, secret, lane,
	spooled, status, duplicate_of, dup_chk, state, attempts, total, micros, due, error, text, type, pub_part, pub_seq, pub_chk, again`

// The statements of the writer.
const (
	sqlCursor = `SELECT identity, seq, chk FROM cursor WHERE partition = ?`
	sqlMove   = `INSERT INTO cursor (partition, identity, seq, chk) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET identity = excluded.identity, seq = excluded.seq, chk = excluded.chk`
	sqlInsert = `INSERT INTO delivery (` + columns + `, notes, seen)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)`
	sqlRow    = `SELECT ` + columns + `, notes FROM delivery WHERE place = ?`
	sqlUpdate = `UPDATE delivery SET state = ?, attempts = ?, total = ?, micros = ?, due = ?, error = ?, text = ?, type = ?,
		pub_part = ?, pub_seq = ?, pub_chk = ?, again = ?, notes = ? WHERE place = ?`
	sqlNote = `INSERT INTO attempt (place, seq, at, kind, outcome, attempts, micros, retry, error, text, by)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	sqlShorten = `DELETE FROM attempt WHERE place = ?1 AND seq <=
		(SELECT seq FROM attempt WHERE place = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)`
	sqlCount = `INSERT INTO counter (org, source, state, n) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET n = n + excluded.n`

	// What a delivery would repeat: the newest with its key, and the one that this repeats.
	sqlSeen = `SELECT d.place, d.chk, d.state, coalesce(o.place, 0), coalesce(o.chk, 0), coalesce(o.state, 0)
		FROM delivery d INDEXED BY delivery_seen LEFT JOIN delivery o ON o.place = d.duplicate_of
		WHERE d.seen = ? AND d.received > ? ORDER BY d.received DESC, d.place DESC LIMIT 1`
)
