"""All measures of the engine by name, in one place: what is counted, in which unit, with which attributes."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How values of a measure go together."""

    COUNTER = "counter"  # they are added
    HISTOGRAM = "histogram"  # their distribution counts
    GAUGE = "gauge"  # the latest counts


@dataclass(frozen=True, slots=True)
class Instrument:
    """One measure.

    Args:
        unit: As UCUM writes it: `s`, or a noun in braces.
        attributes: The names of what distinguishes its values.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    attributes: tuple[str, ...] = ()


SUBMISSIONS = Instrument(
    "coremachine.submissions",
    Kind.COUNTER,
    "{submission}",
    "Submissions, by what became of them.",
    ("job_type", "outcome"),
)
JOBS_ENDED = Instrument("coremachine.jobs.ended", Kind.COUNTER, "{job}", "Runs of jobs that ended.", ("status",))
JOB_DURATION = Instrument(
    "coremachine.job.duration", Kind.HISTOGRAM, "s", "From the begin of a job's run to its end.", ("job_type", "status")
)
STAGE_DURATION = Instrument(
    "coremachine.stage.duration",
    Kind.HISTOGRAM,
    "s",
    "From a stage's row to its end, reported when its job ends.",
    ("job_type", "stage", "status"),
)
TASKS_ENDED = Instrument(
    "coremachine.tasks.ended", Kind.COUNTER, "{task}", "Tasks that ended: completed, failed or too_late.", ("outcome",)
)
ATTEMPT_DURATION = Instrument(
    "coremachine.attempt.duration",
    Kind.HISTOGRAM,
    "s",
    "The time of one attempt in its handler, by how it ended: completed, failed or stopped.",
    ("job_type", "stage", "task_type", "outcome"),
)
RETRIES = Instrument("coremachine.retries", Kind.COUNTER, "{retry}", "Retries that were asked for.", ("outcome",))
INTERRUPTIONS = Instrument(
    "coremachine.interruptions",
    Kind.COUNTER,
    "{task}",
    "Attempts that ended without an outcome: drain (released), lease_expired (taken back), given_up (too often).",
    ("reason",),
)
REFUSED_LEASES = Instrument(
    "coremachine.leases.refused", Kind.COUNTER, "{task}", "Outcomes that were refused, since the lease was not valid."
)
REFUSED_CLAIMS = Instrument(
    "coremachine.claims.refused", Kind.COUNTER, "{task}", "Tasks of messages that were not claimed.", ("outcome",)
)
RENEWAL_LAG = Instrument(
    "coremachine.heartbeat.lag", Kind.HISTOGRAM, "s", "How much later than it was due a renewal of leases ended."
)
RENEWAL_FAILURES = Instrument(
    "coremachine.heartbeat.failures", Kind.COUNTER, "{renewal}", "Renewals of leases that failed."
)
JANITOR_REPAIRS = Instrument(
    "coremachine.janitor.repairs", Kind.COUNTER, "{row}", "Rows that sweeps repaired, by the repair.", ("repair",)
)
SWEEP_DURATION = Instrument("coremachine.janitor.sweep.duration", Kind.HISTOGRAM, "s", "The time of one sweep.")
SWEEP_FAILURES = Instrument(
    "coremachine.janitor.failures", Kind.COUNTER, "{step}", "Steps of sweeps that failed.", ("step",)
)
QUEUE_DEPTH = Instrument(
    "coremachine.queue.tasks", Kind.GAUGE, "{task}", "Open tasks, as the latest sweep found them.", ("queue", "status")
)
QUEUE_AGE = Instrument(
    "coremachine.queue.age",
    Kind.GAUGE,
    "s",
    "How long the task that has waited longest has been in its queue, as the latest sweep found it.",
    ("queue",),
)
UNANNOUNCED = Instrument(
    "coremachine.unannounced",
    Kind.GAUGE,
    "{row}",
    "Rows that are due and have no confirmed message, as the latest sweep left them: tasks and steps of jobs.",
    ("kind",),
)
LIMIT_PLACES = Instrument(
    "coremachine.limit.places",
    Kind.GAUGE,
    "{task}",
    "Tasks that hold places of a limit, as the latest sweep found it; of the 50 limits that most stages wait for.",
    ("limit",),
)
LIMIT_WAITING = Instrument(
    "coremachine.limit.waiting",
    Kind.GAUGE,
    "{stage}",
    "Stages that wait for a limit, as the latest sweep found it; of the 50 limits that most stages wait for.",
    ("limit",),
)
POOL_CONNECTIONS = Instrument(
    "coremachine.pool.connections", Kind.GAUGE, "{connection}", "Database connections: used or idle.", ("state",)
)
POOL_WAITING = Instrument(
    "coremachine.pool.waiting", Kind.GAUGE, "{request}", "Threads that wait for a database connection."
)

INSTRUMENTS = tuple(value for value in list(globals().values()) if isinstance(value, Instrument))
