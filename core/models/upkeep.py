"""What the janitor and its pruner did."""

from dataclasses import dataclass, field


@dataclass
class Pruned:
    """Rows of old jobs that were deleted."""

    jobs: int = 0
    tasks: int = 0


_REPAIRS = (
    "times_brought_back",
    "taken_back",
    "given_up",
    "timed_out_jobs",
    "expired_tasks",
    "resumed_jobs",
    "forced_cancels",
    "announced_tasks",
    "announced_jobs",
    "found_lost_tasks",
    "found_lost_jobs",
)


@dataclass
class SweepReport:
    """What one sweep did, in rows; `errors` names the steps that failed, and why."""

    # Since the database's clock was ahead when they were written.
    times_brought_back: int = 0
    taken_back: int = 0
    given_up: int = 0
    timed_out_jobs: int = 0
    expired_tasks: int = 0
    resumed_jobs: int = 0
    forced_cancels: int = 0
    announced_tasks: int = 0
    announced_jobs: int = 0
    found_lost_tasks: int = 0
    found_lost_jobs: int = 0
    # Which had room while no process of their stage looked; where tasks last long, that is as it should be.
    taken_tasks: int = 0
    # Of which webhooks have learned that they do not move.
    stalled_jobs: int = 0
    pruned_jobs: int = 0
    pruned_tasks: int = 0
    pruned_dead_letters: int = 0
    pruned_ticks: int = 0
    pruned_audit_rows: int = 0
    pruned_limits: int = 0
    pruned_apps: int = 0
    scheduled_jobs: int = 0
    failed_ticks: int = 0
    # How long after its time the latest of this sweep's ticks was decided about.
    latest_tick_seconds: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)
    # How many of them are an outage of the database, which is logged once for all.
    outages: int = 0
    duration_seconds: float = 0.0

    @property
    def repairs_by_kind(self) -> dict[str, int]:
        """How many rows were repaired, by what was done."""
        return {name: getattr(self, name) for name in _REPAIRS}

    @property
    def repairs(self) -> int:
        return sum(self.repairs_by_kind.values())
