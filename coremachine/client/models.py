"""What the API answers: the models that the API itself makes its answers with. They need no part of its server."""

from datetime import datetime

from core.models.dead_letter import (
    DeadLetterDetail,
    DeadLetterGroup,
    DeadLetterSummary,
    FailedTaskSummary,
    FailureGroup,
)
from core.models.record import JobEvent
from core.models.view import JobRun, StageDetail, TaskSummary
from triggers.api_models import (
    AdjustedJob,
    BatchJob,
    CancelledJob,
    JobActionAnswer,
    JobAnswer,
    JobListItem,
    JobTypeDetail,
    Liveness,
    Page,
    Readiness,
    RerunAnswer,
    SubmittedJob,
)
from triggers.apps_models import AppInstance, AppsAnswer, Queue, QueuesAnswer
from triggers.bulk_models import AuditEntry, BulkAnswer, DeletedJob, HeldJob
from triggers.insight_models import Explanation, FindingAnswer, RedriveAnswer
from triggers.limit_models import ForgottenLimit, LimitAnswer
from triggers.problem_models import FieldProblem, Problem
from triggers.schedule_models import (
    DeletedSchedule,
    ScheduleAnswer,
    ScheduleExplanation,
    ScheduleTick,
    WrittenSchedule,
)
from triggers.submit_models import BatchAnswer, BatchOutcome, DraftAnswer
from triggers.webhook_models import DeletedWebhook, Delivery, WebhookAnswer, WebhookSecret, WrittenWebhook

__all__ = [
    "AdjustedJob",
    "AppInstance",
    "AppsAnswer",
    "AuditEntry",
    "BatchAnswer",
    "BatchJob",
    "BatchOutcome",
    "BulkAnswer",
    "CancelledJob",
    "DeadLetterDetail",
    "DeadLetterGroup",
    "DeadLetterSummary",
    "DeletedJob",
    "DeletedSchedule",
    "DeletedWebhook",
    "Delivery",
    "DraftAnswer",
    "Explanation",
    "FailedTaskSummary",
    "FailureGroup",
    "FieldProblem",
    "FindingAnswer",
    "ForgottenLimit",
    "HeldJob",
    "JobActionAnswer",
    "JobAnswer",
    "JobEvent",
    "JobListItem",
    "JobRun",
    "JobTypeDetail",
    "LimitAnswer",
    "Liveness",
    "Page",
    "Problem",
    "Queue",
    "QueuesAnswer",
    "Readiness",
    "RedriveAnswer",
    "RerunAnswer",
    "ScheduleAnswer",
    "ScheduleExplanation",
    "ScheduleTick",
    "StageDetail",
    "SubmittedJob",
    "TaskSummary",
    "WebhookAnswer",
    "WebhookSecret",
    "WrittenSchedule",
    "WrittenWebhook",
    "datetime",
]
