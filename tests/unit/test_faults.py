"""Fault points: each name stands once in the code, does nothing unless armed, and ends the process when it is."""

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from core.basics import faults
from core.basics.faults import FAULT_POINTS, KILLED_STATUS, UnknownFaultPoint, arm_from_text, armed, fault_point

ROOT = Path(__file__).parents[2]


def names_in_code() -> Counter[str]:
    """The argument of every call of `fault_point`; it has to be a literal."""
    names: Counter[str] = Counter()
    for folder in ("core", "coremachine", "infrastructure", "jobs", "triggers"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            # Most have none, and parsing takes longest.
            for node in ast.walk(ast.parse(text)) if "fault_point" in text else ():
                if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "fault_point":
                    (argument,) = node.args
                    names[ast.literal_eval(argument)] += 1
    return names


def test_each_point_is_declared_and_stands_at_one_place():
    assert names_in_code() == Counter(FAULT_POINTS)
    assert len(set(FAULT_POINTS)) == len(FAULT_POINTS)


def test_unarmed_point_calls_nothing():
    assert faults._hook is None
    calls = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: calls.append((event, frame.f_code.co_name)))
    fault_point("no such point")
    sys.setprofile(before)
    assert [name for event, name in calls if event == "call"] == ["fault_point"]


def test_armed_point_tells_the_hook_its_name():
    reached = []
    with armed(reached.append):
        fault_point("task.ran")
    fault_point("task.settled")
    assert reached == ["task.ran"]


def test_nothing_is_armed_without_a_name():
    arm_from_text("")
    assert faults._hook is None


@pytest.mark.parametrize("text", ["task.run", "task.ran:0", "task.ran:x", "task.ran:-1", ":1"])
def test_wrong_names_are_refused(text):
    with pytest.raises(UnknownFaultPoint, match=r"COREMACHINE_FAULT: expected one of .*task.ran"):
        arm_from_text(text)
    assert faults._hook is None


@pytest.mark.parametrize(("text", "printed"), [("task.ran", b"1\n"), ("task.ran:3", b"1\n2\n3\n")])
def test_process_ends_at_the_nth_time_without_cleaning_up(text, printed):
    code = (
        "import sys; from core.basics.faults import arm_from_text, fault_point\n"
        "arm_from_text(sys.argv[1])\n"
        "try:\n"
        "  for n in range(1, 9): fault_point('task.settled'); print(n, flush=True); fault_point('task.ran')\n"
        "finally:\n"
        "  print('cleaned up', flush=True)\n"
    )
    command = [sys.executable, "-c", code, text]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (KILLED_STATUS, printed)
