"""The audit log's actions: those that are written, those that can be asked for, and those that are described."""

import re
from pathlib import Path

import pytest

from core.models.audit import AuditAction
from tests.unit.triggers.fakes import Api
from tests.unit.triggers.test_api import assert_problem

ROOT = Path(__file__).parents[2]


def written():
    """Each text that is given to `record_audit` as the action."""
    texts = [path.read_text() for path in (ROOT / "sql" / "functions").glob("*.sql")]
    calls = [call for text in texts for call in re.findall(r"perform \{schema\}\.record_audit\(([^,]+),", text)]
    python = re.findall(r"_call\(\"record_audit\", \(\"(\w+)\"", (ROOT / "infrastructure" / "audit.py").read_text())
    return {name for call in calls for name in re.findall(r"'(\w+)'", call)} | set(python)


def test_every_action_that_is_written_is_known_and_every_known_one_is_written():
    assert written() == {action.value for action in AuditAction}


@pytest.mark.parametrize("action", ["bogus", "CANCEL", ""])
def test_an_unknown_action_is_refused_with_those_that_are_known(action):
    problem = assert_problem(Api().get(f"/api/audit?action={action}"), 400, "invalid_request")
    (error,) = problem["errors"]
    assert error["field"] == "action"
    assert all(each.value in error["expected"] for each in AuditAction)
