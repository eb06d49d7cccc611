"""The file of durable mode: SQLite with a write-ahead log that is flushed to the disk at every commit.

SQLite finds a record that was torn by a crash by its checksum, keeps what was committed before it, and moves the log
into the file now and then: none of that is done again here.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from coremachine.local.broker import codec
from coremachine.local.broker.changes import QueueChanges
from coremachine.local.broker.durable_error import DurableError
from coremachine.local.broker.message import encode_stored, parse_message
from coremachine.local.broker.sql_action import encode
from coremachine.local.broker.stored import Message, Place

_APPLICATION, _VERSION = 0x636D7362, 1
# A message's row is found by its queue and number in one.
_NUMBER_BITS = 40
_SCHEMA = """
create table entity (
  id integer primary key autoincrement,
  name text not null unique,      -- the path in lower case
  topic text,                     -- of a subscription: the topic's path in lower case
  kind text not null,             -- queue, topic or subscription
  settings text not null,
  rules text not null,
  configured text,                -- what the configuration said when it was last followed
  created_at real not null,
  updated_at real not null,
  last_number integer not null default 0,
  last_dead_number integer not null default 0
);
create table message (
  id integer primary key,         -- the queue's key and the sequence number
  enqueued_at real not null,
  ttl_seconds real,
  delivery_count integer not null,
  place integer not null,         -- 0 ready, 2 deferred, 3 scheduled
  dead_letter_source text,
  original_number integer,
  hops integer not null,
  content blob not null
);
create table seen_id (
  queue integer not null,
  message_id blob not null,
  until real not null,
  primary key (queue, message_id)
) without rowid;
create index seen_id_until on seen_id (until);
create table session (
  queue integer not null,
  session_id text not null,
  state blob not null,
  updated_at real not null,
  primary key (queue, session_id)
) without rowid;
"""

Row = tuple[object, ...]


class DurableFile:
    """Reads and writes rows; nothing is on the disk before `commit`.

    Raises:
        DurableError: The file is used by another broker, is none of ours, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Made in the thread that starts the broker, used in the broker's.
            self._connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as exc:
            raise DurableError(path, "a file that can be written", str(exc)) from exc
        try:
            self._open()
        except BaseException as exc:
            self._connection.close()
            if not isinstance(exc, sqlite3.Error):
                raise
            in_use = getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            expected = "a file that no other broker uses" if in_use else "a file of this broker"
            raise DurableError(path, expected, str(exc)) from exc

    def _open(self) -> None:
        self._connection.execute("pragma locking_mode = exclusive")
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute("begin immediate")
        version = self._pragma("user_version")
        if version == 0 and not self._connection.execute("select 1 from sqlite_master").fetchone():
            self._connection.execute("commit")
            self._connection.executescript(
                f"begin;{_SCHEMA};pragma application_id={_APPLICATION};pragma user_version={_VERSION};commit;"
            )
            return
        self._connection.execute("commit")
        if self._pragma("application_id") != _APPLICATION or version != _VERSION:
            raise DurableError(self._path, f"a broker's file of version {_VERSION}", f"another one, version {version}")
        if 2 * self._pragma("freelist_count") > self._pragma("page_count"):
            # More than half of it is free: give it back.
            self._connection.execute("vacuum")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"pragma {name}").fetchone()[0])

    def close(self) -> None:
        self._connection.close()

    @property
    def has_uncommitted(self) -> bool:
        return self._connection.in_transaction

    def commit(self, changes: Iterable[QueueChanges], now: float) -> None:
        """Write what changed in queues, and wait until it and everything before is on the disk.

        Raises:
            sqlite3.Error: It cannot be written.
        """
        self._begin()
        for each in changes:
            self._write_queue(each, now)
            each.all_written()
        self._connection.execute("commit")

    # Entities.

    def entities(self) -> list[Row]:
        """Id, name, topic, kind, settings, rules, configured, created_at, updated_at and both last numbers."""
        return self._connection.execute(
            "select id, name, topic, kind, settings, rules, configured, created_at, updated_at, last_number, "
            "last_dead_number from entity order by id"
        ).fetchall()

    def add_entity(self, name: str, topic: str | None, kind: str, texts: tuple[str, str], created_at: float) -> int:
        self._begin()
        cursor = self._connection.execute(
            "insert into entity (name, topic, kind, settings, rules, created_at, updated_at) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            (name, topic, kind, *texts, created_at, created_at),
        )
        return int(cursor.lastrowid or 0)

    def change_entity(self, entity_id: int, texts: tuple[str, str], updated_at: float) -> None:
        self._begin()
        self._connection.execute(
            "update entity set settings = ?, rules = ?, updated_at = ? where id = ?", (*texts, updated_at, entity_id)
        )

    def set_configured(self, entity_id: int, text: str) -> None:
        self._begin()
        self._connection.execute("update entity set configured = ? where id = ?", (text, entity_id))

    def remove_entity(self, entity_id: int) -> None:
        self._begin()
        for key in keys_of(entity_id):
            self._forget_queue(key)
            self._connection.execute("delete from session where queue = ?", (key,))
        self._connection.execute("delete from entity where id = ?", (entity_id,))

    # Messages.

    def messages(self, key: int) -> Iterator[Message]:
        """Those of a queue in the order of their numbers."""
        rows = self._connection.execute(
            "select id, enqueued_at, ttl_seconds, delivery_count, place, dead_letter_source, original_number, hops, "
            "content from message where id between ? and ? order by id",
            _ids_of(key),
        )
        for number, enqueued_at, ttl_seconds, count, place, source, original, hops, content in rows:
            yield Message(
                content=replace(parse_message(content), hops=hops),
                sequence_number=number - _id(key, 0),
                enqueued_at=enqueued_at,
                place=Place(place),
                ttl_seconds=ttl_seconds,
                delivery_count=count,
                deferred=place == Place.DEFERRED,
                dead_letter_source=source,
                original_sequence_number=original,
            )

    def seen_ids(self, key: int) -> list[tuple[object, float]]:
        rows = self._connection.execute("select message_id, until from seen_id where queue = ? order by until", (key,))
        return [(codec.decode(message_id)[0], until) for message_id, until in rows]

    def sessions(self, key: int) -> list[tuple[str, bytes, float]]:
        rows = self._connection.execute("select session_id, state, updated_at from session where queue = ?", (key,))
        return rows.fetchall()

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("begin immediate")

    def _write_queue(self, changes: QueueChanges, now: float) -> None:
        key, execute, many = changes.key, self._connection.execute, self._connection.executemany
        if changes.is_purged:
            self._forget_queue(key)
        if changes.gone:
            many("delete from message where id = ?", [(_id(key, number),) for number in changes.gone])
        if changes.written:
            rows = [_row(key, message) for message in changes.written.values()]
            many("insert or replace into message values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        if changes.touched:
            states = [(m.delivery_count, _place(m), _id(key, m.sequence_number)) for m in changes.touched.values()]
            many("update message set delivery_count = ?, place = ? where id = ?", states)
        if changes.seen_ids:
            execute("delete from seen_id where until <= ?", (now,))
            ids = [(key, encode(message_id), until) for message_id, until in changes.seen_ids.items()]
            many("insert or replace into seen_id values (?, ?, ?)", ids)
        for session_id, (state, updated_at) in changes.sessions.items():
            if state is None:
                execute("delete from session where queue = ? and session_id = ?", (key, session_id))
            else:
                execute("insert or replace into session values (?, ?, ?, ?)", (key, session_id, state, updated_at))
        column = "last_dead_number" if key % 2 else "last_number"
        execute(f"update entity set {column} = ? where id = ?", (changes.last_number(), key // 2))  # noqa: S608

    def _forget_queue(self, key: int) -> None:
        self._connection.execute("delete from message where id between ? and ?", _ids_of(key))
        self._connection.execute("delete from seen_id where queue = ?", (key,))


def keys_of(entity_id: int) -> tuple[int, int]:
    """Of an entity's queue and of its dead letters."""
    return 2 * entity_id, 2 * entity_id + 1


def _id(key: int, number: int) -> int:
    return (key << _NUMBER_BITS) + number


def _ids_of(key: int) -> tuple[int, int]:
    return _id(key, 0), _id(key + 1, 0) - 1


def _place(message: Message) -> int:
    if message.place is Place.LOCKED:
        return int(Place.DEFERRED if message.deferred else Place.READY)
    return int(message.place)


def _row(key: int, message: Message) -> Row:
    return (
        _id(key, message.sequence_number),
        message.enqueued_at,
        message.ttl_seconds,
        message.delivery_count,
        _place(message),
        message.dead_letter_source,
        message.original_sequence_number,
        message.content.hops,
        encode_stored(message.content),
    )
