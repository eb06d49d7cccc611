import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.transform import Affine

from jobs.flood_risk_cog import area
from jobs.flood_risk_cog.facts import read_facts
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.statistics import FloodMeter, return_period


def flood_statistics(path, name="a.tif"):
    with open_raster(path) as dataset:
        meter = FloodMeter(dataset, name)
        read_facts(dataset, seen=meter.see)
        return meter.result()


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
        ("depth_T32TQM.tif", {}, None),
        ("depth_T32.tif", {}, 32),
        ("flood_2050_year.tif", {}, None),
        ("flood_1900yr_rp20.tif", {}, 20),
        ("flood_2100years.tif", {}, None),
        ("flood_2500yr.tif", {}, 2500),
        ("flood_1000yr.tif", {}, 1000),
        ("rp2000.tif", {}, 2000),
        ("tile_rp10.tif", {"RETURN_PERIOD": "500"}, 500),
        ("a.tif", {"RETURN_PERIOD": "1 in 50 years"}, 50),
        ("tile_rp10.tif", {"RETURN_PERIOD": "unknown"}, 10),
        ("tile_rp10.tif", {"RETURN_PERIOD": "2.5"}, None),
        ("tile_rp10.tif", {"RETURN_PERIOD": "0.1"}, 10),
        ("tile_rp10.tif", {"RETURN_PERIOD": "1e3"}, 1000),
        ("tile_rp10.tif", {"RETURN_PERIOD": "2.5 years"}, None),
        ("tile_rp10.tif", {"RETURN_PERIOD": "1,000 years"}, None),
        ("a.tif", {"RETURN_PERIOD": "100-year"}, 100),
        ("a.tif", {"RETURN_PERIOD": "1_in_100"}, 100),
        ("a.tif", {"RETURN_PERIOD": "HQ 100"}, 100),
        ("depth_100y.tif", {}, 100),
        ("depth-100y-2050.tif", {}, 100),
        ("100y6h.tif", {}, None),
        ("tile_10y20.tif", {}, None),
        ("x10_20y.tif", {}, None),
        ("10y_20x.tif", {}, None),
        ("depth_100y_512x512.tif", {}, 100),
        ("flood_2050y.tif", {}, None),
        ("flood 100-year.tif", {}, 100),
        ("1_in_100.tif", {}, 100),
        ("flood_1-in-200_depth.tif", {}, 200),
        ("return_period_50.tif", {}, 50),
        ("HQ100_Wassertiefe.tif", {}, 100),
        ("hq30.tif", {}, 30),
        ("Q100.tif", {}, 100),
        ("q_500_depth.tif", {}, 500),
        ("depth_Q3_2024.tif", {}, None),
        ("depth_q95.tif", {}, None),
        ("depth_Q2024.tif", {}, None),
        ("depth_t012.tif", {}, None),
        ("depth_rp2.5.tif", {}, None),
        ("depth_2.5yr.tif", {}, None),
        ("depth_2p5yr.tif", {}, None),
        ("depth_0.1in100.tif", {}, None),
        ("difference_rp100_rp500.tif", {}, None),
        ("rp100_of_RP100.tif", {}, 100),
        ("depth_1pct.tif", {}, None),
    ],
)
def test_return_period_is_read_from_tag_or_name(name, tags, expected):
    assert return_period(name, tags) == expected


def test_only_finite_positive_valid_pixels_count_as_flooded(make_raster):
    pixels = np.array([[[-9999, 0, -1, np.nan], [np.inf, 1, 2, 6]]], dtype="float32")
    found = flood_statistics(make_raster("d_rp50.tif", pixels, nodata=-9999), "d_rp50.tif")
    assert (found["valid_pixels"], found["flooded_pixels"]) == (5, 3)
    assert (found["min_depth"], found["mean_depth"], found["max_depth"]) == (1, 3, 6)
    # In UTM a metre of the grid is up to four parts in ten thousand more on the ground.
    assert found["flooded_area_km2"] == pytest.approx(3 * 100 / 1e6, rel=2e-3)
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


def ground(crs, transform, rows, columns):
    """Square kilometres of a grid's pixels: geodesic polygons, summed up."""
    crs = pyproj.CRS.from_user_input(crs)
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    geod, total = crs.get_geod(), 0.0
    for row in range(rows):
        for column in range(columns):
            corners = [transform @ (column + x, row + y) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
            lon, lat = to_degrees.transform(*zip(*corners, strict=True))
            total += abs(geod.polygon_area_perimeter(lon, lat)[0])
    return total / 1e6


@pytest.mark.parametrize(
    ("crs", "place"),
    [
        ("EPSG:2277", Affine(500, 0, 2_300_000, 0, -500, 10_000_000)),  # US survey feet
        ("EPSG:3857", Affine(1000, 0, 1_000_000, 0, -1000, 8_400_000)),  # four times too large on its grid
        ("EPSG:3395", Affine(1000, 0, 1_000_000, 0, -1000, 8_400_000)),
        ("EPSG:4087", Affine(1000, 0, 1_000_000, 0, -1000, 6_700_000)),  # twice
        ("EPSG:32614", Affine(100, 0, 600_000, 0, -100, 3_300_000)),
        ("EPSG:3035", Affine(1000, 0, 4_300_000, 0, -1000, 3_000_000)),  # of equal area
    ],
)
def test_area_is_measured_on_the_ground_whatever_the_projection(make_raster, crs, place):
    path = make_raster(pixels=np.ones((1, 30, 40), "uint8"), crs=crs, transform=place)
    found = flood_statistics(path)
    assert found["flooded_area_km2"] == pytest.approx(ground(crs, place, 30, 40), rel=1e-4)
    assert found["area_method"] == "geodesic, pixel by pixel"


def test_area_of_a_grid_in_grads_and_of_a_part_of_the_columns(make_raster):
    ones = np.ones((1, 20, 20), "uint8")
    degrees = flood_statistics(make_raster("d.tif", ones, crs="EPSG:4326", transform=Affine(0.9, 0, 0, 0, -0.9, 45)))
    grads = flood_statistics(make_raster("g.tif", ones, crs="EPSG:4807", transform=Affine(1, 0, 0, 0, -1, 50)))
    # Another ellipsoid, and the same place but for that.
    assert grads["flooded_area_km2"] == pytest.approx(degrees["flooded_area_km2"], rel=1e-3)
    place = Affine(20_000, 0, 2_500_000, 0, -20_000, 5_000_000)
    half = ones.copy()
    half[:, :, :7] = 0
    found = flood_statistics(make_raster("h.tif", half, crs="EPSG:3035", transform=place))
    expected = ground("EPSG:3035", place @ Affine.translation(7, 0), 20, 13)
    assert found["flooded_area_km2"] == pytest.approx(expected, rel=1e-4)


def test_ground_is_measured_once_for_rasters_on_one_grid(make_raster, monkeypatch):
    """As those of several return periods are. One that differs in its place, size or system alone has its own."""
    area._pixel_areas.cache_clear()
    measure, measured = area._projected_areas, []
    monkeypatch.setattr(area, "_projected_areas", lambda *given: measured.append(given) or measure(*given))
    place = Affine(1000, 0, 600_000, 0, -1000, 3_300_000)
    grids = [("EPSG:32614", place, 20)] * 2 + [
        ("EPSG:32614", Affine.translation(0, -1_000_000) @ place, 20),
        ("EPSG:32614", place, 19),
        ("EPSG:3857", place, 20),
    ]
    found = [
        flood_statistics(make_raster(f"{n}.tif", np.ones((1, 20, width), "uint8"), crs=crs, transform=transform))
        for n, (crs, transform, width) in enumerate(grids)
    ]
    assert len(measured) == 4
    for each, (crs, transform, width) in zip(found, grids, strict=True):
        assert each["flooded_area_km2"] == pytest.approx(ground(crs, transform, 20, width), rel=1e-4)


@pytest.mark.parametrize(
    ("unit", "metres"), [("cm", 0.01), ("ft", 0.3048), ("US survey foot", 1200 / 3937), ("metre", 1), ("mm", 0.001)]
)
def test_depths_are_in_metres_where_the_raster_says_a_unit(make_raster, unit, metres):
    path = make_raster(pixels=np.full((1, 20, 20), 250, "int16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.units, dataset.scales, dataset.offsets = (unit,), (0.5,), (-100.0,)
    found = flood_statistics(path)
    assert (found["unit"], found["mean_depth"]) == ("m", pytest.approx((250 * 0.5 - 100) * metres))


@pytest.mark.parametrize("unit", ["kg", "", "Klafter"])
def test_an_unknown_unit_is_said_and_changes_nothing(make_raster, unit):
    path = make_raster(pixels=np.full((1, 20, 20), 3, "int16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.units = (unit,)
    found = flood_statistics(path)
    assert (found["unit"], found["max_depth"]) == (unit or None, 3)


def test_what_is_under_water_is_asked_after_the_offset(make_raster):
    path = make_raster(pixels=np.array([[[90, 100, 110]]], "int16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.offsets = (-100.0,)
    assert flood_statistics(path)["flooded_pixels"] == 1
