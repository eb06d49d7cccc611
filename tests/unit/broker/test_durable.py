"""Durable mode: what is in the file after a crash is what was committed, whatever happened before."""

import shutil
import sqlite3
from dataclasses import replace
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coremachine.local.broker import codec
from coremachine.local.broker.config import BrokerConfig, SubscriptionSettings, TopicSettings
from coremachine.local.broker.durable import Keeper
from coremachine.local.broker.durable_error import DurableError
from coremachine.local.broker.message import encode_stored, parse_message
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.rules import CorrelationFilter, Rule
from coremachine.local.broker.sql_action import SqlAction, encode
from coremachine.local.broker.sql_filter import SqlFilter
from coremachine.local.broker.stored import Place, QueueSettings

CONFIG = BrokerConfig(
    (
        QueueSettings(
            name="Orders", max_delivery_count=3, duplicate_window_seconds=60.0, dead_letter_on_expiration=True
        ),
        QueueSettings(name="talks", requires_session=True),
        QueueSettings(name="source", forward_to="Orders"),
    ),
    (
        TopicSettings(
            QueueSettings(name="news"),
            (
                SubscriptionSettings(QueueSettings(name="all")),
                SubscriptionSettings(
                    QueueSettings(name="red"), (Rule("red", SqlFilter("colour = 'red'"), SqlAction("SET seen = 1")),)
                ),
            ),
        ),
    ),
)
NAMES = ("orders", "talks", "source", "news", "made")


class Crash:
    """A namespace in a file. `restarted` is what a broker would find that starts after this one was killed."""

    def __init__(self, folder, config=CONFIG):
        self.now = 1_000_000.0
        self.folder = folder
        self.config = config
        self.copies = count()
        self.keeper, self.namespace = self.start(folder / "broker.db")
        self.committed = [snapshot(self.namespace)]

    def start(self, path, config=None):
        keeper = Keeper(path, lambda: self.now, lambda _action: None)
        try:
            namespace = Namespace.of(
                keeper.merged(config or self.config), lambda: self.now, lambda _delay, _action: Alarm(), keeper
            )
            keeper.commit()
        except BaseException:
            keeper.abandon()
            raise
        return keeper, namespace

    def commit(self):
        self.namespace.commit()
        self.committed.append(snapshot(self.namespace))

    def restarted(self, config=None, lost=0):
        """The namespace of a copy of the files; the log may lack bytes at its end."""
        target = self.folder / f"copy-{next(self.copies)}.db"
        shutil.copy(self.folder / "broker.db", target)
        log = self.folder / "broker.db-wal"
        target.with_name(target.name + "-wal").write_bytes(log.read_bytes()[: max(0, log.stat().st_size - lost)])
        keeper, namespace = self.start(target, config)
        keeper.close()
        return namespace

    def close(self):
        self.keeper.abandon()


class Alarm:
    def cancel(self):
        pass


@pytest.fixture
def crash(tmp_path):
    made = Crash(tmp_path)
    yield made
    made.close()


def snapshot(namespace):
    """All that must survive."""
    found = {}
    for entity in [*namespace.topics, *namespace.entities]:
        subscription = namespace.find_subscription(entity.name)
        rules = [(each.name, each.filter, each.action) for each in subscription[1].rules] if subscription else []
        shown = [(name, str(vars_of(condition)), action and action.expression) for name, condition, action in rules]
        found[entity.name] = (entity.queue.settings, shown, *map(of_queue, (entity.queue, entity.queue.dead_letters)))
    return found


def vars_of(condition):
    return condition.expression if isinstance(condition, SqlFilter) else condition


def of_queue(queue):
    messages = {
        each.sequence_number: (
            "aside" if each.deferred else "scheduled" if each.place is Place.SCHEDULED else "ready",
            each.delivery_count,
            each.enqueued_at,
            each.ttl_seconds,
            each.dead_letter_source,
            each.original_sequence_number,
            each.content.hops,
            encode_stored(each.content),
        )
        for each in queue._messages.values()
    }
    sessions = {name: (each.state, each.updated_at) for name, each in getattr(queue, "_sessions", {}).items()}
    states = {name: found for name, found in sessions.items() if found[0] is not None}
    return messages, queue.last_number, states


def message(number, *, session=None, scheduled=None, ttl=None, colour="blue"):
    fields = [codec.string(f"id-{number}"), *[codec.NULL] * 9, codec.NULL if session is None else codec.string(session)]
    ttl_field = codec.NULL if ttl is None else codec.uint(ttl * 1000)
    sections = [codec.described(0x70, codec.list_of((codec.NULL, codec.NULL, ttl_field)))]
    if scheduled is not None:
        pair = (codec.symbol("x-opt-scheduled-enqueue-time"), codec.timestamp(scheduled))
        sections.append(codec.described(0x72, codec.map_of([pair])))
    sections.append(codec.described(0x73, codec.list_of(fields)))
    sections.append(codec.described(0x74, codec.map_of([(codec.string("colour"), codec.string(colour))])))
    sections.append(codec.described(0x75, codec.binary(b"body-%d" % number)))
    return parse_message(b"".join(sections))


# Each operation is a function of the crash and of two small numbers.


def send(crash, first, second):
    entity = crash.namespace.find(NAMES[first % 5])
    if entity is not None:
        entity.send([message(second, session=f"s{second % 3}", colour="red" if second % 2 else "blue")])


def send_for_a_while(crash, first, second):
    entity = crash.namespace.get(NAMES[first % 2])
    entity.send([message(second, session="s1", ttl=5 + second)])


def schedule(crash, first, second):
    entity = crash.namespace.get("news" if first % 2 else "orders")
    entity.send([message(second, scheduled=crash.now + 1 + second)])


def receive(crash, first, second):
    """Lock the next message and settle it, or keep the lock."""
    path = ("orders", "news/Subscriptions/all", "news/subscriptions/red", "orders/$DeadLetterQueue")[first % 4]
    queue = crash.namespace.get(path).queue
    lock = queue.lock_next()
    changes = [(codec.string("changed"), codec.string("yes"))]
    if lock is None:
        return
    settle = [
        lambda: queue.complete(lock.token),
        lambda: queue.abandon(lock.token),
        lambda: queue.abandon(lock.token, changes),
        lambda: queue.defer(lock.token, changes),
        lambda: queue.release(lock.token),
        lambda: queue.dead_letter(lock.token, "why", None) if first % 4 != 3 else None,
        lambda: None,
    ]
    settle[second % 7]()


def take_deferred(crash, first, second):
    queue = crash.namespace.get("orders").queue
    aside = [each.sequence_number for each in queue.peek(1) if each.place is Place.DEFERRED]
    if aside:
        lock = queue.lock_deferred(aside[:1])[0]
        (queue.complete if first % 2 else queue.abandon)(lock.token)


def talk(crash, first, second):
    """Hold a session: its state, and one message."""
    queue = crash.namespace.get("talks").queue
    session = f"s{first % 3}"
    _, _ = holder = queue.accept(session, lambda: None)
    queue.set_state(session, b"state-%d" % second if second % 3 else None)
    lock = queue.lock_next_of(session)
    if lock is not None:
        (queue.complete if second % 2 else queue.abandon)(lock.token)
    queue.hand_back(session, holder[0])


def purge(crash, first, second):
    path = ("orders", "talks", "orders/$DeadLetterQueue")[first % 3]
    crash.namespace.get(path).queue.purge()


def make_or_remove(crash, first, second):
    if crash.namespace.find("made") is None:
        crash.namespace.add_queue(QueueSettings(name="made", lock_duration_seconds=5.0 + second))
    else:
        crash.namespace.remove("MADE")


def change_rules(crash, first, second):
    rules = crash.namespace.find_subscription("news/Subscriptions/all")[1].rules
    if not rules.remove(f"r{first}"):
        rules.add(Rule(f"r{first}", CorrelationFilter({"label": "x"}, {"n": second, "t": "text"}), None))


def change_settings(crash, first, second):
    entity = crash.namespace.get("orders")
    crash.namespace.change(entity, replace(entity.queue.settings, default_ttl_seconds=100.0 + second))


def let_time_pass(crash, first, second):
    crash.now += 1 + 3 * second
    for entity in crash.namespace.entities:
        entity.queue.tick()
    crash.namespace.get("news").queue.tick()


def commit(crash, first, second):
    crash.commit()


OPERATIONS = [
    *[send] * 3, send_for_a_while, schedule, *[receive] * 3, take_deferred, talk, purge, make_or_remove, change_rules,
    change_settings, let_time_pass, *[commit] * 3,
]  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 11), st.integers(0, 11)), max_size=40)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_a_crash_leaves_what_was_committed(tmp_path_factory, steps):
    crash = Crash(tmp_path_factory.mktemp("crash"))
    try:
        for operation, first, second in steps:
            operation(crash, first, second)
        assert snapshot(crash.restarted()) == crash.committed[-1]
        crash.commit()
        assert snapshot(crash.restarted()) == snapshot(crash.namespace)
    finally:
        crash.close()


def test_a_torn_end_of_the_log_leaves_an_earlier_commit(crash):
    for number in range(12):
        send(crash, 0, number)
        crash.commit()
    size = (crash.folder / "broker.db-wal").stat().st_size
    found = [crash.committed.index(snapshot(crash.restarted(lost=lost))) for lost in range(1, size // 2, 4999)]
    assert found == sorted(found, reverse=True)
    assert found[0] == len(crash.committed) - 2


def test_numbers_of_messages_that_are_gone_are_not_given_again(crash):
    queue = crash.namespace.get("orders").queue
    for number in range(5):
        queue.send(message(number))
        queue.complete(queue.lock_next().token)
    crash.commit()
    assert crash.restarted().get("orders").queue.send(message(9)) == 6


def test_duplicates_are_found_after_a_crash_too(crash):
    crash.namespace.get("orders").send([message(1)])
    crash.commit()
    again = crash.restarted().get("orders").queue
    again.send(message(1))
    assert again.counts().active == 1
    crash.now += 61
    later = crash.restarted().get("orders").queue
    later.send(message(1))
    assert later.counts().active == 2


def test_a_message_that_came_and_went_is_not_written(crash):
    queue = crash.namespace.get("source").queue
    queue.forward = None
    queue.send(message(1))
    assert queue.changes.written
    queue.take_next()
    assert not queue.changes.written
    assert not queue.changes.gone


def test_what_was_scheduled_becomes_active_after_a_crash(crash):
    crash.namespace.get("news").send([message(1, scheduled=crash.now + 10)])
    crash.commit()
    namespace = crash.restarted()
    crash.now += 11
    namespace.get("news").queue.tick()
    assert namespace.get("news/subscriptions/all").queue.counts().active == 1


def test_what_was_delayed_by_a_test_becomes_active_after_a_crash(crash):
    crash.namespace.faults.delay(1, 10.0)
    crash.namespace.get("orders").send(crash.namespace.faults.applied([message(1)], "orders"))
    crash.commit()
    namespace = crash.restarted()
    assert namespace.get("orders").queue.counts().scheduled == 1
    crash.now += 11
    namespace.get("orders").queue.tick()
    assert namespace.get("orders").queue.counts().active == 1


def changed_config(**changes):
    return BrokerConfig((replace(CONFIG.queues[0], **changes), *CONFIG.queues[1:]), CONFIG.topics)


def test_what_administration_changed_counts_until_the_configuration_changes(crash):
    entity = crash.namespace.get("orders")
    crash.namespace.change(entity, replace(entity.queue.settings, max_delivery_count=7))
    crash.namespace.add_queue(QueueSettings(name="made"))
    crash.commit()
    same = crash.restarted()
    assert same.get("orders").queue.settings.max_delivery_count == 7
    other = crash.restarted(changed_config(max_delivery_count=5))
    assert other.get("orders").queue.settings.max_delivery_count == 5
    assert other.find("made") is not None


def test_a_queue_cannot_become_one_of_sessions(crash):
    crash.commit()
    expected = "expected 'Orders' to be a queue without sessions, as before, found: a queue with sessions"
    with pytest.raises(DurableError, match=expected):
        crash.restarted(changed_config(requires_session=True))


def test_a_file_is_used_by_one_broker(crash):
    with pytest.raises(DurableError, match="expected a file that no other broker uses"):
        crash.start(crash.folder / "broker.db")


@pytest.mark.parametrize("other", ["text", "database", "newer", "folder"])
def test_another_file_is_refused_and_not_changed(tmp_path, other):
    path = tmp_path / "other.db"
    if other == "text":
        path.write_text("not a database, but long enough to be read as the head of one: " + "x" * 100)
    elif other == "folder":
        path.mkdir()
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("create table theirs (a)")
            connection.execute(f"pragma user_version = {9 if other == 'newer' else 0}")
        connection.close()
    with pytest.raises(DurableError, match=r"durable file .*other.db: expected"):
        Keeper(path, lambda: 0.0, lambda _action: None)
    if other == "database":
        with sqlite3.connect(path) as connection:
            assert [row[0] for row in connection.execute("select name from sqlite_master")] == ["theirs"]
        connection.close()


def test_nothing_is_committed_any_more_once_a_commit_has_failed(crash):
    failures = []
    crash.keeper.on_failure = failures.append
    crash.namespace.get("orders").send([message(1)])
    # A disk that is full.
    crash.keeper._file._connection.execute("pragma query_only = on")
    for _ in range(2):
        with pytest.raises(DurableError, match="expected a disk that takes it"):
            crash.namespace.commit()
    assert len(failures) == 1
    assert snapshot(crash.restarted()) == crash.committed[-1]


def test_a_file_that_was_mostly_given_free_shrinks_at_the_next_start(crash):
    queue = crash.namespace.get("orders").queue
    for number in range(200):
        queue.send(replace(message(number), body=b"\x00\x53\x75\xb0" + (8000).to_bytes(4, "big") + bytes(8000)))
    crash.commit()
    queue.purge()
    crash.commit()
    path = crash.folder / "broker.db"
    crash.keeper.close()
    before = path.stat().st_size
    crash.keeper, crash.namespace = crash.start(path)
    crash.keeper.close()
    assert path.stat().st_size < before / 10


def test_every_type_of_a_correlation_filter_survives(crash):
    times = {"at": codec.Moment(5), "for": codec.Span(7)}
    values = {"i": 5, "f": 2.5, "b": True, "t": "text", "raw": b"\0\1", "id": UUID(int=5)} | times
    rules = crash.namespace.find_subscription("news/Subscriptions/all")[1].rules
    rules.replace(Rule("typed", CorrelationFilter({"label": "x"}, values)))
    crash.commit()
    [_, typed] = crash.restarted().find_subscription("news/Subscriptions/all")[1].rules
    assert typed.filter == CorrelationFilter({"label": "x"}, values)
    # 5 is 5.0 and True is 1 for Python.
    assert {name: encode(typed.filter.properties[name]) for name in values} == {k: encode(v) for k, v in values.items()}


def test_an_entity_that_is_removed_leaves_nothing(crash):
    make_or_remove(crash, 0, 0)
    crash.namespace.get("made").send([message(1)])
    crash.commit()
    crash.namespace.remove("news")
    make_or_remove(crash, 0, 0)
    crash.commit()
    make_or_remove(crash, 0, 0)
    crash.commit()
    namespace = crash.restarted()
    # The configuration names the topic: it is there again, empty.
    assert namespace.get("news").queue.last_number == 0
    assert namespace.get("made").queue.last_number == 0
    with pytest.raises(AmqpError):
        namespace.get("news/Subscriptions/none")
