"""Moves the messages of one entity of this project's broker to one function, over one connection.

A thread of its own receives, renews locks and settles; functions run in the invoker's threads. Messages are asked for
as calls end, so that never more are locked than may run at once. Calls that end while the thread is busy are settled
together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from azure.functions.meta import Datum

from coremachine.local.host.direct.delivery import read_delivery
from coremachine.local.host.direct.receiver import ABANDON, COMPLETE, RELEASE, Delivery, DirectReceiver
from coremachine.local.host.direct.wire import Wire
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import IndexedFunction, ServiceBusTrigger
from coremachine.local.host.message_calls import received_call
from coremachine.local.host.self_check import self_check
from coremachine.local.host.settings import ServiceBusOptions
from coremachine.local.host.trouble import Trouble, Unreadable, back_off

log = logging.getLogger(__name__)

# A silent pump looks about this often; `stop` and calls that end wake it.
_LOOK_SECONDS = 60.0


class Connect(Protocol):
    """Opens a connection; see `Wire`."""

    def __call__(self) -> Wire: ...


@dataclass(slots=True, eq=False)
class _Held:
    """A message whose function runs, or has ended and is not settled yet."""

    receiver: DirectReceiver
    number: int
    token: UUID
    message_id: str = ""
    deliveries_before: int = 0
    # Seconds since 1970: when the lock is to be renewed, None for no more; and until when it is renewed at all.
    renew_at: float | None = None
    renew_until: float = 0.0
    succeeded: bool = False


class DirectPump:
    """As `coremachine.local.host.service_bus.QueuePump`, for this project's broker.

    Args:
        connect: Makes a connection each time that one is needed.
        clock: Seconds since 1970, as the broker's locks have.
    """

    def __init__(
        self,
        function: IndexedFunction,
        trigger: ServiceBusTrigger,
        connect: Connect,
        dispatcher: Dispatcher,
        options: ServiceBusOptions,
        *,
        max_concurrent_calls: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._function, self._trigger, self._dispatcher = function, trigger, dispatcher
        self._connect = connect
        self._limit = max_concurrent_calls
        self._renewal_seconds = options.max_auto_lock_renewal_seconds
        self._auto_complete = options.auto_complete_messages if trigger.auto_complete is None else trigger.auto_complete
        self._clock = clock
        self._trouble = Trouble(trigger.entity, log)
        self._unreadable = Unreadable(function.name, is_dead_letter=trigger.is_dead_letter, log=log)
        self._stopping, self._quiet = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pump-{function.name}", daemon=True)
        self._wire: Wire | None = None
        # Those that run or wait for their settlement, and those of them that have ended.
        self._held: set[_Held] = set()
        self._ended: deque[_Held] = deque()
        # Those that no function can be given, with the time when they are abandoned.
        self._resting: dict[_Held, float] = {}
        self._is_waiting = False

    def start(self) -> None:
        log.info("pump_started function=%s entity=%s calls<=%d", self._function.name, self._trigger.entity, self._limit)
        self._thread.start()

    def stop(self) -> None:
        """Take no more messages. Those in flight go on; `join` waits for them to be settled."""
        self._stopping.set()
        self._wake()

    def quiesce(self, timeout_seconds: float) -> None:
        """After `stop`: wait until the broker sends nothing more."""
        self._quiet.wait(timeout_seconds)

    def join(self, timeout_seconds: float) -> bool:
        """Wait until every message is settled and the connection closed; False when that takes longer."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _wake(self) -> None:
        wire = self._wire
        if wire is not None:
            wire.wake()

    def _run(self) -> None:
        failures = 0
        while not (self._stopping.is_set() and not self._held):
            try:
                with self._connect() as wire:
                    self._wire = wire
                    receiver = DirectReceiver(wire, self._trigger.entity, self._on_refused)
                    failures = 0
                    self._serve(receiver)
            except BaseException as error:  # noqa: BLE001 - a function may raise SystemExit in any thread; it must go on
                self._trouble.report(error)
                self_check.failed(self._trigger.entity, error)
                if self._stopping.is_set():
                    self._give_up_ended(error)
                self._stopping.wait(back_off(failures))
                failures += 1
            finally:
                self._wire = None
        self._quiet.set()

    def _give_up_ended(self, error: BaseException) -> None:
        """Without a connection at the end: the locks of what has ended run out, and it is delivered again."""
        self._quiet.set()
        self._end_rests()
        while self._ended:
            held = self._ended.popleft()
            self._held.discard(held)
            self._on_refused(held, str(error))

    def _serve(self, receiver: DirectReceiver) -> None:
        """Receive and settle until stopped and all is settled."""
        is_asked_to_end = False
        while True:
            rested = self._end_rests()
            self._settle_ended(receiver)
            due = min((at for at in (self._renew(receiver), rested) if at is not None), default=None)
            if not self._stopping.is_set():
                receiver.offer(self._limit - len(self._held))
            elif not is_asked_to_end:
                is_asked_to_end = True
                receiver.drain()
            elif receiver.is_drained:
                self._quiet.set()
                if not self._held and receiver.is_settled:
                    return
            for delivery in receiver.deliveries(self._pause(due)):
                self._begin(receiver, delivery)

    def _pause(self, due: float | None) -> float:
        """How long to wait for the broker; nothing, if a call has ended meanwhile."""
        self._is_waiting = True
        if self._ended:
            return 0.0
        return _LOOK_SECONDS if due is None else max(0.0, min(due - self._clock(), _LOOK_SECONDS))

    def _begin(self, receiver: DirectReceiver, delivery: Delivery) -> None:
        self._trouble.clear()
        held = _Held(receiver, delivery.number, delivery.token)
        if self._stopping.is_set():
            receiver.settle(RELEASE, {delivery.number: held})
            return
        self._held.add(held)
        try:
            outcome = self._submit(held, delivery)
        except Exception as error:  # noqa: BLE001 - a message that cannot be converted fails as a function that raises
            seconds = self._unreadable.report(held.message_id, held.deliveries_before, error)
            self._resting[held] = self._clock() + seconds
            return
        self._unreadable.clear()
        outcome.add_done_callback(partial(self._on_ended, held))

    def _end_rests(self) -> float | None:
        """Let go of what has rested, and of all at the end. When the next one has, in seconds since 1970."""
        if not self._resting:
            return None
        now = self._clock()
        for held, until in list(self._resting.items()):
            if until <= now or self._stopping.is_set():
                del self._resting[held]
                self._ended.append(held)
        return min(self._resting.values(), default=None)

    def _submit(self, held: _Held, delivery: Delivery) -> Future[Datum | None]:
        message, locked_until = read_delivery(delivery.data, delivery.token)
        held.message_id = str(message.properties.get("message_id"))
        held.deliveries_before = message.delivery_count
        now = self._clock()
        held.renew_until = float("inf") if self._renewal_seconds is None else now + self._renewal_seconds
        self._plan_renewal(held, locked_until)
        call = received_call(self._function, self._trigger, message)
        return self._dispatcher.submit(call, f"message on {self._trigger.entity}")

    def _on_ended(self, held: _Held, outcome: Future[Datum | None]) -> None:
        """In the function's thread."""
        held.succeeded = outcome.exception() is None
        self._ended.append(held)
        if self._is_waiting:
            self._is_waiting = False
            self._wake()

    def _settle_ended(self, receiver: DirectReceiver) -> None:
        groups: dict[bytes, dict[int, _Held]] = {COMPLETE: {}, ABANDON: {}}
        self._is_waiting = False
        while self._ended:
            held = self._ended.popleft()
            self._held.discard(held)
            if held.succeeded and not self._auto_complete:
                continue
            outcome = COMPLETE if held.succeeded else ABANDON
            if held.receiver is receiver:
                groups[outcome][held.number] = held
            else:
                receiver.settle_lock(outcome, held.token, partial(self._on_settled_lock, held))
        for outcome, deliveries in groups.items():
            receiver.settle(outcome, deliveries)
            if deliveries:
                self_check.succeeded(self._trigger.entity)

    def _on_settled_lock(self, held: _Held, problem: str | None, _values: dict[str, Any]) -> None:
        if problem is not None:
            self._on_refused(held, problem)

    def _on_refused(self, held: _Held, reason: str) -> None:
        """A warning only: the broker delivers the message again."""
        verb = "complete" if held.succeeded else "abandon"
        name = self._function.name
        log.warning("settle_failed function=%s message_id=%s verb=%s error=%s", name, held.message_id, verb, reason)

    def _renew(self, receiver: DirectReceiver) -> float | None:
        """Ask for longer locks where half of one is over. When the next look is due, in seconds since 1970."""
        times = [held.renew_at for held in self._held if held.renew_at is not None]
        if not times or min(times) > self._clock():
            return min(times, default=None)
        now = self._clock()
        for held in self._held:
            if held.renew_at is not None and held.renew_at <= now:
                held.renew_at = None  # until the answer comes
                receiver.renew(held.token, partial(self._on_renewed, held))
        return min((held.renew_at for held in self._held if held.renew_at is not None), default=None)

    def _on_renewed(self, held: _Held, problem: str | None, values: dict[str, Any]) -> None:
        if held not in self._held:
            return
        if problem is not None:
            name = self._function.name
            log.warning("lock_renewal_failed function=%s message_id=%s error=%s", name, held.message_id, problem)
            return
        log.debug("lock_renewed function=%s message_id=%s", self._function.name, held.message_id)
        self._plan_renewal(held, values["expirations"][0] / 1000)

    def _plan_renewal(self, held: _Held, locked_until: float) -> None:
        """At half of what is left of the lock, unless that is beyond the time for which it is renewed at all."""
        now = self._clock()
        at = now + (locked_until - now) / 2
        held.renew_at = at if now < at <= held.renew_until else None
