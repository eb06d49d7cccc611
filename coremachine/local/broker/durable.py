"""Durable mode: what the broker confirmed outlives its process, however that ends.

Memory is what the broker works with. The file is written before anything is said to a client: all answers of one turn
of the event loop, to whatever client, share one commit.
"""

import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from coremachine.local.broker.changes import QueueChanges
from coremachine.local.broker.config import BrokerConfig, SubscriptionSettings, TopicSettings
from coremachine.local.broker.durable_error import DurableError
from coremachine.local.broker.durable_file import DurableFile, keys_of
from coremachine.local.broker.entity import Entity
from coremachine.local.broker.entity_text import read_rules, read_settings, rules_text, settings_text
from coremachine.local.broker.queue import Queue
from coremachine.local.broker.rules import Rule, RuleBook
from coremachine.local.broker.session_queue import SessionQueue
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.topic import SUBSCRIPTIONS

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Definition:
    """An entity as the configuration or the file has it; its settings are named by its path."""

    kind: str
    path: str
    settings: QueueSettings
    topic: str | None = None
    rules: list[Rule] | None = None

    @property
    def nature(self) -> str:
        """What cannot change."""
        return f"a {self.kind} with{'' if self.settings.requires_session else 'out'} sessions"

    @property
    def texts(self) -> tuple[str, str]:
        return settings_text(self.settings), rules_text(self.rules)


@dataclass(slots=True)
class _Kept:
    """An entity in the file; its definition is that of the start."""

    entity_id: int
    definition: _Definition
    configured: str | None
    created_at: float
    updated_at: float
    last_numbers: tuple[int, int]


class Keeper:
    """Keeps a namespace in a file.

    Args:
        path: Made where missing.
        clock: Seconds since the Unix epoch.
        later: Calls something in the next turn of the event loop.

    Raises:
        DurableError: The file cannot be used, or an entity in it cannot become what the configuration asks for.
    """

    def __init__(self, path: Path, clock: Callable[[], float], later: Callable[[Callable[[], None]], object]) -> None:
        self.on_failure: Callable[[DurableError], None] | None = None
        self._path = path
        self._clock = clock
        self._later = later
        self._file = DurableFile(path)
        self._kept = {kept.definition.path.lower(): kept for kept in map(_read_entity, self._file.entities())}
        self._rules: dict[str, RuleBook] = {}
        self._dirty: dict[QueueChanges, None] = {}
        self._is_planned = False
        self._failure: DurableError | None = None

    # At the start.

    def merged(self, config: BrokerConfig) -> BrokerConfig:
        """The entities of the file and of the configuration.

        Where both have one, the configuration counts if it has changed since the last start; otherwise the file,
        which has what administration clients changed.
        """
        for wanted in _definitions(config):
            kept = self._kept.get(wanted.path.lower())
            text = json.dumps(wanted.texts)
            if kept is None:
                entity_id = self._add(wanted)
            else:
                entity_id = kept.entity_id
                if kept.configured != text:
                    self._follow(kept, wanted)
            self._file.set_configured(entity_id, text)
        return _config_of([kept.definition for kept in self._kept.values()])

    def _follow(self, kept: _Kept, wanted: _Definition) -> None:
        found = kept.definition
        if found.nature != wanted.nature:
            raise DurableError(self._path, f"'{wanted.path}' to be {found.nature}, as before", wanted.nature)
        kept.definition = wanted
        self._file.change_entity(kept.entity_id, wanted.texts, self._clock())

    def _add(self, wanted: _Definition) -> int:
        now = self._clock()
        topic = None if wanted.topic is None else wanted.topic.lower()
        entity_id = self._file.add_entity(wanted.path.lower(), topic, wanted.kind, wanted.texts, now)
        self._kept[wanted.path.lower()] = _Kept(entity_id, wanted, None, now, now, (0, 0))
        return entity_id

    # What a namespace reports.

    def added(self, kind: str, entity: Entity, topic: str | None = None, rules: RuleBook | None = None) -> None:
        """An entity is made: it gets back what it held, and its changes are kept from now on."""
        name = entity.name.lower()
        if name not in self._kept:
            settings = entity.queue.settings
            self._add(_Definition(kind, entity.name, settings, topic, None if rules is None else list(rules)))
            self._plan()
        kept = self._kept[name]
        entity.created_at, entity.updated_at = kept.created_at, kept.updated_at
        queues = (entity.queue, entity.queue.dead_letters)
        for queue, key, last_number in zip(queues, keys_of(kept.entity_id), kept.last_numbers, strict=True):
            if queue is not None:
                self._restore(queue, key, last_number)
        if rules is not None:
            self._rules[name] = rules
            rules.on_change = lambda: self.changed(entity)

    def _restore(self, queue: Queue, key: int, last_number: int) -> None:
        queue.restore(self._file.messages(key), last_number, self._file.seen_ids(key))
        if isinstance(queue, SessionQueue):
            for session in self._file.sessions(key):
                queue.restore_state(*session)
        queue.changes = QueueChanges(key, lambda: queue.last_number, self._mark)

    def changed(self, entity: Entity) -> None:
        """An entity has other settings or rules."""
        name = entity.name.lower()
        rules = self._rules.get(name)
        texts = settings_text(entity.queue.settings), rules_text(None if rules is None else list(rules))
        self._file.change_entity(self._kept[name].entity_id, texts, entity.updated_at)
        self._plan()

    def removed(self, entity: Entity) -> None:
        """An entity is about to be deleted."""
        for queue in (entity.queue, entity.queue.dead_letters):
            if queue is not None and queue.changes is not None:
                self._dirty.pop(queue.changes, None)
                queue.changes = None
        name = entity.name.lower()
        self._rules.pop(name, None)
        self._file.remove_entity(self._kept.pop(name).entity_id)
        self._plan()

    def commit(self) -> None:
        """Return when everything that has changed is on the disk.

        Raises:
            DurableError: It cannot be written; nothing may be confirmed any more.
        """
        if self._failure is not None:
            raise self._failure
        if not self._dirty and not self._file.has_uncommitted:
            return
        dirty, self._dirty = self._dirty, {}
        try:
            self._file.commit(dirty, self._clock())
        except sqlite3.Error as exc:
            self._failure = DurableError(self._path, "a disk that takes it", str(exc))
            log.error("durable_file_failed", extra={"path": str(self._path), "reason": str(exc)})  # noqa: TRY400
            if self.on_failure is not None:
                self.on_failure(self._failure)
            raise self._failure from exc

    def close(self) -> None:
        """Commit, unless that has failed before, and let go of the file."""
        try:
            if self._failure is None:
                self.commit()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Let go of the file as it was."""
        self._file.close()

    def _mark(self, changes: QueueChanges) -> None:
        self._dirty[changes] = None
        self._plan()

    def _plan(self) -> None:
        # What timers do is said to nobody, but is kept as well.
        if not self._is_planned:
            self._is_planned = True
            self._later(self._commit_planned)

    def _commit_planned(self) -> None:
        self._is_planned = False
        if self._failure is None:
            try:
                self.commit()
            except DurableError:
                log.debug("planned_commit_failed", extra={"path": str(self._path)})


def _read_entity(row: tuple[object, ...]) -> _Kept:
    entity_id, _name, topic, kind, settings, rules, configured, created_at, updated_at, last, last_dead = row
    found = read_settings(str(settings))
    definition = _Definition(
        str(kind), found.name, found, None if topic is None else str(topic), read_rules(str(rules))
    )
    text = None if configured is None else str(configured)
    numbers = int(str(last)), int(str(last_dead))
    return _Kept(int(str(entity_id)), definition, text, float(str(created_at)), float(str(updated_at)), numbers)


def _definitions(config: BrokerConfig) -> list[_Definition]:
    found = [_Definition("queue", settings.name, settings) for settings in config.queues]
    for topic in config.topics:
        name = topic.settings.name
        found.append(_Definition("topic", name, topic.settings))
        for each in topic.subscriptions:
            path = f"{name}/{SUBSCRIPTIONS}/{each.settings.name}"
            rules = None if each.rules is None else list(each.rules)
            found.append(_Definition("subscription", path, replace(each.settings, name=path), name, rules))
    return found


def _config_of(definitions: list[_Definition]) -> BrokerConfig:
    subscriptions: dict[str, list[SubscriptionSettings]] = {}
    for each in definitions:
        if each.topic is not None:
            rules = None if each.rules is None else tuple(each.rules)
            settings = replace(each.settings, name=each.path.rpartition("/")[2])
            subscriptions.setdefault(each.topic.lower(), []).append(SubscriptionSettings(settings, rules))
    topics = [each.settings for each in definitions if each.kind == "topic"]
    return BrokerConfig(
        tuple(each.settings for each in definitions if each.kind == "queue"),
        tuple(TopicSettings(each, tuple(subscriptions.get(each.name.lower(), ()))) for each in topics),
    )
