"""The published schema of the submission message takes what the engine takes, and nothing else."""

import json

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from core.models.message import read_job_message
from core.models.message_schema import submission_schema
from tests.unit.triggers.fakes import Api

VALIDATOR = Draft202012Validator(submission_schema())
PLAIN = {"job_type": "hello_world", "parameters": {}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"parameters": {"n": 3}, "correlation_id": "order-7"},
        {"tags": {"team": "geo"}, "start_at": "2026-03-01T06:00:00+01:00"},
        {"priority": "low"},
        {"if_ended": "return"},
        {"if_ended": "rerun", "idempotency_key": "k"},
    ],
)
def test_right_messages(more):
    VALIDATOR.validate(PLAIN | more)
    assert read_job_message("jobs", json.dumps(PLAIN | more)).job_type == "hello_world"


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": [1]},
        {"job_type": ""},
        {"correlation_id": "a b"},
        {"if_ended": "rerun"},
        {"if_ended": "perhaps"},
        {"priority": "urgent"},
        {"idempotency_key": ""},
        {"tags": {"team": 7}},
        {"tags": {"a b": "x"}},
        {"tags": {str(number): "x" for number in range(21)}},
        {"tags": {"team": ""}},
    ],
)
def test_wrong_messages(more):
    assert not VALIDATOR.is_valid(PLAIN | more)
    with pytest.raises(ValidationError):
        read_job_message("jobs", json.dumps(PLAIN | more))


def test_engines_own_fields_are_not_for_producers():
    assert not VALIDATOR.is_valid(PLAIN | {"run": 1})
    with pytest.raises(ValidationError, match="only where a job is submitted"):
        read_job_message("jobs", json.dumps({"job_type": "t", "job_id": "ab" * 32, "tags": {"team": "geo"}}))


def test_app_serves_it():
    assert Api().get("/api/messages/submission").json() == submission_schema()
