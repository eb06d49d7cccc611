"""Where rasters cover the same ground, the summary's areas count it once per raster, and state that."""

import pytest

from jobs.flood_risk_cog.catalog import summarise
from jobs.flood_risk_cog.overlaps import overlapping

STATISTICS = {
    "valid_pixels": 10,
    "flooded_pixels": 5,
    "min_depth": 1.0,
    "mean_depth": 2.0,
    "max_depth": 3.0,
    "unit": "m",
    "flooded_area_km2": 4.0,
}


def raster(name, bounds, bbox=None, crs="EPSG:32614", kind="continuous", period=100):
    statistics = {**STATISTICS, "return_period": period}
    place = {"bounds": bounds, "bbox": bbox or bounds, "crs": crs, "transform": [1.0, 0, 0, 0, -1.0, 0]}
    return {"name": name, "kind": kind, "statistics": statistics, **place}


@pytest.mark.parametrize(
    ("one", "other", "do_overlap"),
    [
        (([0, 0, 10, 10],), ([5, 5, 15, 15],), True),
        (([0, 0, 10, 10],), ([10, 0, 20, 10],), False),
        (([0, 0, 10, 10],), ([9.6, 0, 20, 10],), False),
        # Boxes in degrees overlap where grids of one system only touch.
        (([0, 0, 10, 10], [0, 0, 1.01, 1]), ([10, 0, 20, 10], [0.99, 0, 2, 1]), False),
        (([0, 0, 10, 10], [0, 0, 1, 1], "EPSG:1"), ([99, 9, 100, 10], [0.5, 0.5, 2, 2], "EPSG:2"), True),
        (([0, 0, 10, 10], [179, 0, -179, 1], "EPSG:1"), ([9, 9, 10, 10], [-180, 0, -178, 1], "EPSG:2"), True),
        (([0, 0, 10, 10], [179, 0, -179, 1], "EPSG:1"), ([9, 9, 10, 10], [-178, 0, -177, 1], "EPSG:2"), False),
    ],
)
def test_overlaps_are_found_and_neighbours_are_none(one, other, do_overlap):
    rasters = [raster("b.tif", *other), raster("a.tif", *one)]
    assert overlapping(rasters) == ([("a.tif", "b.tif")] if do_overlap else [])


def test_a_summary_names_overlaps_and_keeps_classes_apart():
    rasters = [
        raster("a.tif", [0, 0, 10, 10]),
        raster("b.tif", [5, 5, 15, 15]),
        raster("c.tif", [100, 0, 110, 10], period=500),
        raster("d.tif", [0, 0, 10, 10], kind="classes"),
    ]
    summary = summarise(rasters, [], "floods", "Floods")
    totals, (hundred, five_hundred) = summary["totals"], summary["by_return_period"]
    assert (totals["converted"], totals["classes"], totals["flooded_pixels"]) == (4, 1, 15)
    assert totals["flooded_area_km2"] == 12
    assert (totals["overlapping_pairs"], totals["flooded_area_at_least_km2"]) == (1, 4)
    counts = totals["flooded_area_counts"]
    assert counts.startswith(
        "a place once per raster that covers it; flooded_area_at_least_km2 counts the raster with the"
    )
    assert (hundred["rasters"], hundred["overlapping_pairs"]) == (2, 1)
    assert (five_hundred["flooded_area_counts"], five_hundred["overlapping_pairs"]) == ("each place once", 0)
    assert summary["overlaps"] == [{"return_period": 100, "rasters": ["a.tif", "b.tif"]}]
