"""Which messages go on: those of large stages leave the slots to stages that a process has done little for."""

from core.models import StageRef
from core.running.time_slice import PRESENT_SECONDS, YOUNG_SECONDS, YOUNG_TASKS, YoungStages

LARGE, SMALL = StageRef("a", 1, 1), StageRef("b", 1, 1)


class Process:
    """Its clock, and what it has run."""

    def __init__(self):
        self.now = 100.0
        self.stages = YoungStages(lambda: self.now)

    def run(self, ref, tasks):
        """Whether a message of the stage may go on after each of these tasks."""
        answers = []
        for _ in range(tasks):
            self.stages.note(ref, 1)
            answers.append(self.stages.may_go_on(ref))
        return answers


def test_a_stage_alone_goes_on():
    assert all(Process().run(LARGE, 3 * YOUNG_TASKS))


def test_a_large_stage_leaves_the_slots_to_a_young_one_as_long_as_that_is_about():
    process = Process()
    process.run(LARGE, YOUNG_TASKS)
    process.stages.note(SMALL, 1)
    assert process.run(LARGE, 2) == [False, False]
    process.now += PRESENT_SECONDS / 2
    assert process.run(SMALL, 3) == [True, True, True]
    process.now += PRESENT_SECONDS * 0.75
    assert process.run(LARGE, 1) == [False]
    process.now += PRESENT_SECONDS
    assert process.run(LARGE, 2) == [True, True]


def test_a_stage_of_few_tasks_that_last_is_young_until_they_have_had_much_time():
    process = Process()
    assert process.stages.note(LARGE, 8)
    process.stages.note_seconds(LARGE, YOUNG_SECONDS / 2)
    assert process.stages.note(LARGE, 1)
    process.stages.note_seconds(LARGE, YOUNG_SECONDS / 2)
    assert not process.stages.note(LARGE, 1)
    process.stages.note(SMALL, 1)
    assert process.run(LARGE, 1) == [False]


def test_a_stage_with_much_work_in_one_message_is_young_no_more_before_any_task_has_ended():
    """The messages of a stage of a hundred tasks of 5 s went ahead of small jobs for these 5 s."""
    process = Process()
    assert process.stages.note(LARGE, 8)
    process.stages.note_much(LARGE)
    assert not process.stages.note(LARGE, 8)
    process.stages.note(SMALL, 1)
    assert process.run(LARGE, 1) == [False]


def test_a_stage_that_has_ended_is_not_waited_for():
    process = Process()
    process.run(LARGE, YOUNG_TASKS)
    process.run(SMALL, 1)
    process.stages.forget(SMALL)
    assert process.run(LARGE, 1) == [True]


def test_stages_that_have_both_had_much_do_not_wait_for_each_other():
    process = Process()
    process.run(LARGE, YOUNG_TASKS)
    process.stages.note(SMALL, YOUNG_TASKS)  # of large messages
    process.now += 2 * PRESENT_SECONDS
    process.stages.note(SMALL, YOUNG_TASKS)
    assert all(process.run(LARGE, 3) + process.run(SMALL, 3))


def test_young_stages_do_not_wait_for_each_other():
    process = Process()
    process.stages.note(SMALL, 1)
    assert all(process.run(LARGE, YOUNG_TASKS - 1))
    assert process.run(SMALL, 1) == [True]
