"""Numbers in the documents are those of the code: a page is read with its line breaks as spaces."""

import json

import pytest

from core.advancing.job_advancer import INLINE_SECONDS
from core.advancing.steps import FEW_TASKS
from core.announcing.announcer import SEND_SECONDS
from core.authors.author_code import MOST_TASKS
from core.basics.canonical import LARGE_VALUE_BYTES, MOST_JSONB_BYTES, MOST_LEVELS, MOST_VALUE_BYTES
from core.models.control import DEFAULT_CANCEL_GRACE_SECONDS
from core.models.definition import MESSAGE_SECONDS, SLICE_SECONDS, RetryPolicy, StageDefinition
from core.models.definition import MOST_TASKS_PER_MESSAGE as TASKS_PER_MESSAGE
from core.models.retry import POSTPONE_SECONDS
from core.operating.dead_letters import KEPT_BODY_BYTES
from core.operating.explain import SWEEP_OVERDUE_SECONDS
from core.operating.janitor import PRUNED_TASKS_PER_SWEEP, JanitorTimings
from core.operating.unknown_work import DEFAULT_PATIENCE_SECONDS
from core.orchestration_manager import MOST_NAME_CHARACTERS
from core.running.task_batch import GATHER_SECONDS
from core.safety.safe_text import MOST_TEXT_BYTES
from coremachine.local.postgres import _VERSION as POSTGRES_VERSION
from infrastructure.failures import GROUPED_ROWS
from infrastructure.list_columns import MOST_TEXT_CHARACTERS
from infrastructure.list_columns import MOST_VALUE_BYTES as MOST_LISTED_BYTES
from infrastructure.postgresql import CALLS_AT_MOST
from infrastructure.queue_probe import FRESH_SECONDS
from infrastructure.results import ROWS_PER_PAGE
from infrastructure.settings import Settings
from jobs.parameters import MAX_PROBLEMS
from tests.documents import ROOT
from triggers.api_models import MAX_WAIT_SECONDS
from triggers.app_shape import read_shape, threads_needed
from triggers.insight_models import _MOST_IDS
from triggers.job_answers import MAX_WAITING
from triggers.request_body import MAX_BODY_BYTES

KB, MB = 1024, 1024 * 1024
CALLS = json.loads((ROOT / "host.json").read_text())["extensions"]["serviceBus"]["maxConcurrentCalls"]
THREADS = threads_needed(read_shape({}), CALLS)
WORKER_THREADS = threads_needed(read_shape({"COREMACHINE_APP_MODE": "worker"}), CALLS)
QUEUES = json.loads((ROOT / "coremachine" / "local" / "broker" / "Config.json").read_text())
(DELIVERIES,) = {
    queue["Properties"]["MaxDeliveryCount"]
    for namespace in QUEUES["UserConfig"]["Namespaces"]
    for queue in namespace["Queues"]
}
RETRY, STAGE, TIMINGS = RetryPolicy(), StageDefinition.model_fields, JanitorTimings()
WORDS = {5: "five", 6: "six", 10: "ten"}


def default(name: str) -> str:
    return f"{Settings.model_fields[name].default:g}"


OPERATIONS, WRITE = "docs/reference/operations.md", "docs/howto/write-a-job.md"
DELIVERY, RECOVER = "docs/explanation/delivery.md", "docs/howto/recover.md"
SAID = [
    (DELIVERY, f"tasks after {TIMINGS.announce:g} s, jobs after {TIMINGS.job:g} s"),
    (DELIVERY, f"(minus {TIMINGS.lost:g} s for the difference of the clocks)"),
    (DELIVERY, f"differ by less than {TIMINGS.lost:g} s (`JanitorTimings.lost`)"),
    (DELIVERY, f"after {WORDS[DELIVERIES]} deliveries"),
    (DELIVERY, f"goes on like that for {SLICE_SECONDS:g} s before it settles the message"),
    (DELIVERY, f"Tasks of more than {SLICE_SECONDS / 2 * 1000:g} ms"),
    ("docs/explanation/architecture.md", f"the ids of up to {TASKS_PER_MESSAGE} tasks"),
    ("docs/explanation/architecture.md", f"within {GATHER_SECONDS * 1000:g} ms of each other share a call"),
    ("docs/explanation/architecture.md", f"Up to {FEW_TASKS} tasks are one call"),
    ("docs/explanation/architecture.md", f"the call has not lasted {INLINE_SECONDS:g} s"),
    ("docs/explanation/fan-in.md", f"They read pages of {ROWS_PER_PAGE:,} rows"),
    ("docs/explanation/performance.md", f"A sweep deletes at most {PRUNED_TASKS_PER_SWEEP:,} rows"),
    ("docs/adr/0022-one-poll-for-all-who-wait.md", f"At most {MAX_WAITING} clients wait per process"),
    (
        "docs/howto/run-workers-apart.md",
        f"and `maxConcurrentCalls` {CALLS} this is {THREADS} for a standalone app, and",
    ),
    ("docs/howto/run-workers-apart.md", f"{WORKER_THREADS} for a worker app that reads both task queues"),
    ("docs/howto/upgrade.md", f"after {', '.join(f'{seconds:g}' for seconds in POSTPONE_SECONDS[:-1])}"),
    ("docs/howto/upgrade.md", f"and then every {POSTPONE_SECONDS[-1]:g} seconds"),
    (
        "docs/howto/upgrade.md",
        f"({DEFAULT_PATIENCE_SECONDS:,.0f}: {WORDS[int(DEFAULT_PATIENCE_SECONDS // 3600)]} hours)",
    ),
    (WRITE, f"{RETRY.max_attempts} attempts, with a jittered delay of {RETRY.base_delay_seconds:g} s"),
    (WRITE, f"doubles up to {RETRY.max_delay_seconds:g} s"),
    (WRITE, f"as many as take about {MESSAGE_SECONDS:g} s"),
    (WRITE, f"All checks of one submission have {default('check_seconds')} seconds together"),
    (WRITE, f"as JSON | {LARGE_VALUE_BYTES // KB} KB | stored, and reported as `large_value`"),
    (WRITE, f"{MOST_VALUE_BYTES // MB} MB, or `COREMACHINE_MAX_VALUE_BYTES` (at most {MOST_JSONB_BYTES // MB} MB)"),
    (WRITE, f"nesting of a value | {MOST_LEVELS} levels"),
    (WRITE, f"message and traceback of a failure | {MOST_TEXT_BYTES // KB} KB each"),
    (WRITE, f"tasks of a stage | {MOST_TASKS:,}"),
    (WRITE, f"name of a task | {MOST_NAME_CHARACTERS} characters"),
    (RECOVER, f"({DEFAULT_CANCEL_GRACE_SECONDS:g} seconds unless you say otherwise)"),
    (RECOVER, f"`COREMACHINE_LEASE_STAND_IN_SECONDS` ({default('lease_stand_in_seconds')})"),
    (OPERATIONS, f"it was blocked for `COREMACHINE_LEASE_STAND_IN_SECONDS` ({default('lease_stand_in_seconds')})"),
    (OPERATIONS, f"After `cancel_grace_seconds` ({DEFAULT_CANCEL_GRACE_SECONDS:g} by default)"),
    (OPERATIONS, f"for {SEND_SECONDS:g} seconds; the next sweep announces the rest"),
    (OPERATIONS, f"above {MOST_LISTED_BYTES // KB} KB of JSON is replaced"),
    (OPERATIONS, f"are cut to {MOST_TEXT_CHARACTERS:,} characters"),
    (OPERATIONS, f"at most {MAX_BODY_BYTES // MB} MiB, with"),
    (OPERATIONS, f"`errors` with the first {MAX_PROBLEMS} wrong fields"),
    (OPERATIONS, f"`COREMACHINE_CHECK_THREADS` ({default('check_threads')}) threads"),
    (OPERATIONS, f"`COREMACHINE_CHECK_SECONDS` ({default('check_seconds')})"),
    (OPERATIONS, f"the last look is older than {FRESH_SECONDS:g} s"),
    (OPERATIONS, f"called again, up to {CALLS_AT_MOST} times"),
    (OPERATIONS, f"At most {GROUPED_ROWS:,} failed tasks are read"),
    (OPERATIONS, f"at most {_MOST_IDS:,} messages per request"),
    (OPERATIONS, f"larger than the {KEPT_BODY_BYTES // KB} KB that are kept"),
    ("docs/reference/submitting.md", f"`Prefer: wait=10` (seconds, at most {MAX_WAIT_SECONDS:g})"),
    ("docs/howto/monitor.md", f"for longer than a lease ({STAGE['lease_seconds'].default:g} s)"),
    ("docs/howto/monitor.md", f"a threshold of {WORDS[int(SWEEP_OVERDUE_SECONDS // 60)]} minutes means"),
    ("README.md", f"real: version {POSTGRES_VERSION}, from a Python wheel"),
]


@pytest.mark.parametrize(("page", "said"), SAID, ids=[f"{page}-{said[:40]}" for page, said in SAID])
def test_a_number_is_that_of_the_code(page, said):
    assert said in " ".join((ROOT / page).read_text(encoding="utf-8").split())
