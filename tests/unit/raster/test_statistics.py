import math

import numpy as np
import pytest
from rasterio.transform import Affine

from jobs.flood_risk_cog.statistics import flood_statistics, return_period


@pytest.mark.parametrize(
    ("name", "tags", "expected"),
    [
        ("tile_rp100.tif", {}, 100),
        ("RP_100_tile.tif", {}, 100),
        ("depth-100yr.tif", {}, 100),
        ("depth_1in100.tif", {}, 100),
        ("T100_depth.tif", {}, 100),
        ("tile07_2024.tif", {}, None),
        ("wrap9.tif", {}, None),
        ("tile_rp10.tif", {"RETURN_PERIOD": "500"}, 500),
        ("a.tif", {"RETURN_PERIOD": "1 in 50 years"}, 50),
        ("tile_rp10.tif", {"RETURN_PERIOD": "unknown"}, 10),
    ],
)
def test_return_period_is_read_from_tag_or_name(name, tags, expected):
    assert return_period(name, tags) == expected


def test_only_finite_positive_valid_pixels_count_as_flooded(make_raster):
    pixels = np.array([[[-9999, 0, -1, np.nan], [np.inf, 1, 2, 6]]], dtype="float32")
    found = flood_statistics(make_raster("d_rp50.tif", pixels, nodata=-9999))
    assert (found["valid_pixels"], found["flooded_pixels"]) == (5, 3)
    assert (found["min_depth"], found["mean_depth"], found["max_depth"]) == (1, 3, 6)
    assert found["flooded_area_km2"] == pytest.approx(3 * 100 / 1e6)
    assert found["return_period"] == 50


def test_a_raster_without_valid_pixels_has_null_depths(make_raster):
    found = flood_statistics(make_raster(pixels=np.full((1, 5, 5), -1, "float32"), nodata=-1))
    assert found["valid_pixels"] == 0
    assert found["min_depth"] is found["mean_depth"] is found["max_depth"] is None
    assert found["flooded_area_km2"] == 0


def test_statistics_are_the_same_over_many_blocks(make_raster):
    pixels = np.random.default_rng(1).random((1, 1500, 1400), dtype="float32")
    found = flood_statistics(make_raster(pixels=pixels, tiled=True, blockxsize=256, blockysize=256))
    assert found["flooded_pixels"] == np.count_nonzero(pixels)
    assert found["mean_depth"] == pytest.approx(pixels.astype(float).mean(), rel=1e-9)


def test_the_globe_in_degrees_has_the_area_of_the_ellipsoid(make_raster):
    path = make_raster(pixels=np.ones((1, 18, 36), "uint8"), crs="EPSG:4326", transform=Affine(10, 0, -180, 0, -10, 90))
    assert flood_statistics(path)["flooded_area_km2"] == pytest.approx(510_065_621.7, rel=1e-7)


def test_feet_and_web_mercator_are_measured_in_true_metres(make_raster):
    ones = np.ones((1, 10, 10), "uint8")
    feet = flood_statistics(make_raster("feet.tif", ones, crs="EPSG:2277"))
    assert feet["flooded_area_km2"] == pytest.approx(100 * (10 * 1200 / 3937) ** 2 / 1e6)
    y = 6378137 * math.log(math.tan(math.pi / 4 + math.radians(60) / 2))
    place = Affine(10, 0, 0, 0, -10, y)
    mercator = flood_statistics(make_raster("mercator.tif", ones, crs="EPSG:3857", transform=place))
    # Half the scale each way at 60 degrees, on the sphere; the ellipsoid differs by less than one in a hundred.
    assert mercator["flooded_area_km2"] == pytest.approx(100 * 100 / 4 / 1e6, rel=0.01)
