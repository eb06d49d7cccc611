"""The catalog is valid STAC and true: places by RFC 7946, times never invented, links that a browser can follow."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine, from_bounds

from jobs.flood_risk_cog.catalog import build_catalog
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.footprint import NoFootprint, footprint_of, union
from jobs.flood_risk_cog.stac import UNKNOWN_TIME, collection_of, item_of
from tests.unit.raster.made import pixels_of, write_raster


def footprint(crs, west, south, east, north, side=100):
    transform = from_bounds(west, south, east, north, side, side)
    return footprint_of(SimpleNamespace(width=side, height=side, crs=CRS.from_user_input(crs), transform=transform))


def area(ring):
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairwise(ring)) / 2


@pytest.mark.parametrize(
    ("crs", "bounds", "bbox", "polygons"),
    [
        ("EPSG:4326", (10, 50, 11, 51), [10, 50, 11, 51], 1),
        ("EPSG:4326", (170, -20, 190, -10), [170, -20, -170, -10], 2),
        ("EPSG:4326", (-190, 0, -170, 5), [170, 0, -170, 5], 2),
        ("EPSG:4326", (200, 0, 210, 5), [-160, 0, -150, 5], 1),
        ("EPSG:4326", (355, 0, 365, 5), [-5, 0, 5, 5], 1),
        ("EPSG:4326", (0, -90, 360, 90), [-180, -90, 180, 90], 1),
        ("EPSG:4326", (-180.1, -90.1, 179.9, 90.1), [-180, -90, 180, 90], 1),
    ],
)
def test_boxes_from_0_to_360_and_across_the_antimeridian_follow_rfc_7946(crs, bounds, bbox, polygons):
    found = footprint(crs, *bounds)
    assert found.bbox == pytest.approx(bbox)
    rings = (
        found.geometry["coordinates"] if found.geometry["type"] == "MultiPolygon" else [found.geometry["coordinates"]]
    )
    assert len(rings) == polygons
    for (ring,) in rings:
        assert ring[0] == ring[-1]
        assert all(-180 <= x <= 180 and -90 <= y <= 90 for x, y in ring)
        assert area(ring) > 0  # counterclockwise
    total = (bounds[2] - bounds[0]) * (min(bounds[3], 90) - max(bounds[1], -90))
    assert sum(area(ring) for (ring,) in rings) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_a_raster_around_a_pole_reaches_it(crs, pole):
    found = footprint(crs, -1e6, -1e6, 1e6, 1e6)
    assert found.bbox[0::2] == [-180, 180]
    assert pole in found.bbox[1::2]
    (ring,) = found.geometry["coordinates"]
    assert [180.0, float(pole)] in ring
    assert area(ring) > 0


def test_a_place_that_has_no_longitude_is_said():
    with pytest.raises(NoFootprint, match="no longitude and latitude"):
        footprint("EPSG:2193", 1e12, 1e12, 2e12, 2e12)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[1, 2, 3, 4], [2, 0, 5, 3]], [1, 0, 5, 4]),
        ([[170, 0, -170, 1], [-175, 0, -160, 2]], [170, 0, -160, 2]),
        ([[179, 0, 180, 1], [-180, 0, -179, 1]], [179, 0, -179, 1]),
        ([[-180, -90, 180, 90], [1, 2, 3, 4]], [-180, -90, 180, 90]),
        ([], [-180, -90, 180, 90]),
    ],
)
def test_the_box_around_boxes_is_the_smallest_on_the_globe(boxes, expected):
    assert union(boxes) == pytest.approx(expected)


STRANGE = [
    "summary.json.tif",
    "cogs.tif",
    "a#b.tif",
    "a;b%20c.tif",
    "two words.tif",
    "new\nline.tif",
    "ümläut.tif",
    "x" * 250 + ".tif",
    "q?x=1&y.tif",
]


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("strange")
    (tmp_path / "source").mkdir()
    results = []
    for index, name in enumerate(STRANGE):
        path = write_raster(tmp_path / "source" / name, pixels_of("float32", "nodata", seed=index), "nodata")
        results.append(convert_raster(str(path), str(tmp_path / "out" / "cogs")))
    build_catalog(results, [], str(tmp_path / "out"), collection_id="floods", title="Floods")
    return tmp_path / "out"


def test_links_are_encoded_whatever_a_raster_is_called(strange):
    collection = json.loads((strange / "collection.json").read_text())
    hrefs = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    assert len(hrefs) == len(STRANGE)
    names = set()
    for href in hrefs:
        assert not set(href) & set("#;? \n")
        path = strange / unquote(href)
        item = json.loads(path.read_text())
        asset = item["assets"]["data"]["href"]
        assert not set(asset) & set("#;? \n")
        with rasterio.open(path.parent / unquote(asset)) as dataset:
            names.add(Path(dataset.name).name)
    assert names == set(STRANGE)


def test_every_item_and_the_collection_are_valid(strange):
    collection = pystac.Collection.from_file(str(strange / "collection.json"))
    collection.validate()
    assert all(Path(asset.get_absolute_href()).exists() for asset in collection.assets.values())
    assert set(collection.assets) == {"thumbnail", "summary", "verification", "mosaic", "items"}
    mosaic, table = collection.assets["mosaic"], collection.assets["items"]
    assert (mosaic.media_type, mosaic.roles) == ("application/xml", ["data", "virtual"])
    assert (table.media_type, table.roles) == ("application/vnd.apache.parquet", ["collection-mirror"])
    for path in strange.glob("items/*/*.json"):
        document = json.loads(path.read_text())
        assert document["properties"]["datetime"] is None
        assert document["properties"]["start_datetime"] < document["properties"]["end_datetime"]
        (asset,) = document["assets"].values()
        assert asset["file:checksum"].startswith("1220")
        assert asset["raster:sampling"] == "area"
        assert asset["bands"][0]["nodata"] == 99
        # Only the core: the extensions' schemas are on the network.
        pystac.Item.from_dict(document | {"stac_extensions": []}).validate()


@pytest.mark.parametrize(("across", "down"), [(10, -10), (10, 10), (-10, -10)])
def test_the_box_of_a_grid_in_any_direction_begins_at_its_lowest_coordinates(tmp_path, across, down):
    place = Affine(across, 0, 600_000, 0, down, 3_300_000)
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=20), transform=place)
    item = item_of(convert_raster(str(path), str(tmp_path / "out")), "a", "a.tif", "floods")
    west, south, east, north = item["properties"]["proj:bbox"]
    assert (east - west, north - south) == (200, 200)
    assert {600_000} & {west, east}
    assert {3_300_000} & {south, north}


def test_a_raster_that_cannot_be_drawn_is_named_and_costs_no_other(tmp_path):
    (tmp_path / "source").mkdir()
    results = []
    for name in ("a.tif", "b.tif"):
        path = write_raster(tmp_path / "source" / name, np.ones((1, 300, 300), "float32"))
        results.append(convert_raster(str(path), str(tmp_path / "out" / "cogs")))
    Path(results[0]["path"]).write_bytes(b"gone wrong meanwhile")
    build_catalog(results, [], str(tmp_path / "out"), collection_id="floods", title="Floods")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["name"] for entry in summary["not_drawn"]] == ["a.tif"]
    assert summary["totals"]["converted"] == 2
    assert (tmp_path / "out" / "quicklook.png").exists()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_picture_across_the_antimeridian_shows_both_sides(tmp_path):
    (tmp_path / "source").mkdir()
    results = []
    for name, west in (("a.tif", 178.0), ("b.tif", 179.5), ("c.tif", -179.0)):
        transform = from_bounds(west, 10, west + 1, 11, 200, 200)
        path = write_raster(
            tmp_path / "source" / name, np.ones((1, 200, 200), "float32"), crs="EPSG:4326", transform=transform
        )
        results.append(convert_raster(str(path), str(tmp_path / "out" / "cogs")))
    build_catalog(results, [], str(tmp_path / "out"), collection_id="floods", title="Floods")
    with rasterio.open(tmp_path / "out" / "quicklook.png") as picture:
        red, _, blue = picture.read().astype(int)[:, 44:-72, 16:-16]
    wet = ((blue - red) > 40).mean(axis=0) > 0.5
    # Three of four degrees of the frame are water, and neither half is empty.
    assert 0.6 < wet.mean() < 0.8
    assert wet[: wet.size // 3].any()
    assert wet[-wet.size // 3 :].any()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_classes_are_not_drawn_as_water(tmp_path):
    (tmp_path / "source").mkdir()
    path = write_raster(tmp_path / "source" / "a.tif", np.full((1, 300, 300), 4, "uint8"))
    result = convert_raster(str(path), str(tmp_path / "out" / "cogs"))
    assert result["kind"] == "classes"
    build_catalog([result], [], str(tmp_path / "out"), collection_id="floods", title="Floods")
    with rasterio.open(tmp_path / "out" / "quicklook.png") as picture:
        red, _, blue = picture.read().astype(int)[:, 44:-72, 16:-16]
    assert not ((blue - red) > 40).any()


def test_a_collection_s_interval_is_around_all_items_those_of_unknown_time_too():
    def item(instant):
        times = {"datetime": instant} if instant else UNKNOWN_TIME
        return {"bbox": [0, 0, 1, 1], "properties": times}

    def interval(*instants):
        items = [item(instant) for instant in instants]
        collection = collection_of(items, ["x"] * len(items), "floods", "Floods")
        return collection["extent"]["temporal"]["interval"]

    assert interval("2024-05-02T00:00:00Z", "2024-05-01T00:00:00Z") == [
        ["2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z"]
    ]
    unknown = [UNKNOWN_TIME["start_datetime"], UNKNOWN_TIME["end_datetime"]]
    assert interval("2024-05-02T00:00:00Z", None) == [unknown]
    assert interval(None) == [unknown]
    assert interval() == [[None, None]]


def test_classes_have_no_flood_in_item_and_summary(tmp_path):
    """A map of land covered 138 million square kilometres with water."""
    place = {"crs": "EPSG:4326", "transform": from_bounds(-180, -75, 180, 75, 288, 120)}
    pixels = np.random.default_rng(0).integers(0, 2, (1, 120, 288)).astype("uint8")
    items = []
    for name, given in (("land", pixels), ("depths", pixels.astype("float32") / 3)):
        path = write_raster(tmp_path / f"{name}.tif", given, **place)
        items.append(convert_raster(str(path), str(tmp_path / "out" / "cogs")))
    result = build_catalog(items, [], str(tmp_path / "out"), collection_id="floods", title="Floods")
    assert result["left_out"] == []
    land, depths = (json.loads((tmp_path / f"out/items/{name}/{name}.json").read_text()) for name in ("land", "depths"))
    assert {name for name in land["properties"] if name.startswith("flood:")} == {
        "flood:kind",
        "flood:valid_pixels",
        "flood:return_period",
    }
    assert (land["properties"]["flood:kind"], depths["properties"]["flood:kind"]) == ("classes", "continuous")
    assert depths["properties"]["flood:flooded_area_km2"] > 1e8
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    found = {
        raster["name"]: (raster["kind"], raster["statistics"]["flooded_area_km2"]) for raster in summary["rasters"]
    }
    assert found["land.tif"] == ("classes", None)
    assert found["depths.tif"][1] == summary["totals"]["flooded_area_km2"]
    assert summary["totals"]["classes"] == 1
