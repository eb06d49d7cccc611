"""The outcomes that Python decides by are the words that the SQL functions return: all of them, and no others."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from core.models.control import ControlOutcome
from core.models.lease import LeaseOutcome
from core.models.status import JobStatus, TaskStatus
from core.models.submission import SubmissionOutcome
from core.models.transition import ClaimOutcome, DeadlineOutcome, PlanOutcome, PostponeOutcome, RetryOutcome

FUNCTIONS = "\n".join(path.read_text() for path in sorted(Path(__file__).parents[2].glob("sql/functions/*.sql")))
# What begins at a name and ends with the body: a name that is there twice has an older form, which returns no others.
BODY = r"^create or replace function {{schema}}\.{name}\(.*?(?:^\$\$;|^end \$\$;)"
# Literals where an outcome is returned, assigned, or chosen in a case.
LITERAL = re.compile(r"(?:\breturn|\boutcome :=|\bthen|\belse|\breturning t\.task_id,)\s+'(\w+)'")

RETURNED_BY = {
    PlanOutcome: ["begin_stage_plan", "plan_small_stage"],
    ClaimOutcome: ["claim_tasks"],
    RetryOutcome: ["increment_task_retry_count"],
    ControlOutcome: ["pause_job", "resume_job", "rerun_job"],
    SubmissionOutcome: ["submit_job", "outcome_of_found_job"],
    LeaseOutcome: ["renew_leases"],
    DeadlineOutcome: ["enforce_deadlines"],
    PostponeOutcome: ["postpone_job_step", "postpone_tasks"],
}
# Between functions, and between the database and its repository; and what no row is.
OF_SQL_ALONE = {PlanOutcome: {"ready"}, ControlOutcome: {"missing"}}
OF_PYTHON_ALONE = {LeaseOutcome: {"lost"}}


def returned_by(name: str) -> set[str]:
    bodies = re.findall(BODY.format(name=name), FUNCTIONS, re.DOTALL | re.MULTILINE)
    assert bodies, f"expected a function {name} in sql/functions, found none"
    return {literal for body in bodies for literal in LITERAL.findall(body)}


@pytest.mark.parametrize("outcomes", RETURNED_BY, ids=lambda outcomes: outcomes.__name__)
def test_outcomes_are_those_of_the_database(outcomes: type[StrEnum]):
    members = set(outcomes) - OF_PYTHON_ALONE.get(outcomes, set())
    found = set().union(*(returned_by(name) for name in RETURNED_BY[outcomes])) - OF_SQL_ALONE.get(outcomes, set())
    # The same functions choose statuses for the rows that they write.
    assert found - (set(TaskStatus) | set(JobStatus)).difference(members) == members
