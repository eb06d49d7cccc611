"""How much one client may ask of the broker."""

from dataclasses import dataclass

MAX_MESSAGE_SIZE = 256 * 1024
MAX_REQUEST_SIZE = 4 * MAX_MESSAGE_SIZE
LINK_CREDIT = 1000

# Deliveries pause at the first, requests too at the second: their answers would pile up in memory.
SOFT_OUTPUT_BYTES = 256 * 1024
HARD_OUTPUT_BYTES = 1024 * 1024
# Of frames that wait for the client's session window, and of answers that wait for its credit.
MAX_WAITING_BYTES = 8 * 1024 * 1024
# Of deliveries whose last frame has not come, for one connection.
MAX_UNFINISHED_BYTES = 32 * 1024 * 1024
# Deliveries of one session without a settlement.
MAX_UNSETTLED = 50_000
# Messages that one entity hands out before other clients have their turn.
DELIVERIES_PER_TURN = 100
EXPIRED_PER_TICK = 10_000


@dataclass(frozen=True, slots=True)
class IdleLimits:
    """After how many seconds without use the broker closes; None for never.

    Service Bus closes a connection after 240 s and detaches a link after 10 min.
    """

    connection_seconds: float | None = None
    link_seconds: float | None = None
