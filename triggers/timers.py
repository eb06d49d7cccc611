"""What the timer functions run."""

from collections.abc import Callable

from core.operating.janitor import Janitor
from core.safety.safe_log import safe_logger
from core.telemetry.reports import observer
from triggers.services import get_services
from triggers.traces import in_trace_of
from triggers.webhook_thread import wake_sender

log = safe_logger(__name__)


class SweepIncomplete(RuntimeError):
    """Steps of a sweep failed; the next sweep tries them again."""

    def __init__(self, errors: dict[str, str], *, is_reported: bool = False) -> None:
        self.errors = errors
        # As `core.errors.StoreUnavailable` has it.
        self.is_reported = is_reported
        super().__init__("; ".join(f"{step}: {error}" for step, error in errors.items()))


def sweep(
    *, past_due: bool, get_janitor: Callable[[], Janitor] | None = None, wake: Callable[[], None] = wake_sender
) -> None:
    """Let the janitor sweep once, and the sender of webhooks work beside it.

    Raises:
        SweepIncomplete: So that the host counts the invocation as failed; the schedule goes on.
    """
    wake()
    with in_trace_of(None):
        janitor = get_janitor() if get_janitor else get_services().janitor
        report = janitor.sweep()
        observer().sweep_ended(report)
    log.info(
        "sweep_ended",
        extra={
            "checkpoint": "SWEEP",
            "past_due": past_due,
            "repairs": report.repairs,
            "failed_steps": sorted(report.errors),
            "latest_tick_seconds": round(report.latest_tick_seconds, 3),
            "duration_seconds": round(report.duration_seconds, 3),
        },
    )
    if report.errors:
        raise SweepIncomplete(report.errors, is_reported=report.outages == len(report.errors))
