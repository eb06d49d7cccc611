"""A queue of sessions: one receiver at a time has all messages of a session, in their order."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from coremachine.local.broker.message import Content
from coremachine.local.broker.queue import Queue
from coremachine.local.broker.ready import ReadyList
from coremachine.local.broker.stored import (
    Lock,
    Message,
    Place,
    QueueSettings,
    SessionLockLost,
    SessionRequired,
    SessionTaken,
)
from coremachine.local.broker.timers import DueHeap


@dataclass(slots=True, eq=False)
class MessageSession:
    """A session: its ready messages, its state, and who holds it.

    Attributes:
        held: The tokens of the messages that its holder has.
        on_lost: Called when its holder loses it.
    """

    ready: ReadyList = field(default_factory=ReadyList)
    state: bytes | None = None
    updated_at: float = 0.0
    holder: object | None = None
    locked_until: float = 0.0
    held: dict[UUID, None] = field(default_factory=dict)
    on_lost: Callable[[], None] | None = None


class SessionQueue(Queue):
    """As `Queue`, with messages by session id. The lock of a session is that of its messages too."""

    def __init__(self, settings: QueueSettings, clock: Callable[[], float]) -> None:
        super().__init__(settings, clock)
        self._sessions: dict[str, MessageSession] = {}
        self._woken: set[str] = set()
        self._session_ends: DueHeap[str] = DueHeap(self._is_session_end)

    def check(self, content: Content) -> None:
        if content.session_id is None:
            raise SessionRequired(self.settings.name)

    def accept(self, session_id: str, on_lost: Callable[[], None]) -> tuple[object, float]:
        """Lock a session, whether it has messages or not; returns its holder's key and until when.

        Raises:
            SessionTaken: Another receiver has it.
        """
        self.tick()
        session = self._session(session_id)
        if session.holder is not None:
            raise SessionTaken(session_id)
        session.holder, session.on_lost = object(), on_lost
        return session.holder, self._extend(session_id, session)

    def next_free(self) -> str | None:
        """The free session with the oldest ready message."""
        self.tick()
        best: tuple[int, str] | None = None
        for session_id, session in list(self._sessions.items()):
            if session.holder is not None:
                continue
            first = session.ready.first()
            if first is None:
                self._forget_if_empty(session_id, session)
            elif best is None or first.sequence_number < best[0]:
                best = (first.sequence_number, session_id)
        return best[1] if best else None

    def hand_back(self, session_id: str, holder: object) -> None:
        """Give a session up; its messages come back without counting the delivery. Later calls do nothing."""
        session = self._sessions.get(session_id)
        if session is not None and session.holder is holder:
            for token in list(session.held):
                self.release(token)
            self._free(session_id, session)

    def renew_session(self, session_id: str) -> float:
        """Hold a session for another lock duration; returns until when.

        Raises:
            SessionLockLost: Nobody holds it.
        """
        return self._extend(session_id, self._held_session(session_id))

    def state_of(self, session_id: str) -> bytes | None:
        session = self._sessions.get(session_id)
        return session.state if session else None

    def set_state(self, session_id: str, state: bytes | None) -> None:
        """Keep something with a session.

        Raises:
            SessionLockLost: Nobody holds it.
        """
        session = self._held_session(session_id)
        session.state, session.updated_at = state, self._clock()
        if self.changes is not None:
            self.changes.session_changed(session_id, state, session.updated_at)

    def restore_state(self, session_id: str, state: bytes, updated_at: float) -> None:
        """A session's state as it was before."""
        session = self._session(session_id)
        session.state, session.updated_at = state, updated_at

    def session_ids(self, updated_after: float | None) -> list[str]:
        """Sessions whose state was set after a time; without a time, those with messages."""
        self.tick()
        if updated_after is None:
            return sorted({each.content.session_id or "" for each in self._messages.values()})
        return [name for name, session in self._sessions.items() if session.updated_at > updated_after]

    def lock_next_of(self, session_id: str) -> Lock | None:
        self.tick()
        message = self._pop_unexpired(self._session(session_id).ready)
        return self._lock(message) if message else None

    def take_next_of(self, session_id: str) -> Message | None:
        self.tick()
        message = self._pop_unexpired(self._session(session_id).ready)
        if message is not None:
            self._remove(message, popped=True)
        return message

    def take_woken(self) -> set[str]:
        """The sessions that may have got a ready message since the last call."""
        woken, self._woken = self._woken, set()
        return woken

    def tick(self) -> None:
        super().tick()
        now = self._clock()
        while (session_id := self._session_ends.take_due(now)) is not None:
            self._lose(session_id)

    @property
    def earliest(self) -> float:
        return min(super().earliest, self._session_ends.earliest)

    @property
    def next_due(self) -> float | None:
        dues = [due for due in (super().next_due, self._session_ends.next_due) if due is not None]
        return min(dues, default=None)

    def expire_locks(self) -> int:
        held = [name for name, session in self._sessions.items() if session.holder is not None]
        count = len(self._locks)
        for session_id in held:
            self._lose(session_id)
        return count + len(held)

    def purge(self) -> int:
        for session in self._sessions.values():
            session.held.clear()
        return super().purge()

    def reset(self) -> None:
        """Be as new: no session is locked or has a state either."""
        super().reset()
        self.expire_locks()
        for session_id, session in self._sessions.items():
            if session.state is not None and self.changes is not None:
                self.changes.session_changed(session_id, None, self._clock())
        self._sessions.clear()

    def _session(self, session_id: str) -> MessageSession:
        return self._sessions.setdefault(session_id, MessageSession())

    def _held_session(self, session_id: str) -> MessageSession:
        self.tick()
        session = self._sessions.get(session_id)
        if session is None or session.holder is None:
            raise SessionLockLost(f"session '{session_id}'")
        return session

    def _is_session_end(self, due: float, session_id: str) -> bool:
        session = self._sessions.get(session_id)
        return session is not None and session.holder is not None and session.locked_until == due

    def _extend(self, session_id: str, session: MessageSession) -> float:
        session.locked_until = self._clock() + self.settings.lock_duration_seconds
        self._session_ends.add(session.locked_until, session_id)
        for token in session.held:
            self._locks[token].locked_until = session.locked_until
        return session.locked_until

    def _lose(self, session_id: str) -> None:
        session = self._sessions[session_id]
        for token in list(session.held):
            self._lock_expired(token)
        on_lost = session.on_lost
        self._free(session_id, session)
        if on_lost is not None:
            on_lost()

    def _free(self, session_id: str, session: MessageSession) -> None:
        session.holder = session.on_lost = None
        session.held.clear()
        self._forget_if_empty(session_id, session)

    def _forget_if_empty(self, session_id: str, session: MessageSession) -> None:
        if session.state is None and session.ready.first() is None:
            del self._sessions[session_id]

    def _ready_of(self, message: Message) -> ReadyList:
        session_id = message.content.session_id or ""
        self._woken.add(session_id)
        return self._session(session_id).ready

    def _clear_ready(self) -> None:
        for session in self._sessions.values():
            session.ready.clear()

    def _lock(self, message: Message) -> Lock:
        session = self._held_session(message.content.session_id or "")
        lock = Lock(uuid4(), message, session.locked_until)
        self._locks[lock.token] = lock
        session.held[lock.token] = None
        self._move(message, Place.LOCKED)
        return lock

    def _unlock(self, token: UUID) -> Message:
        message = super()._unlock(token)
        self._session(message.content.session_id or "").held.pop(token, None)
        return message

    def _lock_expired(self, token: UUID) -> None:
        session_id = self._locks[token].message.content.session_id or ""
        self._session(session_id).held.pop(token, None)
        super()._lock_expired(token)

    def _lost(self, token: UUID) -> Exception:
        return SessionLockLost(f"lock {token}")
