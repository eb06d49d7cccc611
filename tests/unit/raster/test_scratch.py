"""What a killed process left is swept; what works, or is not ours, stays."""

import os
import time

import pytest

from core.context import TaskContext
from jobs.flood_risk_cog import handlers, scratch
from jobs.flood_risk_cog.catalog import build_catalog
from jobs.flood_risk_cog.scratch import PREFIX, ScratchOwner, remove_scratch_of_job, scratch_folder, sweep_scratch
from tests.unit.raster.made import pixels_of, write_raster


def owner(attempt=1, task_id="2-a.tif"):
    return ScratchOwner("0" * 64, task_id, attempt)


def abandon(parent, whose, name="half.tif"):
    """A folder as a killed process leaves it: nobody runs its clean-up."""
    with scratch_folder(parent, whose) as folder:
        aside = folder.rename(folder.with_name("aside"))
        folder.mkdir()
    (aside / name).write_bytes(b"half")
    return aside.rename(folder)


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_folder_is_empty_and_gone_at_the_end_even_after_an_error(tmp_path):
    def fail():
        with scratch_folder(tmp_path / "new", owner()) as folder:
            assert list(folder.iterdir()) == []
            (folder / "half.tif").touch()
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert list((tmp_path / "new").iterdir()) == []


def test_the_next_attempt_removes_what_the_earlier_ones_left(tmp_path):
    left = [abandon(tmp_path, owner(1)), abandon(tmp_path, owner(2))]
    with scratch_folder(tmp_path, owner(10)) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not any(path.exists() for path in left)


def test_an_attempt_that_lost_its_lease_never_touches_a_later_one(tmp_path):
    """Files were half written, or overwritten by an older attempt (lesson D22)."""
    with scratch_folder(tmp_path, owner(3)) as later, scratch_folder(tmp_path, owner(2)):
        assert later.exists()


def test_other_tasks_and_other_files_stay(tmp_path):
    other = abandon(tmp_path, owner(1, task_id="2-b.tif"))
    (tmp_path / ".git-notes").mkdir()
    (tmp_path / "a.tif").touch()
    with scratch_folder(tmp_path, owner(2)):
        pass
    sweep_scratch(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([other, tmp_path / ".git-notes", tmp_path / "a.tif"])


def test_a_sweep_takes_only_folders_that_nobody_wrote_to_for_long(tmp_path):
    old, busy, fresh = (abandon(tmp_path, owner(1, task_id=name)) for name in ("old", "busy", "fresh"))
    for folder in (old, busy):
        age(folder / "half.tif", 7200)
        age(folder, 7200)
    age(busy / "half.tif", 10)
    assert sweep_scratch(tmp_path, idle_seconds=3600) == 1
    assert sorted(tmp_path.iterdir()) == sorted([busy, fresh])


def test_a_sweep_never_follows_a_link(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    age(precious, 7200)
    output = tmp_path / "output"
    output.mkdir()
    (output / ".coremachine-scratch-link").symlink_to(precious)
    assert sweep_scratch(output, idle_seconds=3600) == 0
    assert precious.exists()


def test_a_missing_output_has_nothing_to_sweep(tmp_path):
    assert sweep_scratch(tmp_path / "missing") == 0


def test_a_run_of_a_job_removes_what_its_earlier_runs_left(tmp_path):
    mine = [abandon(tmp_path, owner(attempt, task_id)) for attempt, task_id in ((1, "2-a.tif"), (3, "2-b.tif"))]
    other = abandon(tmp_path, ScratchOwner("1" * 64, "2-a.tif", 1))
    remove_scratch_of_job([tmp_path, tmp_path / "none"], "0" * 64)
    assert not any(folder.exists() for folder in mine)
    assert other.exists()


def test_the_inventory_removes_what_an_earlier_run_left_wherever_it_was(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    write_raster(tmp_path / "in" / "a.tif", pixels_of("uint8", side=20))
    out = tmp_path / "out"
    parameters = {"source": str(tmp_path / "in"), "output": str(out), "target_crs": None, "tile_size": 512}
    parameters |= {"compression": "deflate", "resampling": "auto"}
    left = [abandon(place, owner(task_id="s2-gone.tif")) for place in (out, out / "cogs", out / "items")]
    monkeypatch.setattr(handlers, "inspect_in_children", lambda _paths, _context: [])
    handlers.inventory({}, TaskContext("0" * 64, "flood_risk_cog", 1, "s1-inventory", 0, 1, parameters))
    assert not any(folder.exists() for folder in left)


def test_what_a_killed_catalog_left_is_removed_by_its_next_attempt(tmp_path):
    left = abandon(tmp_path, owner(1, "s3-catalog"))
    build_catalog([], [], str(tmp_path), collection_id="floods", title="Floods", owner=owner(2, "s3-catalog"))
    assert not left.exists()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_scratch_of_another_user_holds_up_no_job(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    left = abandon(tmp_path, owner())
    monkeypatch.setattr(scratch.shutil, "rmtree", refuse)
    assert sweep_scratch(tmp_path, idle_seconds=-1) == 0
    assert left.exists()
