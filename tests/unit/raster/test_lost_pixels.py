"""A reprojection that loses pixels of its source is refused; one that keeps them all is not."""

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_bounds

from jobs.flood_risk_cog import lost_pixels
from jobs.flood_risk_cog.convert import DifferentOutput, convert_raster
from jobs.flood_risk_cog.lost_pixels import find_lost_pixels
from jobs.flood_risk_cog.source import open_raster
from tests.unit.raster.made import pixels_of, write_raster


@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:32613", "EPSG:3857"])
def test_a_hole_that_the_source_does_not_have_is_found(tmp_path, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
    holed = tmp_path / "holed.tif"
    with rasterio.open(result["path"]) as cog:
        profile = {**cog.profile, "nodata": -1}
        values = np.where(cog.read_masks(1) > 0, cog.read(1), -1).astype("float32")
    for size, expected in ((0, None), (9, "valid pixels of the source have no place in it")):
        values[75 : 75 + size, 75 : 75 + size] = -1
        with rasterio.open(holed, "w", **profile) as dataset:
            dataset.write(values, 1)
        with open_raster(str(path)) as before, open_raster(str(holed)) as after:
            found = find_lost_pixels(before, after, is_judged=True).problem
        assert (found is None) if expected is None else (expected in found)


@pytest.mark.parametrize("reach", [0, 1, 3, 9])
@pytest.mark.parametrize("shape", [(20, 30), (2, 7), (1, 1)])
def test_a_square_around_a_pixel_ends_at_the_edge(reach, shape):
    values = np.random.default_rng(0).random(shape) < 0.9
    padded = np.pad(values, reach)
    squares = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    assert np.array_equal(lost_pixels._of_squares(np.logical_and, values, reach), squares.all(axis=(2, 3)))
    assert np.array_equal(lost_pixels._of_squares(np.logical_or, values, reach), squares.any(axis=(2, 3)))


def test_each_place_is_looked_up_in_its_own_tile(tmp_path, monkeypatch):
    """Beside one that is valid, within a tile and across the edges of several; none outside of the raster."""
    monkeypatch.setattr(lost_pixels, "TILE", 16)
    valid = np.random.default_rng(0).random((50, 70)) < 0.1
    path = write_raster(tmp_path / "a.tif", valid[None].astype("uint8") * 9, nodata=0)
    rows, columns = (each.ravel() for each in np.meshgrid(np.arange(-2.5, 53), np.arange(-2.5, 73), indexing="ij"))
    with open_raster(str(path)) as after:
        found = lost_pixels._is_valid_around(after, rows, columns)
    squares = np.lib.stride_tricks.sliding_window_view(np.pad(valid, 1), (3, 3)).any(axis=(2, 3))
    row, column = (np.floor(rows).astype(int).clip(0, 49), np.floor(columns).astype(int).clip(0, 69))
    is_near = (rows >= -1) & (rows < 51) & (columns >= -1) & (columns < 71)
    assert np.array_equal(found, squares[row, column] & is_near)
    assert found.any()


def test_what_web_maps_have_no_place_for_is_named(tmp_path):
    place = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, 600, 300)}
    pixels = np.ones((1, 300, 600), "float32")
    path = write_raster(tmp_path / "a.tif", pixels, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), web_optimized=True)
    assert any("beyond 85.06 degrees" in each for each in result["changed"])


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_pixels_off_the_globe_are_none_that_are_lost(tmp_path):
    place = {"crs": "ESRI:54009", "transform": from_bounds(-1.8e7, -9e6, 1.8e7, 9e6, 200, 100)}
    path = write_raster(tmp_path / "a.tif", np.ones((1, 100, 200), "float32"), **place)
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")
    assert "pixels that are off the globe are left out" in result["changed"]


def polar(half, side):
    """Around the pole on the datum of EPSG:3035: places in that are certain to a pixel."""
    wkt = CRS.from_epsg(3035).to_wkt().replace('"latitude_of_center",52', '"latitude_of_center",90')
    wkt = wkt.replace("4321000", "0").replace("3210000", "0").replace(',AUTHORITY["EPSG","3035"]', "")
    return {"crs": wkt, "transform": from_bounds(*[-half] * 2, *[half] * 2, side, side)}


@pytest.mark.parametrize(("half", "side"), [(11e6, 300), (12.7e6, 400)], ids=["source", "target"])
def test_what_is_pressed_together_where_the_globe_ends_is_counted_and_named(tmp_path, half, side):
    """Around its antipode a projection has less than a pixel for some pixels: 4 of 81,952 refused the raster."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=side) + 1, **polar(half, side))
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:3035")
    (note,) = [each for each in result["changed"] if "globe ends" in each]
    assert note in result["verification"]["allowed"]
    assert 0 < int(note.split()[0]) < 0.001 * int(note.split()[2])


def test_more_than_a_few_at_the_end_of_the_globe_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lost_pixels, "MOST_AT_END", 1e-6)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=300) + 1, **polar(11e6, 300))
    with pytest.raises(DifferentOutput, match="where the globe ends on a grid"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:3035")


@pytest.mark.parametrize(("side", "is_found"), [(1.0, True), (0.001, False)], ids=["of 111 km", "of 111 m"])
def test_a_third_that_is_missing_is_found_between_two_datums_where_pixels_are_large(tmp_path, side, is_found):
    """Ways between datums are some hundred metres apart: what small pixels may have lost, large ones may not."""
    place = {"transform": from_bounds(10, 10, 10 + 60 * side, 10 + 60 * side, 60, 60)}
    path = write_raster(tmp_path / "a.tif", np.ones((1, 60, 60), "float32"), crs="+proj=longlat +R=6371229", **place)
    pixels = np.where(np.arange(60)[None, :, None] < 20, -1, np.ones((1, 60, 60))).astype("float32")
    holed = write_raster(tmp_path / "b.tif", pixels, crs="EPSG:4326", nodata=-1, **place)
    with open_raster(str(path)) as before, open_raster(str(holed)) as after:
        found = find_lost_pixels(before, after, is_judged=False).problem
    assert (found is not None) is is_found
