"""Overviews as GDAL makes them have no problem, whatever their method and size; others do."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.shutil import copy
from rasterio.transform import from_origin

from jobs.flood_risk_cog import facts
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.facts import read_facts
from jobs.flood_risk_cog.neighbours import Span, disagreements
from jobs.flood_risk_cog.overview_check import OverviewCheck, overview_check
from jobs.flood_risk_cog.source import open_raster

METHODS = ["nearest", "average", "mode", "bilinear", "cubic", "cubic_spline", "lanczos", "gauss", "rms"]


def make_cog(path, values, method):
    plain = path.with_name("plain.tif")
    _, height, width = values.shape
    shape = {"width": width, "height": height, "count": len(values), "dtype": values.dtype, "nodata": 0}
    place = {"crs": "EPSG:32614", "transform": from_origin(600_000, 3_300_000, 1, 1)}
    with rasterio.open(plain, "w", driver="GTiff", **shape, **place) as dataset:
        dataset.write(values)
    copy(plain, path, driver="COG", BLOCKSIZE=128, OVERVIEW_RESAMPLING=method.replace("_", "").upper())
    return path


def problems_of(cog, method):
    with open_raster(str(cog)) as base, overview_check(str(cog), base, 128, method) as check:
        read_facts(base, seen_bands=check.see)
        return check.problems()


def noise(height, width, dtype="float32", bands=2):
    random = np.random.default_rng(height)
    values = random.integers(1, 200, (bands, height, width)).astype(dtype)
    values[:, height // 3 :][random.random((bands, height - height // 3, width)) > 0.6] = 0
    return values


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("height", "width"), [(512, 256), (613, 517), (1031, 130)])
def test_overviews_as_they_were_made_have_no_problem(tmp_path, method, height, width):
    cog = make_cog(tmp_path / "cog.tif", noise(height, width), method)
    assert problems_of(cog, method) == []


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float64"])
@pytest.mark.parametrize("method", ["nearest", "mode"])
def test_so_do_those_of_all_types(tmp_path, dtype, method):
    cog = make_cog(tmp_path / "cog.tif", noise(309, 261, dtype), method)
    assert problems_of(cog, method) == []


@pytest.mark.parametrize(("height", "width"), [(512, 512), (613, 517)])
def test_overviews_of_another_raster_are_found_at_each_level(tmp_path, height, width):
    """The last level of one raster is compared with the full size of another."""
    values = noise(height, width)
    one = make_cog(tmp_path / "one.tif", values, "average")
    other = make_cog(tmp_path / "other.tif", values + 500, "average")
    with open_raster(str(one)) as base:
        levels = range(len(base.overviews(1)))
        for level in levels:
            with (
                overview_check(str(one), base, 128, "average") as check,
                open_raster(str(other), overview_level=level) as wrong,
            ):
                check.overviews[level] = wrong
                read_facts(base, seen_bands=check.see)
                assert check.problems()[0].startswith(f"overview {level + 1} at column 0, row 0: found ")


def with_a_wrong_pixel(check, width, at):
    """The check of an overview of this width as if one pixel in it were another one."""
    read = check._read

    def changed(overview, numbers, window):
        found, valid = read(overview, numbers, window)
        row, column = at[0] - window.row_off, at[1] - window.col_off
        if overview.width == width and 0 <= row < found.shape[1] and 0 <= column < found.shape[2]:
            found[:, row, column], valid[:, row, column] = 9999, True
        return found, valid

    check._read = changed


@pytest.fixture(scope="module")
def wide_cog(tmp_path_factory):
    """A COG of noise in six windows, once for each method."""
    made = {}

    def cog_of(method):
        if method not in made:
            made[method] = make_cog(tmp_path_factory.mktemp("wide") / "cog.tif", noise(613, 1100)[:1], method)
        return made[method]

    return cog_of


@pytest.mark.parametrize("at", [(256, 10), (0, 256), (256, 256), (300, 549)])
@pytest.mark.parametrize("method", ["bilinear", "average"])
def test_pixels_at_the_edge_of_a_window_have_bounds_too(wide_cog, monkeypatch, method, at):
    """Sizes that are rounded or a method that looks at neighbours: windows meet at row and column 512."""
    monkeypatch.setattr(facts, "MOST_WINDOW_BYTES", 1)
    one = wide_cog(method)
    with open_raster(str(one)) as base, overview_check(str(one), base, 128, method) as check:
        with_a_wrong_pixel(check, 550, at)
        read_facts(base, seen_bands=check.see)
        assert check.problems()[0].startswith(f"overview 1 at column {at[1]}, row {at[0]}: found ")


@pytest.mark.parametrize("bands", [1, 6])
def test_an_average_needs_no_samples_where_a_side_is_no_multiple(tmp_path, monkeypatch, bands):
    """For a sample of some bands, tiles of all bands would be decoded again."""
    monkeypatch.setattr(facts, "MOST_WINDOW_BYTES", 1)
    cog = make_cog(tmp_path / "cog.tif", noise(613, 1101, bands=bands), "average")
    monkeypatch.setattr(OverviewCheck, "_compare_samples", lambda _check, level: pytest.fail(f"samples of {level}"))
    assert problems_of(cog, "average") == []


def test_no_pixel_of_an_overview_of_many_wide_bands_is_made_of_nothing(tmp_path):
    path = tmp_path / "a.tif"
    shape = {"width": 1001, "height": 1003, "count": 5, "dtype": "float32"}
    place = {"crs": "EPSG:32614", "transform": from_origin(600_000, 3_300_000, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as dataset:
        dataset.write(np.full((5, 1003, 1001), 7, "float32"))
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326", kind="continuous")
    for level in range(2):
        with rasterio.open(result["path"], overview_level=level) as overview:
            values, valid = overview.read(), overview.read_masks() > 0
        assert np.allclose(values[valid], 7)


def changed_overview(tmp_path, method, band, **profile):
    """What is found where a band of the first overview is 1 everywhere."""
    cog = tmp_path / "cog.tif"
    shape = {"width": 300, "height": 300, "dtype": "uint8", "tiled": True, "blockxsize": 128, "blockysize": 128}
    place = {"crs": "EPSG:32614", "transform": from_origin(600_000, 3_300_000, 1, 1)}
    values = np.random.default_rng(0).integers(100, 120, (profile["count"], 300, 300)).astype("uint8")
    with rasterio.open(cog, "w", driver="GTiff", **shape, **place, **profile) as dataset:
        dataset.write(values)
        dataset.build_overviews([2, 4], Resampling[method])
    assert problems_of(cog, method) == []
    with rasterio.open(cog, "r+", overview_level=0) as overview:
        overview.write(np.ones((150, 150), "uint8"), band)
    (problem,) = problems_of(cog, method)
    return problem


def test_bands_beyond_the_first_ones_are_compared_too(tmp_path):
    assert changed_overview(tmp_path, "average", 6, count=6).startswith("overview 1 at column 0, row 0: found 22500")


def test_alpha_of_an_overview_is_compared_as_a_value(tmp_path):
    found = changed_overview(tmp_path, "average", 4, count=4, photometric="RGB", alpha="YES")
    assert found.startswith("overview 1 at column 0, row 0: found 16384")


def test_a_root_of_squares_has_bounds_too(tmp_path):
    assert "with a value that nothing around it" in changed_overview(tmp_path, "rms", 1, count=1)


@pytest.mark.parametrize(("low", "high", "root", "is_right"), [(-9, -4, 5, True), (-9, -4, 3, False), (-2, 8, 0, True)])
def test_a_root_of_squares_lies_between_magnitudes(low, high, root, is_right):
    value, known = np.full((1, 1, 1), float(root)), np.ones((1, 1, 1), bool)
    span = Span(np.full((1, 1, 1), low), np.full((1, 1, 1), high), known, known)
    assert (disagreements(value, known, span, "rms") == []) is is_right


@pytest.mark.parametrize("method", ["cubic", "cubic_spline", "lanczos"])
def test_methods_that_go_beyond_values_do_not_go_far(tmp_path, method):
    assert "with a value far from all around it" in changed_overview(tmp_path, method, 1, count=1)
