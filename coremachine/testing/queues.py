"""Queues in memory whose broker misbehaves as a test asks it to."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

from core.models import QueueMessage
from coremachine.local.memory_queue import MemoryQueues
from coremachine.testing.clock import Clock

# In this time, messages of a broker that keeps no order come in any order.
REORDER_SECONDS = 1.0


@dataclass(frozen=True)
class MessageFaults:
    """What a broker does to messages. Each share is of the messages, from 0 to 1.

    Args:
        duplicated: They come twice.
        reordered: All messages come in a random order.
        late: They come `late_seconds` after they should.
        lost: They never come. What the janitor sends in their place does.
        seed: The same seed and the same job give the same faults.
    """

    duplicated: float = 0.0
    reordered: bool = False
    late: float = 0.0
    late_seconds: float = 300.0
    lost: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("duplicated", "late", "lost"):
            share = getattr(self, name)
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, found {share!r}")

    @property
    def is_any(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self) if field.name not in {"seed", "late_seconds"})


class FaultyQueues(MemoryQueues):
    """Queues in memory, with faults."""

    def __init__(self, clock: Clock, faults: MessageFaults) -> None:
        super().__init__(clock.monotonic, clock.now)
        self._faults = faults
        self._random = random.Random(faults.seed)
        self._lost: set[str] = set()

    def send_messages(self, queue: str, messages: Sequence[QueueMessage]) -> None:
        for message in messages:
            self.send_message_with_delay(queue, message, 0.0)

    def send_message_with_delay(self, queue: str, message: QueueMessage, delay_seconds: float) -> None:
        # All are drawn for each message: a fault more or less does not change the others.
        lost, late, again, first, second = (self._random.random() for _ in range(5))
        if lost < self._faults.lost and self._is_first_loss(queue, message):
            return
        delay = delay_seconds + (self._faults.late_seconds if late < self._faults.late else 0.0)
        spread = REORDER_SECONDS if self._faults.reordered else 0.0
        super().send_message_with_delay(queue, message, delay + first * spread)
        if again < self._faults.duplicated:
            super().send_message_with_delay(queue, message, delay + second * spread)

    def _is_first_loss(self, queue: str, message: QueueMessage) -> bool:
        """Whether no message about the same rows was lost before: a broker that loses all of them ends no job."""
        about = message.model_dump_json(include={"job_id", "run", "stage", "completed_stage", "task_ids"})
        is_first = (key := f"{queue} {about}") not in self._lost
        self._lost.add(key)
        return is_first
