"""What the audit log keeps."""

from core.models.status import StoredEnum


class AuditAction(StoredEnum):
    """What somebody did.

    To a job: cancel, pause, resume, rerun, adjust (its priority, or max_parallel of its stage), delete, hold, release,
    and read (somebody looked at its parameters, where a setting asks for these rows). bulk: the request for one of them
    on many jobs. redrive: a dead letter was sent again, or closed. The others are about limits, schedules and webhooks.
    """

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RERUN = "rerun"
    ADJUST = "adjust"
    DELETE = "delete"
    HOLD = "hold"
    RELEASE = "release"
    READ = "read"
    BULK = "bulk"
    REDRIVE = "redrive"
    SET_LIMIT = "set_limit"
    FORGET_LIMIT = "forget_limit"
    SCHEDULE_PUT = "schedule_put"
    SCHEDULE_PAUSE = "schedule_pause"
    SCHEDULE_RESUME = "schedule_resume"
    SCHEDULE_RUN = "schedule_run"
    SCHEDULE_DELETE = "schedule_delete"
    WEBHOOK_PUT = "webhook_put"
    WEBHOOK_ROTATE = "webhook_rotate"
    WEBHOOK_REDELIVER = "webhook_redeliver"
    WEBHOOK_DELETE = "webhook_delete"
