"""Whatever handlers, planners, finalizers and validators do, the row has a readable reason and the job goes on."""

import json
import logging
from functools import partial

import pytest

from core.advancing import stage_planner
from core.basics.canonical import LARGE_VALUE_BYTES
from core.context import TaskContext
from core.errors import AuthorError, StoreUnavailable
from core.models import JobRef, StageRef, TaskDefinition
from core.models.control import RerunMode, RerunRequest
from core.orchestration_manager import AppRole
from core.state_manager import StateManager

from .machine_suite import Behaviours, Rig, ShapesJob, build_registry


class NoText(Exception):
    def __str__(self):
        return None  # noqa: PLE0307 - as in the wild


def raising(make_error):
    def act(*_):
        raise make_error()

    return act


@pytest.fixture(params=[False, True], ids=["by message", "on the spot"])
def rig(engine, request):
    return Rig(engine, on_the_spot=request.param)


@pytest.fixture
def plan(monkeypatch):
    """Replaces the planner of a stage."""
    original = ShapesJob.create_tasks_for_stage

    def replace(stage, planner):
        def planned(number, job_params, job_id, previous):
            return planner(job_params) if number == stage else original(number, job_params, job_id, previous)

        monkeypatch.setattr(ShapesJob, "create_tasks_for_stage", staticmethod(planned))

    return replace


@pytest.fixture
def finalize(monkeypatch):
    return lambda finalizer: monkeypatch.setattr(ShapesJob, "finalize_job", staticmethod(finalizer))


def events(rig, job_id, event):
    query = "select stage, task_id, detail from app.job_events where job_id = %s and event = %s order by event_id"
    return rig.engine.query(query, job_id, event)


@pytest.mark.parametrize(
    ("make_error", "error_type", "attempts"),
    [
        (lambda: SystemExit(3), "SystemExit", 1),
        (KeyboardInterrupt, "KeyboardInterrupt", 3),
        (GeneratorExit, "GeneratorExit", 3),
        (NoText, "NoText", 3),
    ],
)
def test_task_that_ends_strangely_has_failed_and_its_neighbours_go_on(rig, make_error, error_type, attempts):
    rig.behave.before["s2-n1"] = raising(make_error)
    job_id = rig.run(n=5)

    job = rig.job(job_id)
    assert (job.status, job.result) == ("completed_with_errors", {"total": 0 + 4 + 9 + 16, "failed": 1})
    failed = rig.tasks(job_id, 2)[1]
    assert (failed["status"], failed["attempt"], failed["error"]["type"]) == ("failed", attempts, error_type)
    assert "in act" in failed["error"]["traceback"]
    assert rig.keeper.held() == []


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            {"success": False, "error": "a\x00\ud800", "error_type": "T\x00", "retryable": False},
            "a\N{REPLACEMENT CHARACTER}?",
        ),
        ({"success": False, "error": "x", "retry_after_seconds": "soon", "retryable": False}, "found 'soon'"),
        ({"square": {1: 2}}, "result.square: expected names that are str, found int 1"),
        ({"square": "x" * (17 * 1024 * 1024)}, "expected at most 16,777,216 bytes of JSON, found 17,825,805"),
    ],
    ids=["unstorable text", "seconds", "names", "size"],
)
def test_strange_return_value_fails_its_task_alone_and_says_why(rig, returned, said):
    rig.behave.before["s2-n1"] = lambda _: returned
    job_id = rig.run(n=3)

    assert rig.job(job_id).status == "completed_with_errors"
    failed = rig.tasks(job_id, 2)[1]
    assert (failed["status"], failed["attempt"]) == ("failed", 1)
    assert said in failed["error"]["message"]


@pytest.mark.parametrize("seconds", ["0", 0.0, float("nan"), -1, "soon"])
def test_seconds_of_any_kind_lead_to_another_attempt(rig, seconds):
    told = {"success": False, "error": "busy", "retry_after_seconds": seconds}
    rig.behave.before["s2-n1"] = lambda context: told if context.attempt == 1 else None
    job_id = rig.run(n=2)

    assert rig.job(job_id).status == "completed"
    assert [task["attempt"] for task in rig.tasks(job_id, 2)] == [1, 2]


def test_results_that_are_too_much_for_one_call_are_written_in_several(rig, monkeypatch):
    monkeypatch.setattr("core.running.outcome_writer.MOST_BYTES_AT_ONCE", 1000)
    calls = []
    complete = StateManager.complete_tasks

    def counted(self, ref, *, results, **rest):
        calls.append(len(results))
        return complete(self, ref, results=results, **rest)

    monkeypatch.setattr(StateManager, "complete_tasks", counted)
    for number in range(7):
        rig.behave.before[f"s2-n{number}"] = lambda _: {"square": 1, "more": "x" * 600}
    job_id = rig.run(n=7)

    assert rig.job(job_id).result == {"total": 7, "failed": 0}
    assert max(calls) == 1


def as_exit(_):
    raise SystemExit(4)


def as_count(stage, context):
    return {"count": len(list(context.results(stage)))}


def exits_on_the_way(_):
    yield TaskDefinition()
    raise SystemExit(4)


def same_twice(_):
    return [TaskDefinition(name="twice"), TaskDefinition(name="twice")]


@pytest.mark.parametrize(
    ("planner", "error_type", "said"),
    [
        (as_exit, "SystemExit", "found sys.exit(4); raise PermanentTaskError"),
        (exits_on_the_way, "SystemExit", "found sys.exit(4)"),
        (lambda _: None, "ContractViolationError", "stage 2: expected an iterable of TaskDefinition, found NoneType"),
        (
            lambda _: [{"name": "a"}],
            "ContractViolationError",
            "task 0: expected a TaskDefinition, found dict {'name': 'a'}",
        ),
        (
            lambda _: [TaskDefinition(), None],
            "ContractViolationError",
            "task 1: expected a TaskDefinition, found NoneType",
        ),
        (lambda _: [TaskDefinition(name="a\x00b")], "ContractViolationError", r"found str 'a\x00b'"),
        (
            lambda _: [TaskDefinition.model_construct(name="x" * 501)],
            "ContractViolationError",
            "expected 1 to 500 characters",
        ),
        (
            lambda _: [TaskDefinition(task_type="\ud800")],
            "ContractViolationError",
            r"task_type: expected text without NUL",
        ),
        (
            lambda _: [TaskDefinition(parameters={"a": {1: 2}})],
            "NotJson",
            "task s2-000000: parameters.a: expected names",
        ),
        (
            lambda _: [TaskDefinition(parameters={"a": "x" * (17 * 1024 * 1024)})],
            "ValueTooLarge",
            "task s2-000000: parameters: expected at most 16,777,216 bytes of JSON, found 17,825,800",
        ),
        (same_twice, "DuplicateTaskName", "found 'twice' twice"),
    ],
)
def test_planner_that_goes_wrong_fails_its_job_with_the_reason(rig, plan, planner, error_type, said):
    plan(2, planner)
    job_id = rig.run(n=2)

    job = rig.job(job_id)
    assert (job.status, job.error["type"], job.error["step"]) == ("failed", error_type, "plan_stage")
    assert said in job.error["message"]


def test_planner_that_is_interrupted_is_asked_again(rig, plan):
    asked = []

    def interrupted_once(_):
        asked.append(1)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return [TaskDefinition(parameters={"number": 3})]

    plan(2, interrupted_once)
    job_id = rig.run(n=2)

    assert (rig.job(job_id).result, len(asked)) == ({"total": 9, "failed": 0}, 2)


@pytest.mark.parametrize(
    ("finalizer", "error_type", "said"),
    [
        (as_exit, "SystemExit", "found sys.exit(4)"),
        (raising(NoText), "NoText", "whose text cannot be read: TypeError"),
        (raising(GeneratorExit), "GeneratorExit", "GeneratorExit"),
        (lambda _: {"a": {1: 2}}, "NotJson", "finalize_job of 'shapes'.a: expected names that are str"),
        (lambda _: "text", "ContractViolationError", "expected it to return a mapping, found str 'text'"),
        (lambda _: (one for one in []), "ContractViolationError", "found a generator, of which nothing has run"),
        (lambda _: {"a": "x" * (17 * 1024 * 1024)}, "ValueTooLarge", "expected at most 16,777,216 bytes"),
        # Of a stage that there is not they were empty; with True the database refused the statement, for ever.
        *(
            (partial(as_count, stage), "ContractViolationError", f"a stage of 'shapes', 1 to 3, found {stage!r}")
            for stage in (0, 4, 2**70, True, None, "1", 1.0, [1])
        ),
    ],
)
def test_finalizer_that_goes_wrong_fails_its_job_with_the_reason(rig, finalize, finalizer, error_type, said):
    finalize(finalizer)
    job_id = rig.run(n=1)

    job = rig.job(job_id)
    assert (job.status, job.error["type"], job.error["step"]) == ("failed", error_type, "finalize_job")
    assert said in job.error["message"]


def test_finalizer_that_succeeds_at_last_ends_the_job(rig, finalize):
    asked = []

    def interrupted_once(context):
        asked.append(1)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return {"asked": len(asked)}

    finalize(interrupted_once)

    assert rig.job(rig.run(n=1)).result == {"asked": 2}


@pytest.mark.parametrize("names", [[None, "000000"], ["000001", None], [None, "000000", None, "000002"]])
def test_task_named_like_a_number_is_another_than_one_without_a_name(rig, plan, names):
    plan(2, lambda _: [TaskDefinition(name=name, parameters={"number": 1}) for name in names])
    job_id = rig.run(n=1)

    assert rig.job(job_id).result == {"total": len(names), "failed": 0}
    assert [task["name"] for task in rig.tasks(job_id, 2)] == names


def test_task_named_like_a_number_keeps_its_id_among_others_with_names(rig, plan):
    plan(2, lambda _: [TaskDefinition(name=name, parameters={"number": 1}) for name in ("202401", "000000")])
    job_id = rig.run(n=1)

    assert [task["task_id"] for task in rig.tasks(job_id, 2)] == ["s2-202401", "s2-000000"]


def test_nobody_sees_what_an_author_changes_in_the_jobs_parameters(rig, plan, finalize):
    seen = []

    def look(given):
        seen.append(json.dumps(given, sort_keys=True))
        given["bad"].append(["changed"])
        given["n"] = 99

    def finalizer(context):
        look(context.parameters)
        return {}

    def planner(given):
        look(given)
        return [TaskDefinition(parameters={"number": number}) for number in range(3)]

    def act(context: TaskContext):
        look(context.job_parameters)
        return {"square": 1}

    plan(2, planner)
    finalize(finalizer)
    for task_id in ("s2-000000", "s2-000001", "s2-000002"):
        rig.behave.before[task_id] = act
    job_id = rig.run(n=3)

    assert rig.job(job_id).status == "completed"
    assert (len(seen), len(set(seen))) == (5, 1)
    assert rig.job(job_id).parameters["bad"] == []


def test_large_values_are_noted_in_the_timeline_and_small_ones_are_not(rig, plan, finalize):
    large = "x" * LARGE_VALUE_BYTES
    plan(2, lambda _: [TaskDefinition(name=f"n{n}", parameters={"number": n, "more": large[n:]}) for n in range(3)])
    rig.behave.before["s2-n1"] = lambda _: {"square": 1, "more": large}
    finalize(lambda _: {"more": large})
    job_id = rig.run(n=3, label=large)

    assert rig.job(job_id).status == "completed"
    noted = events(rig, job_id, "large_value")
    assert sorted((one["detail"]["kind"], one["stage"], one["task_id"]) for one in noted) == [
        ("parameters", 1, None),
        ("parameters", 2, "s2-n0"),
        ("result", 2, "s2-n1"),
        ("summary", 3, None),
    ]
    assert {one["detail"]["count"] for one in noted if one["task_id"] == "s2-n0"} == {3}
    assert all(
        one["detail"]["largest_bytes"] > one["detail"]["warned_above_bytes"] == LARGE_VALUE_BYTES for one in noted
    )
    assert events(rig, rig.run(n=3), "large_value") != []  # its tasks and summary are as large; its own parameters not
    assert len(events(rig, rig.run(n=3, label="small"), "large_value")) == 3


def test_limit_is_the_apps_own(engine):
    rig = Rig(engine)
    rig.orchestration.role = AppRole(app_name="test", most_bytes=1024)
    rig.behave.before["s2-n1"] = lambda _: {"square": 1, "more": "x" * 1024}
    job_id = rig.run(n=2)

    assert "expected at most 1,024 bytes of JSON" in rig.tasks(job_id, 2)[1]["error"]["message"]
    with pytest.raises(ValueError, match="parameters: expected at most 1,024 bytes of JSON"):
        rig.submit(label="x" * 1024)


@pytest.mark.parametrize(
    ("validator", "said"),
    [
        (as_exit, r"SystemExit.*sys\.exit\(4\)"),
        (raising(NoText), "whose text cannot be read|NoText"),
        (lambda _: None, "expected it to return a dict, found NoneType"),
        (lambda _: {"a": {1: 2}}, "parameters.a: expected names that are str"),
    ],
)
def test_validator_that_goes_wrong_refuses_the_submission_and_nothing_else(rig, monkeypatch, validator, said):
    ended = rig.run(n=1)
    monkeypatch.setattr(ShapesJob, "validate_job_parameters", validator)

    with pytest.raises(AuthorError, match=f"(?s){said}"):
        rig.submit(n=1)
    with pytest.raises(AuthorError, match=f"(?s){said}"):
        rig.machine.rerun_job(ended, RerunRequest(mode=RerunMode.ALL, parameters={"n": 2}))
    assert rig.engine.query("select job_id, run from app.jobs") == [{"job_id": ended, "run": 1}]


@pytest.mark.parametrize(
    "name",
    ["stages", "parameters_outside_job_id", "validate_job_parameters", "create_tasks_for_stage", "finalize_job"],
)
def test_class_whose_attributes_cannot_be_looked_up_fails_its_own_job(engine, name):
    """A metaclass may raise at any look, and SystemExit would end the worker's thread."""

    odd = set()

    class Meta(type(ShapesJob)):
        def __getattribute__(cls, wanted):
            if wanted in odd:
                raise SystemExit(4)
            return super().__getattribute__(wanted)

    class Odd(ShapesJob, metaclass=Meta):
        pass

    rig = Rig(engine, registry=build_registry(Behaviours(), Odd))
    job_id = rig.submit(n=1)
    odd.add(name)
    if name in {"parameters_outside_job_id", "validate_job_parameters"}:
        with pytest.raises(AuthorError, match="SystemExit"):
            rig.submit(n=2)
        return
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "failed"
    assert rig.job(job_id).error["type"] == "SystemExit"


@pytest.mark.parametrize("made", [None, {}, TaskDefinition()])
def test_record_that_is_none_refuses_submission_and_rerun_and_nothing_is_written(rig, monkeypatch, made):
    ended = rig.run(n=1)
    monkeypatch.setattr(ShapesJob, "create_job_record", lambda *_, **__: made)

    with pytest.raises(AuthorError, match="create_job_record of 'shapes': expected it to return a JobRecord, found"):
        rig.submit(n=2)
    with pytest.raises(AuthorError, match="create_job_record of 'shapes': expected it to return a JobRecord, found"):
        rig.machine.rerun_job(ended, RerunRequest(mode=RerunMode.ALL))
    assert rig.engine.query("select job_id, run from app.jobs") == [{"job_id": ended, "run": 1}]


@pytest.mark.parametrize("parameters", [[1, 2], None, "text", 7])
@pytest.mark.parametrize("make", ["model_construct", "model_copy"])
def test_task_whose_parameters_are_no_mapping_fails_the_job_and_is_not_kept(rig, plan, make, parameters):
    """It was stored, and the job's list of tasks could not be read."""
    if make == "model_construct":
        task = TaskDefinition.model_construct(name="t", task_type=None, parameters=parameters)
    else:
        task = TaskDefinition(name="t").model_copy(update={"parameters": parameters})
    plan(2, lambda _: [task])
    job = rig.job(rig.run(n=1))

    assert job.status == "failed"
    assert "stage 2, task 0: parameters: expected a mapping, found" in job.error["message"]
    assert rig.tasks(job.job_id, 2) == []


class Liar(dict):
    """Has other items than those that it holds."""

    def items(self):
        return [("said", {1: 2})]


class Name(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        return True

    def encode(self, *_):
        return b"another"


def test_parameters_that_say_what_json_cannot_carry_fail_the_job_with_their_path(rig, plan):
    """`{1: 2}` of a mapping of an author's own became `{"1": 2}`, since only what it held was looked at."""
    plan(2, lambda _: [TaskDefinition().model_copy(update={"parameters": Liar(number=3)})])
    job = rig.job(rig.run(n=1))

    assert job.status == "failed"
    assert "parameters.said: expected names that are str, found int 1" in job.error["message"]


def test_summary_that_says_what_json_cannot_carry_fails_the_job_with_its_path(rig, finalize):
    finalize(lambda _: {"inner": Liar(number=3)})
    job = rig.job(rig.run(n=1))

    assert job.status == "failed"
    assert "inner.said: expected names that are str, found int 1" in job.error["message"]


def test_names_of_an_author_s_own_class_are_stored_as_the_text_that_they_are(rig, plan):
    """All of them claimed to be equal, and their bytes to be those of another text."""
    plan(
        2,
        lambda _: [
            TaskDefinition(name="x", parameters={"number": 1}).model_copy(update={"name": Name(name)}) for name in "ab"
        ],
    )
    job_id = rig.run(n=1)

    assert rig.job(job_id).status == "completed"
    assert [task["name"] for task in rig.tasks(job_id, 2)] == ["a", "b"]


@pytest.mark.parametrize("step", ["planner", "finalizer"])
def test_other_database_that_is_away_is_a_failed_try_of_the_job(rig, plan, finalize, step):
    """It was taken for an outage of the engine's own: the step was tried for ever, and no attempt counted."""
    fail = raising(lambda: StoreUnavailable("their database"))
    plan(2, fail) if step == "planner" else finalize(fail)
    job = rig.job(rig.run(n=1))

    assert (job.status, job.error["type"], job.error["attempt"]) == ("failed", "StoreUnavailable", 3)
    assert job.error["message"].startswith("their database")


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
def test_earlier_results_are_read_once_however_many_they_are(rig, monkeypatch, many):
    """Up to a thousand came as a list, and a planner that read it twice was silently wrong at one more."""
    if many:
        monkeypatch.setattr(stage_planner, "PREFETCHED_RESULTS", 0)
    seen = []

    def planner(stage, job_params, job_id, previous_results):
        seen.append((stage, hasattr(previous_results, "__len__"), len(list(previous_results)), list(previous_results)))
        return [TaskDefinition(parameters={"number": 1})]

    monkeypatch.setattr(ShapesJob, "create_tasks_for_stage", staticmethod(planner))
    monkeypatch.setattr(ShapesJob, "finalize_job", staticmethod(lambda context: {"n": len(list(context.results(2)))}))
    rig.behave.before["s1-000000"] = lambda _: None
    job = rig.job(rig.run(n=1))

    assert (job.status, job.result) == ("completed", {"n": 1})
    assert set(map(str, seen)) == {"(1, False, 0, [])", "(2, False, 1, [])"}


@pytest.mark.parametrize(
    "queue_job", [raising(lambda: SystemExit(1)), *(lambda *_, made=made, **__: made for made in (None, {}, "x"))]
)
def test_job_whose_message_cannot_be_made_is_written_and_announced_by_the_janitor(rig, monkeypatch, caplog, queue_job):
    with monkeypatch.context() as patch:
        patch.setattr(ShapesJob, "queue_job", queue_job)
        job_id = rig.submit(n=1)
    assert "job_message_not_made" in caplog.messages
    rig.engine.execute(
        "update app.jobs set created_at = created_at - interval '1 hour', updated_at = updated_at - interval '1 hour'"
    )
    rig.janitor.sweep()
    rig.queues.run(rig.machine)

    assert rig.job(job_id).status == "completed"


def test_records_of_state_changes_say_of_what_they_are(rig, caplog):
    caplog.set_level(logging.INFO, logger="core")
    rig.behave.before["s2-n1"] = lambda context: raising(OSError)(context) if context.attempt == 1 else None
    job_id = rig.run(n=1 + 1)

    told = {
        name: [one for one in caplog.records if one.message == name]
        for name in ("task_complete", "task_attempt_failed", "retry_scheduled", "stage_plan_ended", "job_finalized")
    }
    correlation_id = rig.job(job_id).correlation_id
    for records in told.values():
        assert records
        assert {(one.job_id, one.run, one.correlation_id) for one in records} == {(job_id, 1, correlation_id)}
    assert all(one.duration_seconds >= 0 for one in told["job_finalized"] + told["stage_plan_ended"])
    assert [(one.task_id, one.attempt, one.stage) for one in told["retry_scheduled"]] == [("s2-n1", 1, 2)]
    single = [one for one in told["task_complete"] if one.task_ids == ["s2-n1"]]
    assert [(one.task_id, one.attempt, one.stage) for one in single] == [("s2-n1", 2, 2)]
    assert all(one.duration_seconds >= 0 for one in [*single, *told["retry_scheduled"], *told["task_attempt_failed"]])
    assert sum(len(one.task_ids) for one in told["task_complete"]) == 4


def test_nothing_is_told_of_what_did_not_happen(rig, caplog):
    """A late finalizer and a late result change nothing, and were logged as if they had."""
    caplog.set_level(logging.INFO, logger="core")
    job_id = rig.run(n=1)
    caplog.clear()

    rig.state.finalize_job(JobRef(job_id, 1), {})
    lease_id = "00000000-0000-0000-0000-000000000000"
    rig.state.complete_tasks(StageRef(job_id, 1, 2), lease_id=lease_id, results={"s2-n0": {}})
    rig.state.fail_tasks(StageRef(job_id, 1, 2), lease_id=lease_id, errors={"s2-n0": {}})

    assert {one.message for one in caplog.records} == {"stale_lease_refused"}


@pytest.mark.parametrize("ends", [lambda: None, lambda: {"success": False, "error": "late", "retryable": False}])
def test_task_whose_job_was_cancelled_is_told_to_have_come_too_late(rig, caplog, ends):
    caplog.set_level(logging.INFO, logger="core")

    def cancelled_meanwhile(context):
        rig.machine.cancel_job(context.job_id, None)
        return ends()

    rig.behave.before["s2-n0"] = cancelled_meanwhile
    job_id = rig.run(n=1)

    assert (rig.job(job_id).status, rig.tasks(job_id, 2)[0]["status"]) == ("cancelled", "cancelled")
    told = [
        (one.message, one.stage)
        for one in caplog.records
        if one.name == "core.telemetry.reports" and "task" in one.message
    ]
    assert told == [("task_complete", 1), ("task_came_too_late", 2)]


class BrokenHandler(logging.Handler):
    def emit(self, record):
        del record
        raise RuntimeError("collector gone")


@pytest.fixture
def broken_log():
    """A root handler that raises, and a library that puts its own `correlation_id` on every record."""
    root, handler, make = logging.getLogger(), BrokenHandler(), logging.getLogRecordFactory()

    def traced(*args, **kwargs):
        record = make(*args, **kwargs)
        record.correlation_id = "theirs"
        return record

    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.setLogRecordFactory(traced)
    yield
    logging.setLogRecordFactory(make)
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.mark.usefixtures("broken_log")
def test_broken_log_changes_nothing_that_is_done(rig):
    """Submissions that were written answered 500, plans that were written counted as failed."""
    job_id = rig.run(n=2)
    assert rig.job(job_id).status == "completed"
    assert events(rig, job_id, "job_step_retry_scheduled") == []
