"""An unknown keyword of what an author constructs is answered with the name that was meant."""

import inspect
from collections.abc import Callable

import pytest

import coremachine
from core.models.definition import RetryPolicy, StageDefinition

NO_QUEUES: list[str] = []


@pytest.mark.parametrize(
    ("construct", "expected"),
    [
        (
            lambda: coremachine.Stage("a", timeout=5),
            r"^Stage: .*did you mean queue_timeout_seconds, task_timeout_seconds or timeout_seconds\?",
        ),
        (lambda: coremachine.Stage("a", tasktype="b"), r"'tasktype' \(did you mean task_type\?\)"),
        (lambda: coremachine.Handler("a", len, queu="t"), r"^Handler: .*'queu' \(did you mean queue\?\)"),
        (lambda: coremachine.handler("a", memory=3), r"^handler: .*did you mean memory_limit_mb\?"),
        (lambda: coremachine.RetryPolicy(max_attempt=3), r"^RetryPolicy: .*did you mean max_attempts\?"),
        (lambda: coremachine.FailurePolicy(maxfailed=1), r"^FailurePolicy: .*did you mean max_failed"),
        (lambda: coremachine.Task(params={}), r"^TaskDefinition: .*did you mean parameters\?"),
        (lambda: coremachine.Registry([], [], NO_QUEUES, instaed=[]), r"^Registry: .*did you mean instead\?"),
        (lambda: coremachine.Stage("a", zzz=1, yyy=2), r"found 'yyy'; 'zzz'$"),
    ],
)
def test_the_nearest_name_is_offered(construct: Callable[[], object], expected: str) -> None:
    with pytest.raises(TypeError, match=expected):
        construct()


def test_what_is_missing_is_still_python_s_own_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        coremachine.Stage(timeout_seconds=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("construct", "expected"),
    [
        (
            lambda: coremachine.Limit(name="api", rate="100 per minute"),
            "Limit.rate: expected a rate such as '100/min', '10/s', '5/30s' or '1000/day', found '100 per minute'",
        ),
        (
            lambda: coremachine.Limit(name="api", at_once=-1),
            "Limit.at_once: expected greater than or equal to 0, found -1",
        ),
        (lambda: RetryPolicy(max_attempts=0), "RetryPolicy.max_attempts: expected greater than or equal to 1, found 0"),
    ],
)
def test_a_wrong_value_is_answered_in_words_of_ours(construct: Callable[[], object], expected: str) -> None:
    """It was an error of pydantic, with an address of its web page."""
    with pytest.raises(ValueError, match="expected") as refused:
        construct()
    assert (type(refused.value), str(refused.value)) == (ValueError, expected)


def test_tools_see_the_constructor_and_models_read_documents_as_before() -> None:
    assert list(inspect.signature(coremachine.Stage).parameters)[:2] == ["name", "parallelism"]
    assert "max_attempts" in inspect.signature(RetryPolicy).parameters
    assert RetryPolicy.model_validate({"max_attempts": 2}) == RetryPolicy(max_attempts=2)
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        RetryPolicy.model_validate({"max_attempt": 2})
    stage = {"number": 1, "name": "a", "task_type": "a", "parallelism": "single", "retry": {"max_attempts": 2}}
    assert StageDefinition.model_validate(stage).retry.max_attempts == 2


def test_a_subclass_of_a_model_has_its_own_names() -> None:
    class Mine(coremachine.Task):
        more: int = 0

    assert Mine(more=1).more == 1
    with pytest.raises(TypeError, match=r"^Mine: .*did you mean more\?"):
        Mine(mor=1)
