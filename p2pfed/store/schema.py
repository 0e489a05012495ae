"""The tables of a node's database, and how those of older versions become them."""

from __future__ import annotations

from p2pfed.store.history import ROUND_KINDS

KINDS = ", ".join(f"'{kind}'" for kind in ROUND_KINDS)
"""For an SQL list."""

_BEFORE_MERGED = "round, seq, statement_digest, vector, optimiser, aggregation, published, threshold, model"
_BEFORE_DECIDED = f"{_BEFORE_MERGED}, merged"
_BEFORE_HEALTH = f"{_BEFORE_DECIDED}, decided, momentum"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE node (one INTEGER PRIMARY KEY CHECK (one = 1), instance TEXT NOT NULL, epoch INTEGER NOT NULL,
           anchor BLOB NOT NULL) STRICT""",
        """CREATE TABLE checkpoint (one INTEGER PRIMARY KEY CHECK (one = 1), round INTEGER NOT NULL,
           seq INTEGER NOT NULL, statement_digest TEXT NOT NULL, vector BLOB NOT NULL, optimiser BLOB NOT NULL,
           aggregation BLOB NOT NULL, published BLOB NOT NULL, threshold REAL, model TEXT NOT NULL,
           sha256 BLOB NOT NULL) STRICT""",
        "CREATE TABLE marks (member TEXT PRIMARY KEY, seq INTEGER NOT NULL, digest TEXT NOT NULL) STRICT",
        "CREATE TABLE frames (member TEXT PRIMARY KEY, frame BLOB NOT NULL) STRICT",
        """CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, json TEXT NOT NULL,
           hash BLOB NOT NULL) STRICT""",
        f"CREATE INDEX rounds ON events (json_extract(json, '$.round'), id) WHERE kind IN ({KINDS})",
    ),
    (
        "CREATE TABLE reputation (member TEXT PRIMARY KEY, record BLOB NOT NULL, sha256 BLOB NOT NULL) STRICT",
        """CREATE TABLE scales (one INTEGER PRIMARY KEY CHECK (one = 1), state BLOB NOT NULL, sha256 BLOB NOT NULL)
           STRICT""",
    ),
    (
        """CREATE TABLE proofs (digest TEXT PRIMARY KEY, proof BLOB NOT NULL, cleared INTEGER NOT NULL,
           sha256 BLOB NOT NULL) STRICT""",
    ),
    (
        "ALTER TABLE checkpoint ADD COLUMN merged INTEGER NOT NULL DEFAULT 0",
        # before the calendar every round was merged; a damaged row must not become a sound one
        f"UPDATE checkpoint SET merged = round, sha256 = content_hash({_BEFORE_MERGED}, round)"
        f" WHERE sha256 = content_hash({_BEFORE_MERGED})",
        "DELETE FROM scales",
    ),
    (
        # what was decided before is not known: the last cycle's model is measured once more, if nodes rest
        "ALTER TABLE checkpoint ADD COLUMN decided INTEGER NOT NULL DEFAULT -1",
        "ALTER TABLE checkpoint ADD COLUMN momentum BLOB NOT NULL DEFAULT x''",
        f"UPDATE checkpoint SET sha256 = content_hash({_BEFORE_DECIDED}, -1, x'')"
        f" WHERE sha256 = content_hash({_BEFORE_DECIDED})",
    ),
    (
        "ALTER TABLE checkpoint ADD COLUMN health BLOB NOT NULL DEFAULT x''",
        "ALTER TABLE checkpoint ADD COLUMN trained BLOB NOT NULL DEFAULT x''",
        f"UPDATE checkpoint SET sha256 = content_hash({_BEFORE_HEALTH}, x'', x'')"
        f" WHERE sha256 = content_hash({_BEFORE_HEALTH})",
    ),
    (
        # events of the first format have no digest; see `sqlite_events.change_format`
        "DROP INDEX rounds",
        "ALTER TABLE events RENAME TO events_before",
        """CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, json TEXT, salt BLOB,
           digest BLOB NOT NULL, hash BLOB NOT NULL) STRICT""",
        "INSERT INTO events SELECT id, time, kind, json, x'', x'', hash FROM events_before",
        "DROP TABLE events_before",
        f"CREATE INDEX rounds ON events (json_extract(json, '$.round'), id) WHERE kind IN ({KINDS})",
        # content that may go and leave its digest: by age, and the oldest first where there is no room
        "CREATE INDEX ages ON events (time) WHERE json IS NOT NULL AND digest != x''",
        "CREATE INDEX kept ON events (id) WHERE json IS NOT NULL AND digest != x''",
        "CREATE INDEX first_format ON events (id) WHERE digest = x''",
        # high-water marks: who deletes the newest events, or a manifest, is found out
        "ALTER TABLE node ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE node ADD COLUMN last_hash BLOB NOT NULL DEFAULT x''",
        "ALTER TABLE node ADD COLUMN manifest INTEGER NOT NULL DEFAULT 0",
        # characters of such content, and how late it is for what is kept; see `history.aged`
        "ALTER TABLE node ADD COLUMN characters INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE node ADD COLUMN aged REAL",
    ),
)
"""Statements that take the file from schema version i to i + 1 (`PRAGMA user_version`); only ever appended to.

`content_hash(...)` is `contents.content_hash`."""

REPUTATION_SINCE = 2
"""Schema version that reputation came with."""
HISTORY_SINCE = 7
"""Schema version that the second format of the history came with."""
CALENDAR_SINCE = 4
"""Schema version before which distances had no unit: whom they quarantined is taken back."""
