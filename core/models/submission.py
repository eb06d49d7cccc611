"""A submission, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator

from core.models.control import IfEnded
from core.models.fields import expectation
from core.models.record import JobRecord
from core.models.refs import JobRef
from core.models.status import JobPriority, StoredEnum


@dataclass(frozen=True)
class SubmitRequest:
    """A job that a caller wants.

    Args:
        force: Make a new job of the same parameters if there is one already.
        idempotency_key: The same key with the same payload gives the job that it gave before, forced ones too.
        actor: The caller's name, for the timeline of a job that the request makes.
        if_ended: What to do with a job of these parameters that is there and does not run with them.
        tags: To find the job by, if the request makes it; one that is there keeps its own.
        start_at: A job or run that the request begins waits until then.
        priority: Of a job or run that the request begins, in place of its job type's.
    """

    job_type: str
    parameters: Mapping[str, Any]
    correlation_id: str | None = None
    force: bool = False
    idempotency_key: str | None = None
    actor: str | None = None
    if_ended: IfEnded = IfEnded.RETURN
    tags: Mapping[str, str] = field(default_factory=dict)
    start_at: datetime | None = None
    priority: JobPriority | None = None

    def __post_init__(self) -> None:
        expect_one_wish(self.if_ended, force=self.force)

    @property
    def makes_new_job(self) -> bool:
        """Whether it wants a new job beside the one that is there."""
        return self.force or self.if_ended is IfEnded.FORCE


def expect_one_wish(if_ended: IfEnded, *, force: bool) -> None:
    """Raises ValueError where `force` and `if_ended` want different things."""
    if force and if_ended not in {IfEnded.RETURN, IfEnded.FORCE}:
        raise expectation("force or if_ended, not both", f"force=true and if_ended={if_ended.value}", "leave one out")


class SubmissionOutcome(StoredEnum):
    """What became of a submission.

    created: a new job. existing: the job of the same type and parameters was there. forced: a new job beside that one.
    rerun: the next run of that one. other_parameters: it was there, but a rerun gave its present run other parameters,
    so that its result is none of this submission; nothing was written.
    replayed: the same request came before with this idempotency key; the job it got then.
    key_conflict: the key came before with another payload; nothing was written.
    refused: the job was there and does not run with these parameters; nothing was written.
    """

    CREATED = "created"
    EXISTING = "existing"
    OTHER_PARAMETERS = "other_parameters"
    FORCED = "forced"
    RERUN = "rerun"
    REPLAYED = "replayed"
    KEY_CONFLICT = "key_conflict"
    REFUSED = "refused"


StoredSubmissionOutcome = Annotated[SubmissionOutcome, BeforeValidator(SubmissionOutcome.stored)]


@dataclass(frozen=True)
class Submitted:
    """What became of a submission, the job that it led to, and the state of that job."""

    outcome: SubmissionOutcome
    job_id: str
    status: str
    run: int
    correlation_id: str
    # False: the job's present run is of other parameters than the job, and than this submission.
    same_parameters: bool = True

    @property
    def ref(self) -> JobRef:
        return JobRef(self.job_id, self.run)

    @property
    def created(self) -> bool:
        """Whether a new job was made."""
        return self.outcome in {SubmissionOutcome.CREATED, SubmissionOutcome.FORCED}

    @property
    def begins_run(self) -> bool:
        """Whether something runs that did not before: a new job, or the next run of one."""
        return self.created or self.outcome is SubmissionOutcome.RERUN


@dataclass(frozen=True)
class ForcedJob:
    """The id that a forced submission takes if that of its type and parameters is taken, and the nonce in it."""

    job_id: str
    nonce: str


@dataclass(frozen=True)
class KeyedPayload:
    """A submission's idempotency key, and the hash of its payload."""

    key: str
    payload_hash: str


@dataclass(frozen=True)
class JobWish:
    """A submission as it is written: the row that it makes, and what counts where that is there already.

    Args:
        forced: Make a new job under this id where the job's own is taken.
        key: Find the job that this key got before, or keep the key with the job.
        if_ended: Of force: `forced` only where the job that is there does not run with these parameters.
        outside_id: Names of parameters that are not in the id.
        detail: For the event of the run that it begins: who asked, and what could not be checked.
    """

    job: JobRecord
    forced: ForcedJob | None = None
    key: KeyedPayload | None = None
    if_ended: IfEnded = IfEnded.RETURN
    outside_id: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    start_at: datetime | None = None
    priority: JobPriority | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the run that it begins has nothing beside its parameters."""
        return not self.tags and self.start_at is None and self.priority is None


@dataclass(frozen=True)
class Submission:
    """The answer to a submission. `created` is false when the job was there already; `outcome` is how it was found.

    `advice` is set when that job will not run because of this submission: what would make one run.
    """

    job_id: str
    job_type: str
    created: bool
    status: str
    run: int
    correlation_id: str
    outcome: SubmissionOutcome = SubmissionOutcome.CREATED
    advice: str | None = None
