import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_bounds

from jobs.flood_risk_cog.catalog import build_catalog
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.facts import read_facts
from jobs.flood_risk_cog.quicklook import EDGE, FOOTER, HEADER
from jobs.flood_risk_cog.samples import generate_samples
from jobs.flood_risk_cog.stac import datetime_of
from jobs.flood_risk_cog.statistics import FloodMeter

FAILURES = [{"name": "bad.tif", "reason": "it has no bands"}]


def run(samples: list[Path], folder: Path) -> dict[str, bytes]:
    items = [convert_raster(str(path), str(folder / "cogs")) for path in samples]
    build_catalog(items, FAILURES, str(folder), collection_id="floods", title="Floods")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def catalog(flood_samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalog")
    return folder, run(flood_samples, folder)


def test_the_collection_is_self_contained_and_its_assets_open(catalog):
    folder, files = catalog
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    items = list(collection.get_items())
    assert len(items) == 4
    for item in items:
        assert item.datetime == datetime(2024, 5, 1, tzinfo=UTC)
        with rasterio.open(item.assets["data"].get_absolute_href()) as dataset:
            assert dataset.count == 1
    assert not [name for name, content in files.items() if name.endswith(".json") and str(folder).encode() in content]


def test_the_summary_tells_failures_totals_and_statistics_by_return_period(catalog):
    summary = json.loads(catalog[1]["summary.json"])
    assert summary["failures"] == FAILURES
    assert (summary["totals"]["converted"], summary["totals"]["failed"]) == (4, 1)
    periods = summary["by_return_period"]
    assert [group["return_period"] for group in periods] == [10, 50, 100, 500]
    assert [group["flooded_area_km2"] for group in periods] == sorted(group["flooded_area_km2"] for group in periods)
    assert summary["totals"]["max_depth"] == periods[-1]["max_depth"]


def test_the_proofs_are_below_their_counts(flood_samples, catalog):
    """Whether all was verified, and what failed, could only be counted in 1,000 entries."""
    found = json.loads(catalog[1]["verification.json"])
    assert list(found)[:2] == ["counts", "failed"]
    assert found["failed"] == [failure["name"] for failure in FAILURES]
    converted = len(flood_samples)
    assert found["counts"] == {
        "rasters": converted + len(FAILURES),
        "verified": converted,
        "changed": sum(bool(each["changed"]) for each in found["rasters"]),
        "failed": len(FAILURES),
    }


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_quicklook_shows_water(catalog):
    with rasterio.MemoryFile(catalog[1]["quicklook.png"]) as memory, memory.open() as picture:
        pixels = picture.read().astype(int)
    assert pixels.shape[0] == 3
    assert max(pixels.shape) <= 800 + 44 + 72
    assert np.count_nonzero(pixels[2] - pixels[0] > 40) > 1000


def test_another_run_in_another_order_writes_the_same_bytes(flood_samples, catalog, tmp_path):
    assert run(flood_samples[::-1], tmp_path) == catalog[1]


def test_a_job_of_failures_alone_still_has_its_catalog(tmp_path):
    result = build_catalog([], FAILURES, str(tmp_path), collection_id="floods", title="Floods")
    assert result["totals"]["converted"] == 0
    assert result["totals"]["max_depth"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "collection.json",
        "quicklook.png",
        "summary.json",
        "verification.json",
    ]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"DATETIME": "2024-05-01T02:00:00+02:00"}, "2024-05-01T00:00:00Z"),
        ({"TIFFTAG_DATETIME": "2022:01:17 10:43:43"}, "2022-01-17T10:43:43Z"),
        ({"DATETIME": "last week"}, None),
        ({"DATETIME": "9999-12-31T23:59:59-05:00"}, None),
        ({"DATETIME": "0001-01-01T00:00:00+05:00", "TIFFTAG_DATETIME": "2022:01:17 10:43:43"}, "2022-01-17T10:43:43Z"),
    ],
)
def test_the_instant_comes_from_the_tags_never_from_the_clock(tags, expected):
    assert datetime_of(tags) == expected


def test_samples_are_repeatable_and_deeper_with_the_return_period(flood_samples, tmp_path):
    again = generate_samples(tmp_path, count=4)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in flood_samples]
    found = []
    for path in flood_samples:
        with rasterio.open(path) as dataset:
            meter = FloodMeter(dataset, path.name)
            read_facts(dataset, seen=meter.see)
            found.append(meter.result())
    assert [one["return_period"] for one in found] == [10, 50, 100, 500]
    depths = [one["max_depth"] for one in found]
    assert depths == sorted(set(depths))
    crs = []
    for path in flood_samples:
        with rasterio.open(path) as dataset:
            crs.append(dataset.crs.to_epsg())
            assert (dataset.dtypes[0], dataset.nodata) == ("float32", -9999)
    assert crs == [32614, 4326, 32614, 4326]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("south", [-90, -75, -60.3])
def test_a_raster_of_the_whole_world_is_not_mirrored(make_raster, tmp_path, south):
    """GDAL's approximation between the first and last pixel of a row goes wrong when both are beyond the date line."""
    pixels = np.zeros((1, 300, 720), "float32")
    pixels[:, :, 600:] = 1
    path = make_raster(pixels=pixels, crs="EPSG:4326", transform=from_bounds(-180, south, 180, 75, 720, 300))
    item = convert_raster(path, str(tmp_path / "cogs"))
    build_catalog([item], [], str(tmp_path), collection_id="floods", title="Floods")
    with rasterio.open(tmp_path / "quicklook.png") as picture:
        # Without title and legend.
        red, _, blue = picture.read().astype(int)[:, HEADER:-FOOTER, EDGE:-EDGE]
    columns = np.flatnonzero(((blue - red) > 40).any(axis=0))
    assert (columns.min() / red.shape[1], columns.max() / red.shape[1]) == pytest.approx((0.81, 0.97), abs=0.01)
