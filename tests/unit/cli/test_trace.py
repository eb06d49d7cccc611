"""A traceback shows the author's code, and says how much of the engine's it does not."""

from pathlib import Path

import pytest

import core
from core.safety.safe_text import trace_of
from coremachine.cli.trace import without_engine

HERE = str(Path(core.__file__).parents[1])


def frame(path: str, code: str = "    run()") -> str:
    return f'  File "{path}", line 7, in f\n{code}\n'


HEAD, END = "Traceback (most recent call last):\n", "ValueError: no\n  File within the message"


@pytest.mark.parametrize(
    "engine",
    [
        f"{HERE}/core/running/task_batch.py",
        f"{HERE}/jobs/typed.py",
        "/opt/venv/lib/python3.12/site-packages/coremachine/core/isolation/child.py",
        "C:\\venv\\Lib\\site-packages\\coremachine\\jobs\\typed.py",
    ],
)
def test_frames_of_the_engine_are_counted(engine: str) -> None:
    own = frame("/home/ann/core/jobs/mine.py", "    read(\n      ^^^^\n    ...<2 lines>...")
    trace = HEAD + frame(engine) + frame(engine) + own + frame(engine) + own + END
    gap = "  ({} of CoreMachine left out; --full shows all)\n"
    assert without_engine(trace) == HEAD + gap.format("2 frames") + own + gap.format("1 frame") + own + END


def test_an_error_within_the_engine_is_shown_whole() -> None:
    trace = HEAD + frame(f"{HERE}/core/machine.py") + END
    assert without_engine(trace) == trace
    assert without_engine("") == ""


def test_causes_are_kept() -> None:
    def fail() -> None:
        try:
            {}["a"]
        except KeyError as error:
            raise ValueError("two\nlines") from error

    with pytest.raises(ValueError, match="two") as caught:
        fail()
    trace = trace_of(caught.value)
    assert trace is not None
    assert without_engine(trace) == trace


def test_own_jobs_below_the_package_of_the_checkout_are_not_the_engine() -> None:
    own = frame(f"{HERE}/jobs/flood_risk_cog/process.py")
    trace = HEAD + frame(f"{HERE}/core/machine.py") + own + END
    assert "flood_risk_cog" in without_engine(trace)
