"""What a queue does, under a clock that only moves when told to."""

import random
from collections import Counter
from itertools import islice
from uuid import uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coremachine.local.broker import codec
from coremachine.local.broker.message import Content, MessageState
from coremachine.local.broker.queue import Queue
from coremachine.local.broker.stored import AlreadyDead, LockLost, MessageNotFound, Place, QueueSettings
from coremachine.local.broker.timers import DueHeap


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def make_queue(clock, **settings):
    return Queue(QueueSettings(**{"name": "q", "lock_duration_seconds": 60.0} | settings), clock)


def message(number=0, **fields):
    return Content(body=str(number).encode(), **fields)


def receive_body(queue):
    lock = queue.lock_next()
    return None if lock is None else lock.message.content.body


def properties_of(stored):
    return codec.decode(stored.content.application_properties)[0]


def reason_of(dead):
    return codec.decode(dead.content.application_properties)[0]["DeadLetterReason"]


def test_messages_come_in_the_order_they_were_sent(clock):
    queue = make_queue(clock)
    for number in range(3):
        queue.send(message(number))
    assert [receive_body(queue) for _ in range(4)] == [b"0", b"1", b"2", None]


def test_an_abandoned_message_keeps_its_place_and_counts_the_delivery(clock):
    queue = make_queue(clock)
    for number in range(3):
        queue.send(message(number))
    first, second = queue.lock_next(), queue.lock_next()
    queue.abandon(second.token)
    queue.abandon(first.token)
    again = queue.lock_next()
    assert (again.message.content.body, again.message.delivery_count) == (b"0", 1)
    assert [receive_body(queue), receive_body(queue)] == [b"1", b"2"]


def test_a_released_message_does_not_count_the_delivery(clock):
    queue = make_queue(clock, max_delivery_count=1)
    queue.send(message())
    queue.release(queue.lock_next().token)
    assert queue.lock_next().message.delivery_count == 0


def test_a_completed_message_is_gone(clock):
    queue = make_queue(clock)
    queue.send(message())
    queue.complete(queue.lock_next().token)
    counts = queue.counts()
    assert (counts.active, counts.locked, list(queue.peek(0))) == (0, 0, [])


def test_an_expired_lock_gives_the_message_back_and_settles_nothing(clock):
    queue = make_queue(clock)
    queue.send(message())
    lock = queue.lock_next()
    clock.advance(59.9)
    assert queue.lock_next() is None
    clock.advance(0.2)
    with pytest.raises(LockLost):
        queue.complete(lock.token)
    assert queue.lock_next().message.delivery_count == 1


def test_a_renewed_lock_holds_for_another_duration(clock):
    queue = make_queue(clock)
    queue.send(message())
    lock = queue.lock_next()
    clock.advance(50)
    assert queue.renew(lock.token) == clock.now + 60
    clock.advance(50)
    queue.complete(lock.token)
    assert queue.counts().active == 0


def test_a_lost_lock_cannot_be_renewed(clock):
    queue = make_queue(clock)
    queue.send(message())
    lock = queue.lock_next()
    clock.advance(61)
    with pytest.raises(LockLost):
        queue.renew(lock.token)


@pytest.mark.parametrize("action", ["complete", "abandon", "release", "defer", "renew"])
def test_a_lock_can_be_settled_once(clock, action):
    queue = make_queue(clock)
    queue.send(message())
    token = queue.lock_next().token
    queue.complete(token)
    with pytest.raises(LockLost, match=str(token)):
        getattr(queue, action)(token)


def test_too_many_deliveries_end_in_the_dead_letter_queue(clock):
    queue = make_queue(clock, max_delivery_count=2)
    queue.send(message())
    queue.abandon(queue.lock_next().token)
    queue.lock_next()
    clock.advance(61)
    assert queue.lock_next() is None
    dead = queue.dead_letters.lock_next().message
    assert (reason_of(dead), dead.dead_letter_source) == ("MaxDeliveryCountExceeded", "q")
    assert queue.counts().dead_letter == 1


def test_the_dead_letter_queue_never_gives_up_nor_expires_a_message(clock):
    queue = make_queue(clock, max_delivery_count=1, default_ttl_seconds=100.0)
    queue.send(message())
    queue.dead_letter(queue.lock_next().token, "broken", "cannot be read")
    for _ in range(5):
        queue.dead_letters.abandon(queue.dead_letters.lock_next().token)
    clock.advance(10_000)
    assert queue.dead_letters.lock_next().message.content.body == b"0"


def test_a_dead_letter_is_not_dead_lettered_again_and_stays_locked(clock):
    """Given back at once, it would come to the same receiver again and again."""
    queue = make_queue(clock)
    queue.send(message())
    queue.dead_letter(queue.lock_next().token, "broken", None)
    dead = queue.dead_letters
    token = dead.lock_next().token
    with pytest.raises(AlreadyDead):
        dead.dead_letter(token, "again", None)
    assert dead.lock_next() is None
    dead.complete(token)


def test_properties_are_changed_when_a_message_is_given_back(clock):
    queue = make_queue(clock)
    queue.send(message())
    change = [(codec.string("tries"), codec.int32(1))]
    queue.abandon(queue.lock_next().token, change)
    assert properties_of(queue.lock_next().message) == {"tries": 1}


def test_properties_are_changed_when_a_message_is_set_aside_or_dead_lettered(clock):
    queue = make_queue(clock)
    number = queue.send(message())
    queue.defer(queue.lock_next().token, [(codec.string("tries"), codec.int32(1))])
    [lock] = queue.lock_deferred([number])
    assert properties_of(lock.message) == {"tries": 1}
    queue.dead_letter(lock.token, "why", None, [(codec.string("tries"), codec.string("two"))])
    assert properties_of(queue.dead_letters.lock_next().message) == {"tries": "two", "DeadLetterReason": "why"}


def test_the_oldest_ready_messages_are_deleted_up_to_a_time(clock):
    queue = make_queue(clock)
    for number in range(4):
        queue.send(message(number))
        clock.advance(1)
    queue.lock_next()
    assert queue.delete_oldest(10, clock.now - 2) == 2
    assert receive_body(queue) == b"3"


def test_an_expired_message_is_dropped(clock):
    queue = make_queue(clock, default_ttl_seconds=100.0)
    queue.send(message(1, ttl_seconds=10.0))
    queue.send(message(2))
    clock.advance(11)
    assert queue.counts().active == 1
    assert receive_body(queue) == b"2"
    assert queue.counts().dead_letter == 0


def test_the_queues_lifetime_limits_the_messages(clock):
    queue = make_queue(clock, default_ttl_seconds=10.0)
    queue.send(message(1, ttl_seconds=1000.0))
    clock.advance(11)
    assert queue.lock_next() is None


def test_an_expired_message_is_dead_lettered_when_the_queue_says_so(clock):
    queue = make_queue(clock, default_ttl_seconds=10.0, dead_letter_on_expiration=True)
    queue.send(message())
    clock.advance(11)
    assert queue.counts().dead_letter == 1
    assert reason_of(queue.dead_letters.lock_next().message) == "TTLExpiredException"


def test_a_locked_message_expires_only_when_it_comes_back(clock):
    queue = make_queue(clock, default_ttl_seconds=10.0)
    queue.send(message(1))
    queue.send(message(2))
    kept, returned = queue.lock_next(), queue.lock_next()
    clock.advance(11)
    queue.complete(kept.token)
    queue.abandon(returned.token)
    assert queue.counts().active == 0


def test_a_scheduled_message_appears_on_time_under_a_new_number(clock):
    queue = make_queue(clock)
    number = queue.send(message(scheduled_at=clock.now + 30))
    assert (queue.counts().scheduled, queue.lock_next()) == (1, None)
    clock.advance(30)
    active = queue.lock_next().message
    assert active.sequence_number > number
    assert active.enqueued_at == clock.now


def test_a_message_scheduled_in_the_past_is_active_at_once(clock):
    queue = make_queue(clock)
    queue.send(message(scheduled_at=clock.now - 1))
    assert receive_body(queue) == b"0"


def test_a_scheduled_message_lives_from_its_activation(clock):
    queue = make_queue(clock)
    queue.send(message(scheduled_at=clock.now + 100, ttl_seconds=10.0))
    clock.advance(105)
    assert receive_body(queue) == b"0"


def test_a_cancelled_message_never_appears(clock):
    queue = make_queue(clock)
    number = queue.send(message(scheduled_at=clock.now + 30))
    queue.cancel_scheduled([number])
    clock.advance(31)
    assert queue.lock_next() is None
    with pytest.raises(MessageNotFound, match=str(number)):
        queue.cancel_scheduled([number])


def test_cancelling_is_all_or_nothing(clock):
    queue = make_queue(clock)
    number = queue.send(message(scheduled_at=clock.now + 30))
    with pytest.raises(MessageNotFound):
        queue.cancel_scheduled([number, 999])
    assert queue.counts().scheduled == 1


def test_a_duplicate_is_dropped_within_the_window_even_after_completion(clock):
    queue = make_queue(clock, duplicate_window_seconds=20.0)
    queue.send(message(1, message_id="a"))
    queue.complete(queue.lock_next().token)
    clock.advance(19)
    queue.send(message(2, message_id="a"))
    assert queue.lock_next() is None
    clock.advance(2)
    queue.send(message(3, message_id="a"))
    assert receive_body(queue) == b"3"


def test_scheduled_messages_take_part_in_duplicate_detection(clock):
    queue = make_queue(clock, duplicate_window_seconds=20.0)
    queue.send(message(1, message_id="a", scheduled_at=clock.now + 10))
    queue.send(message(2, message_id="a"))
    assert (queue.counts().scheduled, queue.counts().active) == (1, 0)


def test_messages_without_id_are_never_duplicates(clock):
    queue = make_queue(clock, duplicate_window_seconds=20.0)
    queue.send(message(1))
    queue.send(message(2))
    assert queue.counts().active == 2


def test_without_detection_the_same_id_may_come_twice(clock):
    queue = make_queue(clock)
    queue.send(message(1, message_id="a"))
    queue.send(message(2, message_id="a"))
    assert queue.counts().active == 2


def test_a_deferred_message_comes_back_by_its_number_alone(clock):
    queue = make_queue(clock, default_ttl_seconds=10.0)
    number = queue.send(message())
    queue.defer(queue.lock_next().token)
    clock.advance(11)
    assert (queue.lock_next(), queue.counts().deferred) == (None, 1)
    [lock] = queue.lock_deferred([number])
    assert lock.message.broker_properties().state is MessageState.DEFERRED
    with pytest.raises(MessageNotFound):
        queue.lock_deferred([number])
    queue.complete(lock.token)
    assert queue.counts().deferred == 0


def test_an_abandoned_deferred_message_stays_deferred(clock):
    queue = make_queue(clock)
    number = queue.send(message())
    queue.defer(queue.lock_next().token)
    [lock] = queue.lock_deferred([number])
    queue.abandon(lock.token)
    assert (queue.lock_next(), queue.counts().deferred) == (None, 1)
    assert [each.delivery_count for each in queue.take_deferred([number])] == [2]


def test_peeking_sees_everything_and_changes_nothing(clock):
    queue = make_queue(clock)
    numbers = [queue.send(message(each)) for each in range(3)]
    scheduled = queue.send(message(scheduled_at=clock.now + 30))
    queue.lock_next()
    before = queue.counts()
    assert [each.sequence_number for each in queue.peek(0)] == [*numbers, scheduled]
    assert [each.sequence_number for each in islice(queue.peek(numbers[1]), 2)] == numbers[1:]
    assert queue.counts() == before


def test_purging_forgets_locks_and_known_ids_too(clock):
    queue = make_queue(clock, duplicate_window_seconds=20.0)
    queue.send(message(1, message_id="a"))
    queue.send(message(2, message_id="b", scheduled_at=clock.now + 5))
    lock = queue.lock_next()
    assert queue.purge() == 2
    with pytest.raises(LockLost):
        queue.complete(lock.token)
    assert queue.next_due is None
    queue.send(message(3, message_id="a"))
    assert receive_body(queue) == b"3"


def test_expiring_locks_on_demand_gives_all_messages_back(clock):
    queue = make_queue(clock)
    for number in range(2):
        queue.send(message(number))
        queue.lock_next()
    assert queue.expire_locks() == 2
    assert queue.counts().active == 2


def test_the_next_due_time_is_that_of_the_earliest_event(clock):
    queue = make_queue(clock, default_ttl_seconds=100.0)
    queue.send(message(1))
    assert queue.next_due == clock.now + 100
    token = queue.lock_next().token
    assert queue.next_due == clock.now + 60
    queue.complete(token)
    assert queue.next_due is None


def test_what_lost_its_meaning_does_not_pile_up():
    live = set()
    heap = DueHeap(lambda _due, key: key in live)
    for key in range(10_000):
        heap.add(float(key), key)
    live.add(10_000)
    heap.add(10_000.0, 10_000)
    assert len(heap) < 2_000
    assert heap.next_due == 10_000.0
    assert heap.take_due(9_999.0) is None
    assert heap.take_due(10_000.0) == 10_000


def test_settled_messages_leave_no_times_behind(clock):
    queue = make_queue(clock)
    for number in range(5_000):
        queue.send(message(number))
        queue.complete(queue.lock_next().token)
    assert len(queue._message_times) <= 1_000
    assert len(queue._lock_ends) <= 1_000


def test_abandoned_messages_leave_no_times_behind(clock):
    queue = make_queue(clock, max_delivery_count=None)
    queue.send(message())
    for _ in range(5_000):
        queue.abandon(queue.lock_next().token)
    assert len(queue._message_times) <= 1_000


def test_expired_messages_are_freed_without_a_receiver(clock):
    queue = make_queue(clock)
    for number in range(5_000):
        queue.send(message(number, ttl_seconds=10.0))
    clock.advance(11)
    queue.tick()
    assert len(queue._messages) == 0
    assert len(queue._ready._fresh) <= 1_000


def test_much_that_expires_at_once_takes_several_ticks_and_none_is_delivered(clock):
    queue = make_queue(clock)
    for number in range(10_005):
        queue.send(message(number, ttl_seconds=10.0))
    clock.advance(11)
    queue.tick()
    assert queue.next_due is not None
    assert queue.lock_next() is None
    assert queue.counts().active == 0


def test_random_failures_lose_no_message(clock):
    """Every message ends completed or dead-lettered, exactly once, whatever happens to its locks."""
    chance = random.Random(7)
    queue = make_queue(clock, max_delivery_count=5)
    for number in range(200):
        queue.send(message(number))
    ended = Counter()
    while (counts := queue.counts()).active + counts.locked:
        lock = queue.lock_next()
        if lock is None:
            clock.advance(61)
            continue
        action = chance.choice(["complete", "abandon", "forget", "release"])
        if action == "complete":
            ended[lock.message.content.body] += 1
        if action != "forget":
            getattr(queue, action)(lock.token)
    while (lock := queue.dead_letters.lock_next()) is not None:
        ended[lock.message.content.body] += 1
    assert ended == Counter(str(number).encode() for number in range(200))


class QueueMachine(RuleBasedStateMachine):
    """Whatever the order of calls, places add up, and ready messages come in order of their numbers."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.queue = make_queue(self.clock, max_delivery_count=3, default_ttl_seconds=500.0)
        self.locks = []

    @rule(delay=st.none() | st.integers(1, 100), ttl=st.none() | st.integers(1, 200))
    def send(self, delay, ttl):
        scheduled_at = None if delay is None else self.clock.now + delay
        self.queue.send(message(scheduled_at=scheduled_at, ttl_seconds=ttl))

    @rule()
    def receive(self):
        ready = [each for each in self.queue.peek(0) if each.place is Place.READY]
        lock = self.queue.lock_next()
        assert (lock and lock.message) == (ready[0] if ready else None)
        if lock:
            self.locks.append(lock)

    @precondition(lambda self: self.locks)
    @rule(action=st.sampled_from(["complete", "abandon", "release", "defer", "renew"]), data=st.data())
    def settle(self, action, data):
        lock = data.draw(st.sampled_from(self.locks))
        held = self.queue.holds(lock.token)
        if held:
            getattr(self.queue, action)(lock.token)
            assert self.queue.holds(lock.token) == (action == "renew")
        else:
            with pytest.raises(LockLost):
                getattr(self.queue, action)(lock.token)

    @rule(seconds=st.integers(1, 120))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def settle_nonsense(self):
        with pytest.raises(LockLost):
            self.queue.complete(uuid4())

    @invariant()
    def places_add_up(self):
        counts = self.queue.counts()
        places = Counter(each.place for each in self.queue.peek(0))
        assert (counts.active, counts.locked, counts.deferred, counts.scheduled) == (
            places[Place.READY],
            places[Place.LOCKED],
            places[Place.DEFERRED],
            places[Place.SCHEDULED],
        )
        assert places[Place.GONE] == 0
        assert len(self.queue._locks) == counts.locked


TestQueueMachine = QueueMachine.TestCase
