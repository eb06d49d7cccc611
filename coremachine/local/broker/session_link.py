"""The receiver of a session: it holds one, or waits for any that is free."""

from collections.abc import Callable

from coremachine.local.broker import codec
from coremachine.local.broker.entity import Alarm, CallLater, SessionEntity
from coremachine.local.broker.links import ConsumerLink, LinkSession
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.settlement import SESSION_LOST_CONDITION
from coremachine.local.broker.stored import SessionTaken

LOCKED_UNTIL = "com.microsoft:locked-until-utc"
_DEFAULT_WAIT_SECONDS = 60.0
# Of 100 ns since the year 1, as .NET counts.
_EPOCH_TICKS = 621_355_968_000_000_000
_TICKS_PER_SECOND = 10_000_000

# Answers the attach: with the session and further link properties, or with a refusal.
Accept = Callable[[str, tuple[tuple[bytes, bytes], ...]], None]
Refuse = Callable[[AmqpError], None]


class SessionLink(ConsumerLink):
    """A receiver whose attach is answered when it has a session.

    Args:
        wanted: The session id, None for any that has messages.
        wait_seconds: How long to wait for one.
    """

    def __init__(
        self,
        session: LinkSession,
        handle: int,
        path: str,
        *,
        entity: SessionEntity,
        takes_and_deletes: bool,
        wanted: str | None,
        wait_seconds: float | None,
        later: CallLater,
    ) -> None:
        super().__init__(session, handle, path, entity=entity, takes_and_deletes=takes_and_deletes)
        self._sessions = entity
        self._wanted = wanted
        self._wait_seconds = _DEFAULT_WAIT_SECONDS if wait_seconds is None else wait_seconds
        self._later = later
        self._alarm: Alarm | None = None
        self._session_id: str | None = None
        self._holder: object = None
        self._accept: Accept | None = None
        self._refuse: Refuse | None = None

    @property
    def session_id(self) -> str | None:
        return self._session_id

    def start(self, accept: Accept, refuse: Refuse) -> None:
        """Take the session, or wait for one."""
        self._accept, self._refuse = accept, refuse
        if self._wanted is not None:
            self.grant(self._wanted)
            return
        self._entity.attach(self)
        self._alarm = self._later(self._wait_seconds, self._give_up)
        self._sessions.wait_for_session(self)

    def grant(self, session_id: str) -> None:
        self._stop_waiting()
        if self._accept is None or self._refuse is None:
            return
        try:
            self._holder, until = self._sessions.sessions.accept(session_id, self._on_lost)
        except SessionTaken as exc:
            self._refuse(AmqpError("com.microsoft:session-cannot-be-locked", str(exc)))
            return
        self._session_id = session_id
        ticks = codec.long(int(until * _TICKS_PER_SECOND) + _EPOCH_TICKS)
        self._sessions.holds(self, session_id)
        self._accept(session_id, ((codec.symbol(LOCKED_UNTIL), ticks),))

    def close(self) -> None:
        self._stop_waiting()
        super().close()
        if self._session_id is not None:
            self._sessions.sessions.hand_back(self._session_id, self._holder)
            self._sessions.pump_later()

    def _on_lost(self) -> None:
        text = f"The session lock was lost. Request a new session receiver (session '{self._session_id}')."
        self.force_detach(AmqpError(SESSION_LOST_CONDITION, text))

    def _give_up(self) -> None:
        self._alarm = None
        self._stop_waiting()
        if self._refuse is not None:
            text = (
                "The operation did not complete within the allotted timeout of "
                f"{self._wait_seconds:g} s: no session with messages is free."
            )
            self._refuse(AmqpError("com.microsoft:timeout", text))

    def _stop_waiting(self) -> None:
        self._sessions.stop_waiting(self)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
