import pytest
from PIL import Image
from thumbnails import Thumbnails

from coremachine.testing import run_job


@pytest.fixture
def folders(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name, size in (("wide.png", (400, 100)), ("small.png", (20, 10))):
        Image.new("RGBA", size, "teal").save(source / name)
    return {"source": str(source), "target": str(tmp_path / "target")}


def test_each_picture_has_a_thumbnail(folders, tmp_path):
    result = run_job(Thumbnails, folders | {"pixels": 100})
    assert result.status == "completed"
    assert result.stage("thumbnail").results == [{"width": 20, "height": 10}, {"width": 100, "height": 25}]
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["small.png.jpg", "wide.png.jpg"]


def test_what_is_no_picture_is_reported_after_one_attempt(folders, tmp_path):
    (tmp_path / "source" / "notes.txt").write_text("no picture")
    result = run_job(Thumbnails, folders)
    assert result.status == "completed_with_errors"
    assert result.summary["stages"][1] == {"name": "thumbnail", "completed": 2, "failed": 1}
    (failed,) = result.failures
    assert (failed.name, failed.attempt, failed.error["type"]) == ("notes.txt", 1, "UnidentifiedImageError")


def test_a_process_that_dies_leaves_no_half_picture(folders, tmp_path):
    result = run_job(Thumbnails, folders, crash_at="task.ran:2", inline=False)
    assert result.status == "completed"
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["small.png.jpg", "wide.png.jpg"]
