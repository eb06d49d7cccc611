from pathlib import Path

import fsspec
import pytest
from rasterio.crs import CRS

from jobs.flood_risk_cog.inventory import (
    NoRasters,
    crs_text,
    inspect_raster,
    inspect_rasters,
    list_rasters,
)
from jobs.flood_risk_cog.marker import MARKER
from jobs.flood_risk_cog.source import SourceNotFound


def test_rasters_are_listed_by_name_and_other_files_left_out(tmp_path):
    for name in ("b.TIF", "a.tiff", "notes.txt"):
        (tmp_path / name).write_bytes(b"123")
    (tmp_path / "folder.tif").mkdir()
    files = list_rasters(str(tmp_path)).rasters
    assert [(file["name"], file["bytes"]) for file in files] == [("a.tiff", 3), ("b.TIF", 3)]
    assert Path(files[0]["path"]) == tmp_path / "a.tiff"


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(SourceNotFound, match="nowhere"):
        list_rasters(str(tmp_path / "nowhere"))


def test_a_source_without_rasters_is_refused(tmp_path):
    with pytest.raises(NoRasters, match=r"expected \*\.tif"):
        list_rasters(str(tmp_path))


def test_rasters_that_would_overwrite_each_other_get_names_of_their_own(tmp_path):
    for name in ("a.tif", "A.TIFF", "b.tif"):
        (tmp_path / name).write_bytes(b"")
    outputs = {file["name"]: file["output"] for file in list_rasters(str(tmp_path)).rasters}
    assert outputs["b.tif"] == "b"
    assert len({output.lower() for output in outputs.values()}) == 3


def test_what_only_looks_like_a_raster_is_told(tmp_path):
    (tmp_path / "real.tif").write_bytes(b"1")
    for name in (".hidden.tif", "._real.tif"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "broken.tif").symlink_to(tmp_path / "nowhere.tif")
    (tmp_path / "linked.tif").symlink_to(tmp_path / "real.tif")
    listing = list_rasters(str(tmp_path))
    assert [file["name"] for file in listing.rasters] == ["linked.tif", "real.tif"]
    assert {each["name"]: each["reason"].split(":")[0] for each in listing.ignored} == {
        "._real.tif": "a resource fork of macOS, not a raster",
        ".hidden.tif": "hidden",
        "broken.tif": "a link that leads nowhere",
    }


def test_a_link_out_of_the_allowed_places_is_told_and_not_followed(tmp_path, monkeypatch):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "a.tif").write_bytes(b"1")
    (outside / "b.tif").write_bytes(b"1")
    (inside / "b.tif").symlink_to(outside / "b.tif")
    monkeypatch.setenv("COREMACHINE_RASTER_ROOTS", str(inside))
    listing = list_rasters(str(inside))
    assert [file["name"] for file in listing.rasters] == ["a.tif"]
    assert "a link out of the allowed places" in listing.ignored[0]["reason"]


def test_folders_and_patterns_are_listed_when_asked_for(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a.tif", "b.tif", "deep/a.tif", "deep/er/c.tif"):
        (tmp_path / name).write_bytes(b"")
    listing = list_rasters(str(tmp_path), recursive=True)
    assert [(file["name"], file["output"]) for file in listing.rasters] == [
        ("a.tif", "a"),
        ("b.tif", "b"),
        ("deep/a.tif", "deep__a"),
        ("deep/er/c.tif", "deep__er__c"),
    ]
    assert [file["name"] for file in list_rasters(f"{tmp_path}/deep/*.tif").rasters] == ["a.tif"]
    assert [file["name"] for file in list_rasters(f"{tmp_path}/[b-c].tif").rasters] == ["b.tif"]


def test_a_raster_that_cannot_be_opened_is_listed_with_its_problem(tmp_path, make_raster):
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"not a raster")
    assert "cannot be opened" in inspect_raster(str(broken))["problem"]
    good = inspect_raster(make_raster(nodata=float("nan")))
    assert good["problem"] is None
    assert (good["width"], good["height"], good["bands"], good["dtype"]) == (520, 530, 1, "float32")
    assert (good["crs"], good["nodata"]) == ("EPSG:32614", "nan")
    assert good["bounds"] == [600_000, 3_294_700, 605_200, 3_300_000]


def test_a_url_is_listed_and_opened_through_fsspec(make_raster):
    memory = fsspec.filesystem("memory")
    memory.pipe("/floods/a.tif", Path(make_raster()).read_bytes())
    try:
        (file,) = list_rasters("memory://floods").rasters
        assert file["path"].startswith("memory://")
        assert inspect_raster(file["path"])["width"] == 520
    finally:
        memory.rm("/floods", recursive=True)


def test_remote_rasters_are_inspected_side_by_side_and_told_in_order(make_raster):
    memory = fsspec.filesystem("memory")
    good = Path(make_raster()).read_bytes()
    for index in range(20):
        memory.pipe(f"/floods/{index:02}.tif", b"no raster" if index == 7 else good)
    try:
        found = list(inspect_rasters(list_rasters("memory://floods").rasters))
    finally:
        memory.rm("/floods", recursive=True)
    assert [raster["name"] for raster in found] == [f"{index:02}.tif" for index in range(20)]
    assert [raster["name"] for raster in found if raster["problem"]] == ["07.tif"]


def test_a_coordinate_system_is_told_by_its_code_or_in_short():
    custom = CRS.from_string("+proj=laea +lat_0=30 +lon_0=-96 +datum=WGS84 +units=m")
    assert crs_text(CRS.from_epsg(32614)) == "EPSG:32614"
    assert crs_text(custom).startswith("PROJCS[")
    wordy = CRS.from_wkt(custom.to_wkt().replace("unknown", "long " * 300, 1))
    assert crs_text(wordy).startswith("custom (WKT of ")


def test_results_are_no_sources(tmp_path):
    (tmp_path / "out" / "cogs").mkdir(parents=True)
    for name in ("a.tif", "out/cogs/a.tif"):
        (tmp_path / name).write_bytes(b"1")
    for name in ("out/summary.json", "out/mosaic-rp10.vrt", "out/items/a/a.json", "out/.coremachine-output.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    listing = list_rasters(str(tmp_path), recursive=True, leave_out=str(tmp_path / "out"))
    assert [file["name"] for file in listing.rasters] == ["a.tif"]
    assert listing.ignored == [{"name": "out/cogs/a.tif", "reason": "a result of this job"}]


def test_a_pattern_over_folders_gives_each_its_name(tmp_path):
    for name in ("x/depth.tif", "y/depth.tif"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"1")
    rasters = list_rasters(f"{tmp_path}/*/depth.tif").rasters
    assert [(file["name"], file["output"]) for file in rasters] == [
        ("x/depth.tif", "x__depth"),
        ("y/depth.tif", "y__depth"),
    ]


def test_a_folder_that_is_called_like_a_pattern_is_that_folder(tmp_path):
    (tmp_path / "p[1]").mkdir()
    (tmp_path / "p[1]" / "a.tif").write_bytes(b"1")
    assert [file["name"] for file in list_rasters(f"{tmp_path}/p[1]").rasters] == ["a.tif"]


def test_a_name_that_is_no_text_is_told(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"1")
    (tmp_path / b"bad\xff.tif".decode(errors="surrogateescape")).write_bytes(b"1")
    (ignored,) = list_rasters(str(tmp_path)).ignored
    assert ignored == {"name": "bad?.tif", "reason": "its name is not UTF-8"}


def test_every_other_file_is_reported_but_those_that_belong_to_a_raster(tmp_path):
    for name in ("a.tif", "a.tif.aux.xml", "a.tfw", "b.tfw", "depths.img", ".DS_Store", "notes.txt"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "more").mkdir()
    listing = list_rasters(str(tmp_path), leave_out=str(tmp_path / "out"))
    assert {each["name"]: each["reason"].split(":")[0] for each in listing.ignored} == {
        ".DS_Store": "hidden",
        "b.tfw": "its name does not end in .tif or .tiff",
        "depths.img": "its name does not end in .tif or .tiff",
        "more": "a folder",
        "notes.txt": "its name does not end in .tif or .tiff",
    }


def test_a_pattern_says_itself_which_folders_it_is_about(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a.tif", "deep/b.tif", "deep/er/c.tif"):
        (tmp_path / name).write_bytes(b"1")
    found = {pattern: [file["name"] for file in list_rasters(f"{tmp_path}/{pattern}").rasters] for pattern in PATTERNS}
    assert found == PATTERNS
    with pytest.raises(ValueError, match=r"recursive: expected false with a pattern.*\*\*"):
        list_rasters(f"{tmp_path}/*.tif", recursive=True)


PATTERNS = {"*.tif": ["a.tif"], "**/*.tif": ["a.tif", "deep/b.tif", "deep/er/c.tif"], "*/*.tif": ["deep/b.tif"]}


@pytest.mark.parametrize("pattern", ["", "/**/*.tif"])
def test_results_of_another_job_below_a_source_are_no_sources(tmp_path, pattern):
    for name in ("a.tif", "out/cogs/b.tif", "out/stale/cogs/c.tif", "cogs/d.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "out" / MARKER).write_text("{}")
    listing = list_rasters(f"{tmp_path}{pattern}", recursive=not pattern)
    assert [raster["name"] for raster in listing.rasters] == ["a.tif", "cogs/d.tif"]
    reasons = {each["name"]: each["reason"] for each in listing.ignored if each["name"].endswith(".tif")}
    assert set(reasons) == {"out/cogs/b.tif", "out/stale/cogs/c.tif"}
    assert all("a result of another job" in reason for reason in reasons.values())
