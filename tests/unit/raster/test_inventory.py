from pathlib import Path

import fsspec
import pytest

from jobs.flood_risk_cog.inventory import AmbiguousRasters, NoRasters, inspect_raster, list_rasters
from jobs.flood_risk_cog.source import SourceNotFound


def test_rasters_are_listed_by_name_and_other_files_left_out(tmp_path):
    for name in ("b.TIF", "a.tiff", "notes.txt"):
        (tmp_path / name).write_bytes(b"123")
    (tmp_path / "folder.tif").mkdir()
    files = list_rasters(str(tmp_path))
    assert [(file["name"], file["bytes"]) for file in files] == [("a.tiff", 3), ("b.TIF", 3)]
    assert Path(files[0]["path"]) == tmp_path / "a.tiff"


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(SourceNotFound, match="nowhere"):
        list_rasters(str(tmp_path / "nowhere"))


def test_a_source_without_rasters_is_refused(tmp_path):
    with pytest.raises(NoRasters, match=r"expected \*\.tif"):
        list_rasters(str(tmp_path))


def test_rasters_that_would_overwrite_each_other_are_refused(tmp_path):
    for name in ("a.tif", "a.tiff"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(AmbiguousRasters, match="rename"):
        list_rasters(str(tmp_path))


def test_a_raster_that_cannot_be_opened_is_listed_with_its_problem(tmp_path, make_raster):
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"not a raster")
    assert "cannot be opened" in inspect_raster(str(broken))["problem"]
    good = inspect_raster(make_raster(nodata=float("nan")))
    assert good["problem"] is None
    assert (good["width"], good["height"], good["bands"], good["dtype"]) == (640, 700, 1, "float32")
    assert (good["crs"], good["nodata"]) == ("EPSG:32614", "nan")
    assert good["bounds"] == [600_000, 3_293_000, 606_400, 3_300_000]


def test_a_url_is_listed_and_opened_through_fsspec(make_raster):
    memory = fsspec.filesystem("memory")
    memory.pipe("/floods/a.tif", Path(make_raster()).read_bytes())
    try:
        (file,) = list_rasters("memory://floods")
        assert file["path"].startswith("memory://")
        assert inspect_raster(file["path"])["width"] == 640
    finally:
        memory.rm("/floods", recursive=True)
