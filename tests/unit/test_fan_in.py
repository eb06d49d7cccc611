"""Fan-in results are read by reference, as streams, and a missing task is noticed."""

import threading

import pytest

from core.errors import ContractViolationError
from core.fan_in import FanInIncomplete, fan_in_reader, load_fan_in_results
from core.models import StageRef
from core.models.context import CompletedTask, FailedTask

JOB = "a" * 64


def completed(index):
    return CompletedTask(task_id=f"t{index}", task_index=index, name=None, parameters={}, result={"n": index})


def failed(index):
    return FailedTask(task_id=f"t{index}", task_index=index, name=None, parameters={}, error={"message": "no"})


class Store:
    """Three completed tasks and one failed one in stage 2 of run 3; counts what was really read."""

    def __init__(self):
        self.asked, self.read = [], 0

    def stream_results(self, ref):
        self.asked.append(ref)
        for index in (0, 1, 3):
            self.read += 1
            yield completed(index)

    def stream_failures(self, ref):
        self.asked.append(ref)
        yield failed(2)

    def stage_summaries(self, ref):
        raise AssertionError(f"fan-in needs no summaries of {ref}")


def params(**changed):
    return {"fan_in_source": {"job_id": JOB, "run": 3, "stage": 2, "expected_count": 4, **changed}}


def test_results_and_failures_come_from_the_stage_that_the_parameters_name():
    store = Store()
    with fan_in_reader(store):
        loaded = load_fan_in_results(params())

    assert [task.result["n"] for task in loaded.results()] == [0, 1, 3]
    assert [task.task_index for task in loaded.failures()] == [2]
    assert loaded.expected_count == 4
    assert store.asked == [StageRef(JOB, 3, 2)] * 2


def test_nothing_is_read_before_it_is_asked_for():
    store = Store()
    with fan_in_reader(store):
        stream = load_fan_in_results(params()).results()
        assert store.read == 0
        next(stream)
    assert store.read == 1


def test_each_call_reads_anew():
    with fan_in_reader(Store()):
        loaded = load_fan_in_results(params())
    assert list(loaded.results()) == list(loaded.results())


@pytest.mark.parametrize("expected_count", [3, 5])
def test_a_task_in_neither_stream_is_noticed_at_the_end_of_the_second(expected_count):
    with fan_in_reader(Store()):
        loaded = load_fan_in_results(params(expected_count=expected_count))
    assert len(list(loaded.results())) == 3
    with pytest.raises(FanInIncomplete, match=f"expected {expected_count} tasks, found 3 completed and 1 failed"):
        list(loaded.failures())


def test_outside_a_handler_there_is_no_reader():
    with fan_in_reader(Store()):
        pass
    with pytest.raises(ContractViolationError, match="found no reader"):
        load_fan_in_results(params())


def test_handlers_side_by_side_have_each_their_own_reader():
    """A context variable belongs to its thread: a machine with eight task threads has eight readers."""
    refused = []

    def other_thread():
        with pytest.raises(ContractViolationError) as caught:
            load_fan_in_results(params())
        refused.append(str(caught.value))

    outer, inner = Store(), Store()
    with fan_in_reader(outer):
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        with fan_in_reader(inner):
            next(load_fan_in_results(params()).results())
        next(load_fan_in_results(params()).results())
    assert (outer.read, inner.read, len(refused)) == (1, 1, 1)


def test_a_task_that_is_no_fan_in_is_a_bug():
    with (
        fan_in_reader(Store()),
        pytest.raises(ContractViolationError, match="with 'fan_in_source', found \\['tile'\\]"),
    ):
        load_fan_in_results({"tile": 1})


@pytest.mark.parametrize(
    "changed", [{"job_id": "short"}, {"run": 0}, {"stage": "two"}, {"expected_count": -1}, {"expected_count": None}]
)
def test_a_reference_that_the_machine_did_not_make_is_a_bug(changed):
    with fan_in_reader(Store()), pytest.raises(ContractViolationError, match=next(iter(changed))):
        load_fan_in_results(params(**changed))


def test_a_key_of_a_newer_planner_is_no_bug():
    with fan_in_reader(Store()):
        assert load_fan_in_results(params(added_later=1)).source.stage == 2
