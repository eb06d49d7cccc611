"""The published schema of the submission message takes what the engine takes, and nothing else."""

import json
import os
import shutil
import subprocess

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from core.models.message import read_job_message
from core.models.message_schema import submission_schema
from tests.documents import ROOT, blocks
from tests.unit.triggers.fakes import Api
from tests.webhook_receiver import receiver

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


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_page_s_shell_example_sends_a_submission(tmp_path):
    """To a receiver in place of Service Bus, whose REST interface takes the body as the message."""
    page = ROOT / "docs" / "howto" / "submit-jobs.md"
    (script,) = [block.text for block in blocks() if block.path == page and "/messages" in block.text]
    (tmp_path / "az").write_text('#!/bin/sh\n[ "$1 $2" = "account get-access-token" ] && echo a-token\n')
    (tmp_path / "az").chmod(0o755)
    with receiver() as service_bus:
        assert "https://my-namespace.servicebus.windows.net" in script
        script = script.replace("https://my-namespace.servicebus.windows.net", service_bus.url)
        environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-eu", "-c", script], check=False, env=environment, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        headers, _, body = service_bus.next()
    assert headers["authorization"] == "Bearer a-token"
    assert headers["content-type"] == "application/json"
    assert read_job_message("jobs", body.decode()).job_type == "hello_world"


def test_a_mark_of_the_byte_order_is_no_part_of_the_message():
    """Programs on Windows write it, and HTTP takes it."""
    text = json.dumps(PLAIN)
    assert read_job_message("jobs", text.encode("utf-8-sig")).job_type == "hello_world"
    assert read_job_message("jobs", f"\ufeff{text}").job_type == "hello_world"


def test_a_tag_holds_no_credential_by_its_name_either():
    """Tags are kept and shown; parameters below such a name are refused, too."""
    with pytest.raises(ValidationError, match=r"expected texts without credentials, found .*'password'") as refused:
        read_job_message("jobs", json.dumps(PLAIN | {"tags": {"password": "hush1234"}}))
    assert "hush" not in str(refused.value.errors(include_input=False))
