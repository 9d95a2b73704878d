"""The tables of the sqlite store and what may be done with them: synchronous functions on one connection.

In: a connection from ``connect`` and, where time matters, ``now`` (seconds since the epoch: leases must outlive a restart, and several
processes must agree on it). Out: the records of ``api``. ``kv`` holds the current values, ``log`` the history for watches, ``lease`` the
leases, ``meta`` the revision and how far the history is compacted. A write is one ``BEGIN IMMEDIATE`` transaction, so that several
processes take turns; a reader sees one state in a transaction of its own (WAL), and blocks nobody.

Costs: O(log n) for a key, O(rows returned) for lists and changes. Not here: threads, waiting, errors in our own words (see ``sqlite``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tabinet.errors import Compacted, NotFound
from tabinet.store.api import Compare, DeleteEvent, DeleteOp, GetOp, KeyValue, Op, PutEvent, PutOp, TxnResult, WatchBatch
from tabinet.store.semantics import key_bytes, key_text, prefix_end

SCHEMA_VERSION = 1
_SCHEMA = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES('revision', 1), ('compacted', 0)",
    """CREATE TABLE kv(key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, create_revision INTEGER NOT NULL,
       lease INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX kv_lease ON kv(lease) WHERE lease != 0",
    """CREATE TABLE log(revision INTEGER NOT NULL, seq INTEGER NOT NULL, key BLOB NOT NULL, value BLOB, create_revision INTEGER NOT NULL,
       lease INTEGER NOT NULL, PRIMARY KEY(revision, seq)) WITHOUT ROWID""",
    "CREATE TABLE lease(id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s INTEGER NOT NULL, ends_at REAL NOT NULL)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_ROW = "key, value, revision, create_revision, lease"
_LAST_KEY = b"\xff" * 64
"""Greater than every key: no UTF-8 text begins with 0xff."""
_PRUNE_EVERY = 1000
"""Revisions between two looks at whether old history can go."""


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A connection to the store in ``path``, which is made when it does not exist; a locked file is waited for ``timeout_s``."""
    return sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)


def open_tables(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A connection for writing; the file has the tables.

    Raises:
        sqlite3.Error: the file cannot be opened, is no database, or was written by a newer version.
    """
    connection = connect(path, timeout_s)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: what a writer was told is stored survives a power failure. WAL with NORMAL may lose the last transactions.
        connection.execute("PRAGMA synchronous = FULL")
        with writing(connection):
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
            elif version != SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"it has schema {version}, this version reads {SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """The block is one write transaction; an exception in it undoes it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """The block reads one state of the store."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def read_meta(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0])


def read_key(connection: sqlite3.Connection, key: str) -> KeyValue | None:
    row = connection.execute(f"SELECT {_ROW} FROM kv WHERE key = ?", (key_bytes(key),)).fetchone()
    return _item(row) if row else None


def read_page(connection: sqlite3.Connection, prefix: bytes, after: bytes | None, limit: int) -> list[KeyValue]:
    """Up to ``limit`` items below ``prefix`` with keys greater than ``after`` (None: from the beginning), in key order."""
    comparison, start = (">=", prefix) if after is None else (">", after)
    rows = connection.execute(
        f"SELECT {_ROW} FROM kv WHERE key {comparison} ? AND key < ? ORDER BY key LIMIT ?",
        (start, prefix_end(prefix) or _LAST_KEY, limit),
    )
    return [_item(row) for row in rows]


def read_changes(connection: sqlite3.Connection, prefix: bytes, after_revision: int, limit: int) -> WatchBatch:
    """The changes below ``prefix`` after ``after_revision``: about ``limit`` of them, always whole transactions.

    Raises:
        Compacted: some of them are gone, or the store has not reached ``after_revision``.
    """
    with reading(connection):
        compacted = read_meta(connection, "compacted")
        current = read_meta(connection, "revision")
        if not compacted <= after_revision <= current:
            raise Compacted(max(compacted, after_revision))
        end = prefix_end(prefix) or _LAST_KEY
        where = "key >= ? AND key < ? AND revision > ?"
        last = current
        cut = connection.execute(
            f"SELECT revision FROM log WHERE {where} ORDER BY revision, seq LIMIT 1 OFFSET ?", (prefix, end, after_revision, limit)
        ).fetchone()
        if cut:
            last = int(cut[0])
        rows = connection.execute(
            f"SELECT {_ROW} FROM log WHERE {where} AND revision <= ? ORDER BY revision, seq", (prefix, end, after_revision, last)
        )
        return WatchBatch(events=[_event(row) for row in rows], revision=last)


def run_txn(
    connection: sqlite3.Connection, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op], history: int
) -> TxnResult:
    """``Datastore.txn``; keeps at least ``history`` revisions for watches.

    Raises:
        NotFound: a put names a lease that has ended; nothing was written.
    """
    with writing(connection):
        revision = read_meta(connection, "revision") + 1
        succeeded = all(_mod_revision(connection, compare.key) == compare.revision for compare in compares)
        values: list[KeyValue | None] = []
        written = 0
        for op in then if succeeded else otherwise:
            match op:
                case PutOp():
                    _put(connection, op, revision, written)
                    written += 1
                case DeleteOp(key):
                    written += _delete(connection, key_bytes(key), revision, written)
                case GetOp(key):
                    values.append(read_key(connection, key))
        if written:
            _advance(connection, revision)
            if revision % _PRUNE_EVERY == 0:
                _forget(connection, revision - history)
        else:
            revision -= 1
        return TxnResult(succeeded=succeeded, revision=revision, values=tuple(values))


def compact(connection: sqlite3.Connection, revision: int) -> None:
    """History up to ``revision`` is gone.

    Raises:
        ValueError: the store has not reached ``revision``.
    """
    with writing(connection):
        current = read_meta(connection, "revision")
        if revision > current:
            raise ValueError(f"cannot compact revision {revision}: the store is at {current}")
        _forget(connection, revision)


def grant(connection: sqlite3.Connection, ttl_s: int, now: float) -> int:
    with writing(connection):
        lease = connection.execute("INSERT INTO lease(ttl_s, ends_at) VALUES(?, ?)", (ttl_s, now + ttl_s)).lastrowid
    assert lease is not None
    return lease


def keep_alive(connection: sqlite3.Connection, lease: int, now: float) -> bool:
    """The lease runs for its whole time again; False: there is none."""
    with writing(connection):
        return connection.execute("UPDATE lease SET ends_at = ? + ttl_s WHERE id = ?", (now, lease)).rowcount == 1


def end_lease(connection: sqlite3.Connection, lease: int) -> None:
    with writing(connection):
        _end_leases(connection, [lease])


def sweep_leases(connection: sqlite3.Connection, now: float) -> bool:
    """Leases that have run out are gone with their keys; True when there were any."""
    if connection.execute("SELECT 1 FROM lease WHERE ends_at <= ? LIMIT 1", (now,)).fetchone() is None:
        return False
    with writing(connection):
        # Read again inside the transaction: another process may have swept, or renewed, in between.
        ended = [int(row[0]) for row in connection.execute("SELECT id FROM lease WHERE ends_at <= ?", (now,))]
        _end_leases(connection, ended)
    return bool(ended)


# --- inside a write transaction -------------------------------------------------------------------------------------


def _mod_revision(connection: sqlite3.Connection, key: str) -> int:
    row = connection.execute("SELECT revision FROM kv WHERE key = ?", (key_bytes(key),)).fetchone()
    return int(row[0]) if row else 0


def _put(connection: sqlite3.Connection, op: PutOp, revision: int, seq: int) -> None:
    if op.lease and connection.execute("SELECT 1 FROM lease WHERE id = ?", (op.lease,)).fetchone() is None:
        raise NotFound(f"lease {op.lease} has ended")
    key = key_bytes(op.key)
    row = connection.execute(
        """INSERT INTO kv VALUES(?1, ?2, ?3, ?3, ?4)
           ON CONFLICT(key) DO UPDATE SET value = ?2, revision = ?3, lease = ?4 RETURNING create_revision""",
        (key, op.value, revision, op.lease),
    ).fetchone()
    connection.execute("INSERT INTO log VALUES(?, ?, ?, ?, ?, ?)", (revision, seq, key, op.value, row[0], op.lease))


def _delete(connection: sqlite3.Connection, key: bytes, revision: int, seq: int) -> int:
    """1 when the key existed, else 0."""
    if connection.execute("DELETE FROM kv WHERE key = ?", (key,)).rowcount == 0:
        return 0
    connection.execute("INSERT INTO log VALUES(?, ?, ?, NULL, 0, 0)", (revision, seq, key))
    return 1


def _end_leases(connection: sqlite3.Connection, leases: Sequence[int]) -> None:
    for lease in leases:
        if connection.execute("DELETE FROM lease WHERE id = ?", (lease,)).rowcount == 0:
            continue
        revision = read_meta(connection, "revision") + 1
        keys = [row[0] for row in connection.execute("SELECT key FROM kv WHERE lease = ? AND lease != 0 ORDER BY key", (lease,))]
        for seq, key in enumerate(keys):
            _delete(connection, key, revision, seq)
        if keys:
            _advance(connection, revision)


def _advance(connection: sqlite3.Connection, revision: int) -> None:
    connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))


def _forget(connection: sqlite3.Connection, revision: int) -> None:
    if revision > read_meta(connection, "compacted"):
        connection.execute("DELETE FROM log WHERE revision <= ?", (revision,))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (revision,))


# --- rows to records ------------------------------------------------------------------------------------------------

_Row = tuple[bytes, bytes, int, int, int]


def _item(row: _Row) -> KeyValue:
    return KeyValue(key_text(row[0]), row[1], row[2], row[3], row[4])


def _event(row: tuple[bytes, bytes | None, int, int, int]) -> PutEvent | DeleteEvent:
    key, value, revision, create_revision, lease = row
    if value is None:
        return DeleteEvent(key_text(key), revision)
    return PutEvent(_item((key, value, revision, create_revision, lease)))
