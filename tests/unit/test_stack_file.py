"""Commands find the stack of the folder that they are in, wherever its data are."""

import os

import pytest

from coremachine.local import stack_file
from coremachine.local.broker.config import load_config
from coremachine.local.queue_config import queue_names, write_config
from coremachine.local.stack_file import StackInfo, find_stack_of, shown_in


def stack_in(data_dir, started_at="2026-01-01T00:00:00", pid=None):
    data_dir.mkdir(parents=True, exist_ok=True)
    info = StackInfo(pid or os.getpid(), started_at, "http://x", "", "", "", "", str(data_dir.resolve()), 1, {})
    info.write()
    return info


def test_a_stack_is_found_from_the_folders_below(tmp_path):
    info = stack_in(tmp_path / ".coremachine")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_stack_of(tmp_path) == find_stack_of(below) == info


def test_a_stack_whose_data_are_elsewhere_is_found_while_it_runs(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    info = stack_in(tmp_path / "data")
    with shown_in(home, info):
        assert find_stack_of(home) == info
    assert find_stack_of(home) is None


def test_of_two_stacks_of_a_folder_the_later_is_meant(tmp_path):
    usual = stack_in(tmp_path / ".coremachine")
    other = stack_in(tmp_path / "data", started_at="2026-01-02T00:00:00")
    with shown_in(tmp_path, usual), shown_in(tmp_path, other):
        assert find_stack_of(tmp_path) == other
    assert find_stack_of(tmp_path) == usual


def test_one_that_began_later_keeps_its_place(tmp_path):
    first, second = stack_in(tmp_path / "a"), stack_in(tmp_path / "b", started_at="2026-01-02T00:00:00")
    with shown_in(tmp_path, first):
        later = shown_in(tmp_path, second)
        later.__enter__()
    assert find_stack_of(tmp_path) == second


def test_a_stack_that_was_killed_is_none(tmp_path):
    stack_in(tmp_path / ".coremachine", pid=2**22 + 1)
    assert find_stack_of(tmp_path) is None


def test_another_user_s_file_above_is_not_trusted(tmp_path, monkeypatch):
    """In a folder that all may write to, it would send commands, and what they carry, to a server of theirs."""
    stack_in(tmp_path / ".coremachine")
    owner = (tmp_path / ".coremachine").stat().st_uid
    monkeypatch.setattr(stack_file.os, "geteuid", lambda: owner + 1)
    assert (find_stack_of(tmp_path / "mine") is None) == (owner != 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of somebody else's is made")
def test_a_file_of_somebody_else_is_not_trusted(tmp_path):
    stack_in(tmp_path / ".coremachine")
    os.chown(tmp_path / ".coremachine" / "stack.json", 12345, 12345)
    assert find_stack_of(tmp_path) is None


def test_the_broker_has_the_queues_of_the_app(tmp_path):
    settings = {"COREMACHINE_JOBS_QUEUE": "my-jobs", "COREMACHINE_TASK_QUEUES": "tasks=my-tasks,a=Coremachine-Tasks"}
    path = write_config(tmp_path / "Config.json", queue_names(settings))
    names = [queue.name for queue in load_config(path).queues]
    assert names == ["my-jobs", "my-tasks", "Coremachine-Tasks"]
    assert load_config(path).queues[0].duplicate_window_seconds == 60


def test_the_broker_has_no_queue_that_no_app_reads(tmp_path):
    """A message for `coremachine-jobs` vanished there in silence, where the project's queue has another name."""
    path = write_config(tmp_path / "Config.json", queue_names({"COREMACHINE_TASK_QUEUES": "tasks=coremachine-tasks"}))
    assert [queue.name for queue in load_config(path).queues] == ["coremachine-jobs", "coremachine-tasks"]


def test_the_broker_s_own_queues_need_no_file(tmp_path):
    assert write_config(tmp_path / "Config.json", queue_names({})) is None
    assert not (tmp_path / "Config.json").exists()
