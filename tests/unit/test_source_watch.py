"""Which saved files start the workers anew."""

from pathlib import Path

from coremachine.local.source_watch import SourceWatch


def test_new_changed_and_removed_files_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    one, two = tmp_path / "one.py", tmp_path / "a" / "two.py"
    one.write_text("1")
    watch = SourceWatch(tmp_path)
    assert watch.find_changes() == []
    one.write_text("12")
    two.write_text("1")
    assert watch.find_changes() == [Path("a/two.py"), Path("one.py")]
    two.unlink()
    assert watch.find_changes() == [Path("a/two.py")]
    assert watch.find_changes() == []


def test_other_files_hidden_folders_and_environments_are_left_out(tmp_path):
    watch = SourceWatch(tmp_path)
    for name in (".git/hook.py", "__pycache__/a.py", "env/lib/mine.py", ".coremachine/x.py", "notes.txt", "tests/a.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("1")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    for name in ("test_jobs.py", "conftest.py"):
        (tmp_path / name).touch()
    assert watch.find_changes() == []


def test_a_change_is_waited_for(tmp_path):
    steps = iter([lambda: None, lambda: (tmp_path / "one.py").write_text("1")])
    pauses = []

    def wait(seconds):
        pauses.append(seconds)
        next(steps)()

    assert SourceWatch(tmp_path, wait).wait_for_change() == [Path("one.py")]
    assert len(pauses) == 2
    assert min(pauses) > 0
