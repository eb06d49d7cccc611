"""A reprojection that loses pixels of its source is refused; one that keeps them all is not."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_bounds

from jobs.flood_risk_cog.convert import DifferentOutput, convert_raster
from jobs.flood_risk_cog.lost_pixels import find_lost_pixels
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.source import open_raster
from tests.unit.raster.made import pixels_of, write_raster

ACROSS = {"crs": "EPSG:32760", "transform": Affine(30, 0, 815_500, 0, -30, 8_170_000)}


@pytest.mark.parametrize(
    ("place", "options"),
    [
        (ACROSS, {"target_crs": "EPSG:4326"}),
        (ACROSS, {"web_optimized": True}),
        ({"crs": "EPSG:4326", "transform": from_bounds(170, -10, 190, 10, 300, 300)}, {"target_crs": "EPSG:3857"}),
        ({"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, 300, 300)}, {"target_crs": "EPSG:3413"}),
    ],
    ids=["utm", "utm to web", "degrees", "world to pole"],
)
def test_a_raster_across_a_seam_of_the_target_is_refused(tmp_path, place, options):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    with pytest.raises((UnusableRaster, DifferentOutput), match="target_crs"):
        convert_raster(str(path), str(tmp_path / "out"), **options)


def test_a_whole_world_is_shown_the_way_to_web_maps(tmp_path):
    place = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, 300, 300)}
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), **place)
    with pytest.raises(UnusableRaster, match="set web_optimized, whose grid ends at 85 degrees"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:3857")


@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:32613", "EPSG:3857"])
def test_a_hole_that_the_source_does_not_have_is_found(tmp_path, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target)
    holed = tmp_path / "holed.tif"
    with rasterio.open(result["path"]) as cog:
        profile = {**cog.profile, "nodata": -1}
        values = np.where(cog.read_masks(1) > 0, cog.read(1), -1).astype("float32")
    for size, expected in ((0, None), (9, "valid pixels of the source have no place in it")):
        values[150 : 150 + size, 150 : 150 + size] = -1
        with rasterio.open(holed, "w", **profile) as dataset:
            dataset.write(values, 1)
        with open_raster(str(path)) as before, open_raster(str(holed)) as after:
            found = find_lost_pixels(before, after, is_judged=True)
        assert (found is None) if expected is None else (expected in found)


def test_what_web_maps_have_no_place_for_is_named(tmp_path):
    place = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, 600, 300)}
    pixels = np.ones((1, 300, 600), "float32")
    path = write_raster(tmp_path / "a.tif", pixels, **place)
    result = convert_raster(str(path), str(tmp_path / "out"), web_optimized=True)
    assert any("beyond 85 degrees" in each for each in result["changed"])
