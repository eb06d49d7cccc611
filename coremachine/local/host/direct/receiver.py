"""A link that receives from one entity, and requests about its messages: what a pump's thread does with a `Wire`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.performatives import (
    OUTCOME_ACCEPTED,
    OUTCOME_MODIFIED,
    OUTCOME_RELEASED,
    UINT32,
    Performative,
    Transfer,
)
from coremachine.local.host.direct.delivery import encode_request, read_answer
from coremachine.local.host.direct.wire import CHANNEL, WINDOW, Wire, WireError

COMPLETE, ABANDON, RELEASE = OUTCOME_ACCEPTED, OUTCOME_MODIFIED, OUTCOME_RELEASED
_STATUSES = {COMPLETE: "completed", ABANDON: "abandoned", RELEASE: "unlocked"}
_RECEIVER, _REQUESTS, _ANSWERS = range(3)  # handles
_SOURCE, _TARGET = 0x28, 0x29
_ANSWER_CREDIT = 1_000_000
_REPLY_TO = "answers"
_OK = 200

# Called with the problem, None if there is none, and the values of the answer.
OnAnswer = Callable[[str | None, dict[str, codec.Value]], None]
# Called with what the caller settled, and the reason why the broker did not.
OnRefused = Callable[[Any, str], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message, locked for this process until it is settled."""

    number: int
    token: UUID
    data: bytes


class DirectReceiver:
    """Receives from an entity, any number of messages at a time. For one thread; `wire.wake` alone is for any.

    Args:
        entity: Path of a queue, subscription or dead-letter queue.
        on_refused: What could not be settled.

    Raises:
        WireError, OSError: From all methods, when the connection or the link is lost.
    """

    def __init__(self, wire: Wire, entity: str, on_refused: OnRefused) -> None:
        self.wire = wire
        self._entity = entity
        self._on_refused = on_refused
        self._received_frames = self._received = 0
        self._offered = 0  # the credit that the broker has
        self._sent_frames = 0
        self._parts: list[bytes] = []
        self._unanswered: dict[int, Any] = {}
        self._requests: dict[int, OnAnswer] = {}
        self._waiting_requests: list[bytes] = []
        self._may_request = self._is_managed = False
        self._request_count = 0
        self.is_drained = False
        self._attach(_RECEIVER, entity, is_receiver=True)

    @property
    def is_settled(self) -> bool:
        """Whether the broker has answered all settlements and requests."""
        return not self._unanswered and not self._requests

    def offer(self, count: int) -> None:
        """Let the broker send this number of messages from now on, in place of what was offered before."""
        if count != self._offered:
            self._offered = count
            self._flow(_RECEIVER, self._received, count)

    def drain(self) -> None:
        """Ask for no more. What is on its way still comes; `is_drained` is set behind it."""
        self._offered = 0
        self._flow(_RECEIVER, self._received, 0, drain=True)

    def deliveries(self, seconds: float) -> Iterator[Delivery]:
        """Wait for what the broker sends, or `wire.wake`, and work it off: the messages among it."""
        self.wire.flush()
        self.wire.wait(seconds)
        for body, performative in self.wire.frames():
            if performative.code == perf.TRANSFER:
                delivery = self._on_transfer(Transfer(*performative.fields[:11]), body[performative.end :])  # type: ignore[arg-type]
                if delivery is not None:
                    yield delivery
            else:
                self._on_frame(body, performative)

    def settle(self, outcome: bytes, deliveries: Mapping[int, Any]) -> None:
        """End deliveries of this link, by their numbers: COMPLETE, ABANDON or RELEASE. Neighbours share a frame."""
        self._unanswered.update(deliveries)
        numbers = sorted(deliveries)
        starts = [at for at, number in enumerate(numbers) if not at or number != numbers[at - 1] + 1]
        for start, end in zip(starts, [*starts[1:], len(numbers)], strict=False):
            first, last = numbers[start], numbers[end - 1]
            frame = perf.disposition_frame(CHANNEL, first, last, outcome, is_receiver=True, settled=False)
            self.wire.write_frame(frame)

    def settle_lock(self, outcome: bytes, token: UUID, on_answer: OnAnswer) -> None:
        """End a delivery of a link that is lost."""
        self._request("update-disposition", [token], on_answer, _STATUSES[outcome])

    def renew(self, token: UUID, on_answer: OnAnswer) -> None:
        """Ask for a longer lock; the answer has `expirations`, in milliseconds since 1970."""
        self._request("renew-lock", [token], on_answer)

    def _request(self, operation: str, tokens: list[UUID], on_answer: OnAnswer, status: str | None = None) -> None:
        if not self._is_managed:
            self._is_managed = True
            self._attach(_ANSWERS, f"{self._entity}/$management", is_receiver=True)
            self._flow(_ANSWERS, 0, _ANSWER_CREDIT)
            self._attach(_REQUESTS, f"{self._entity}/$management", is_receiver=False)
        self._request_count += 1
        self._requests[self._request_count] = on_answer
        self._waiting_requests.append(encode_request(self._request_count, operation, _REPLY_TO, tokens, status))
        self._send_requests()

    def _send_requests(self) -> None:
        while self._may_request and self._waiting_requests:
            payload = self._waiting_requests.pop(0)
            number = self._sent_frames
            self._sent_frames += 1
            tag = number.to_bytes(4, "big")
            self.wire.write(perf.transfer_body(_REQUESTS, number, tag, settled=True, more=False), payload)

    def _attach(self, handle: int, address: str, *, is_receiver: bool) -> None:
        source, target = (address, _REPLY_TO) if is_receiver else (_REPLY_TO, address)
        fields = [
            codec.string(f"host-{handle}"),
            codec.uint(handle),
            codec.boolean(is_receiver),
            codec.ubyte(0),  # snd-settle-mode: unsettled, so that a message is locked
            codec.ubyte(0),
            codec.described(_SOURCE, codec.list_of([codec.string(source)])),
            codec.described(_TARGET, codec.list_of([codec.string(target)])),
            NULL,
            NULL,
            NULL if is_receiver else codec.uint(0),  # initial-delivery-count
        ]
        self.wire.write(codec.described(perf.ATTACH, codec.list_of([*fields, *[NULL] * 4])))

    def _flow(self, handle: int, delivery_count: int, credit: int, *, drain: bool = False) -> None:
        flow = perf.Flow(
            next_incoming_id=self._received_frames & UINT32,
            incoming_window=WINDOW,
            next_outgoing_id=self._sent_frames & UINT32,
            outgoing_window=WINDOW,
            handle=handle,
            delivery_count=delivery_count & UINT32,
            link_credit=credit,
            available=None,
            drain=drain,
            echo=False,
            properties=None,
        )
        self.wire.write_frame(perf.flow_frame(CHANNEL, flow))

    def _on_transfer(self, transfer: Transfer, payload: bytes) -> Delivery | None:
        """The delivery that this frame completes, if it is of a message."""
        self._received_frames += 1
        if transfer.handle == _ANSWERS:
            self._on_answer(self._joined(transfer, payload))
            return None
        data = self._joined(transfer, payload)
        if data is None:
            return None
        self._received += 1
        self._offered -= 1
        return Delivery(transfer.delivery_id or 0, UUID(bytes_le=transfer.delivery_tag or bytes(16)), data)

    def _joined(self, transfer: Transfer, payload: bytes) -> bytes | None:
        """The whole payload with its last frame. Frames of two deliveries are never mixed by this project's broker."""
        if transfer.more:
            self._parts.append(payload)
            return None
        if not self._parts:
            return payload
        parts, self._parts = self._parts, []
        return b"".join([*parts, payload])

    def _on_answer(self, data: bytes | None) -> None:
        if data is None:
            return
        request, status, text, values = read_answer(data)
        self._requests.pop(request)(None if status == _OK else f"{status}: {text}", values)

    def _on_frame(self, body: bytes, performative: Performative) -> None:
        code, fields = performative.code, performative.fields
        if code == perf.DISPOSITION:
            self._on_settled(body, performative)
        elif code == perf.FLOW and fields[4] == _REQUESTS:
            self._may_request = True
            self._send_requests()
        elif code == perf.FLOW and fields[4] == _RECEIVER and fields[8]:
            self.is_drained = True
        elif code in {perf.DETACH, perf.END}:
            raise WireError(f"the broker ended the link to {self._entity!r}: {_said(fields[-1])}")

    def _on_settled(self, body: bytes, performative: Performative) -> None:
        first: Any = performative.fields[1]
        last: Any = performative.fields[2]
        state = perf.raw_field(body, 4)
        for number in range(first, (first if last is None else last) + 1):
            settled = self._unanswered.pop(number, None)
            if state[2] == perf.REJECTED and settled is not None:
                self._on_refused(settled, _said(performative.fields[4]))


def _said(error: codec.Value) -> str:
    """The condition and description in an AMQP error, or in the outcome that holds it."""
    while isinstance(error, list) and len(error) == 1:
        error = error[0]
    return ": ".join(map(str, error[:2])) if isinstance(error, list) else str(error)
