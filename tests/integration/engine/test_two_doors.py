"""A submission over HTTP and one over the jobs queue: the same inputs are taken, and the same are refused."""

import json
import logging
from urllib.parse import quote
from uuid import uuid4

import pytest
from azure.functions.servicebus import ServiceBusMessage

from core.models.dead_letter import Selection
from core.operating.dead_letters import DeadLetters
from core.orchestration_manager import AppRole
from infrastructure.dead_letters import DeadLetterRepository
from triggers.queues import receive_job_message

from . import test_submission_truth

# Fixtures.
transport, http = test_submission_truth.transport, test_submission_truth.http

# Name, job type, parameters as they are written, further fields; whether it is taken, and the reason among the dead
# letters where it is not.
UNFIT, UNREADABLE = "ParameterErrors", "MessageUnreadable"
TABLE = [
    ("plain", "shapes", '{"n": 2}', {}, None),
    ("correlation id", "shapes", '{"n": 2}', {"correlation_id": "order-7"}, None),
    ("spaces in the correlation id", "shapes", "{}", {"correlation_id": "order 7"}, UNREADABLE),
    ("line break in the correlation id", "shapes", "{}", {"correlation_id": "a\nb"}, UNREADABLE),
    ("empty correlation id", "shapes", "{}", {"correlation_id": ""}, UNREADABLE),
    ("long correlation id", "shapes", "{}", {"correlation_id": "x" * 129}, UNREADABLE),
    ("credential in the correlation id", "shapes", "{}", {"correlation_id": "password=hush-hush"}, UNREADABLE),
    ("name twice", "shapes", '{"n": 2, "n": 3}', {}, UNREADABLE),
    ("name twice inside", "shapes", '{"bad": [{"a": 1, "a": 2}]}', {}, UNREADABLE),
    ("no number", "shapes", '{"n": NaN}', {}, UNREADABLE),
    ("name with NUL", "shapes", '{"a\\u0000": 1}', {}, UNREADABLE),
    ("job type with NUL", "sha\0pes", "{}", {}, UNREADABLE),
    ("long job type", "x" * 101, "{}", {}, UNREADABLE),
    ("no object", "shapes", "[1]", {}, UNREADABLE),
    ("wrong type", "shapes", '{"n": "three"}', {}, UNFIT),
    ("unknown name", "shapes", '{"m": 3}', {}, UNFIT),
    ("credential in a parameter", "shapes", '{"bad": ["postgresql://u:hush@db/x"]}', {}, UNFIT),
    ("credential in a wrong value", "shapes", '{"n": "postgresql://u:hush@db/x"}', {}, UNFIT),
    ("credential as a name", "shapes", '{"password=hush": 1}', {}, UNFIT),
    ("too large", "shapes", json.dumps({"label": "x" * 5000}), {}, "ValueTooLarge"),
    ("no known wish", "shapes", "{}", {"if_ended": "retry"}, UNREADABLE),
    ("key with spaces", "shapes", "{}", {"idempotency_key": "a b"}, UNREADABLE),
]


@pytest.fixture
def dead(rig):
    return DeadLetters(DeadLetterRepository(rig.engine.pool), rig.state, rig.queues, ["jobs", "tasks"])


def over_queue(rig, dead, body, message_id="m-1"):
    """The queue's function returns: the message is done with."""
    message = ServiceBusMessage(
        body=body.encode(),
        message_id=message_id,
        delivery_count=1,
        sequence_number=hash(body) % 2**31,
        application_properties={},
        user_properties={},
    )
    receive_job_message(message, get_machine=lambda: rig.machine, get_recorder=lambda: dead, pause=pytest.fail)


def over_http(http, job_type, parameters, fields):
    names = {"correlation_id": "X-Correlation-Id", "idempotency_key": "Idempotency-Key"}
    headers = {names[name]: value for name, value in fields.items() if name in names}
    return http.post(
        f"jobs/submit/{quote(job_type)}",
        content=parameters,
        params={name: value for name, value in fields.items() if name not in names},
        headers={"Content-Type": "application/json", **headers},
    )


def written(job_type, parameters, fields):
    return f'{{"job_type": {json.dumps(job_type)}, "parameters": {parameters}{"".join(_told(fields))}}}'


def _told(fields):
    return [f", {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]


@pytest.mark.parametrize(("name", "job_type", "parameters", "fields", "reason"), TABLE, ids=[row[0] for row in TABLE])
def test_both_doors_take_and_refuse_the_same(
    rig,
    dead,
    http,
    caplog,
    name,
    job_type,
    parameters,
    fields,
    reason,
):
    del name
    rig.orchestration.role = AppRole(app_name="test", most_bytes=4000)
    answer = over_http(http, job_type, parameters, fields)
    assert (answer.status_code < 400) == (reason is None), answer.text
    rig.engine.execute("delete from app.jobs")
    caplog.clear()

    over_queue(rig, dead, written(job_type, parameters, fields))
    jobs = rig.engine.query("select correlation_id from app.jobs")
    letters = rig.engine.query("select reason, description, delivery_count from app.dead_letters")
    if reason is None:
        assert (len(jobs), letters) == (1, [])
        return
    assert jobs == []
    assert [(letter["reason"], letter["delivery_count"]) for letter in letters] == [(reason, 1)]
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (line.levelno, line.message, line.reason) == (logging.WARNING, "message_dead_lettered", reason)
    assert line.description == letters[0]["description"][:500]
    told = f"{answer.text}{letters}{caplog.text}{[vars(record) for record in caplog.records]}"
    assert "hush" not in told


def test_submission_that_says_fail_is_a_dead_letter_with_its_reason(rig, dead):
    parameters = json.dumps({"label": uuid4().hex})
    over_queue(rig, dead, written("shapes", parameters, {}))
    rig.queues.run(rig.machine)
    over_queue(rig, dead, written("shapes", parameters, {"if_ended": "fail"}), "m-2")
    (letter,) = rig.engine.query("select dead_letter_id, reason, description, kind, body from app.dead_letters")
    assert (letter["reason"], letter["kind"]) == ("SubmissionRefused", "submission")
    assert "was not submitted again" in letter["description"]
    # It can be sent again: its body is as it came.
    assert dead.redrive(Selection(ids=(letter["dead_letter_id"],))).count("sent") == 1


def test_reused_key_is_a_dead_letter_with_its_reason(rig, dead):
    for n in (1, 2):
        over_queue(rig, dead, written("shapes", json.dumps({"n": n}), {"idempotency_key": "k"}), f"m-{n}")
    assert rig.engine.query("select reason from app.dead_letters") == [{"reason": "IdempotencyKeyReused"}]


def test_refusals_of_different_kinds_are_groups_of_their_own(rig, dead):
    for number, body in enumerate(["no JSON", written("shapes", '{"n": "x"}', {}), written("shapes", '{"m": 1}', {})]):
        over_queue(rig, dead, body, f"m-{number}")
    groups = rig.engine.query("select fingerprint from app.dead_letters")
    assert len({group["fingerprint"] for group in groups}) == 3


def test_message_that_comes_again_after_its_refusal_is_one_letter(rig, dead):
    for _ in range(2):
        over_queue(rig, dead, written("shapes", '{"n": "x"}', {}))
    assert len(rig.engine.query("select 1 from app.dead_letters")) == 1
