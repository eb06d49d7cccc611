import io
import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from jobs.flood_risk_cog.catalog import build_catalog
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.mosaic import mosaics_of


def write(path, values, west, *, nodata=None, mask=None, crs="EPSG:32614"):
    height, width = values.shape
    profile = {"driver": "GTiff", "dtype": values.dtype, "count": 1, "crs": crs, "nodata": nodata}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", width=width, height=height, transform=from_origin(west, 3e6, 10, 10), **profile
        ) as out,
    ):
        out.write(values, 1)
        if mask is not None:
            out.write_mask(mask)
    return path


def catalog(folder, *paths):
    items = [convert_raster(str(path), str(folder / "out" / "cogs")) for path in paths]
    build_catalog(items, [], str(folder / "out"), collection_id="floods", title="Floods")
    return folder / "out", json.loads((folder / "out" / "summary.json").read_text())


@pytest.mark.parametrize("kind", ["nodata", "nan", "mask", "all"])
def test_a_mosaic_has_the_pixels_of_its_rasters_and_nothing_between_them(tmp_path, kind):
    left, right = (np.arange(1, 2501, dtype="float32").reshape(50, 50) + add for add in (0.25, 9000.5))
    hidden = np.zeros((50, 50), bool)
    hidden[:10, :10] = kind != "all"
    nodata = {"nodata": -9999.0, "nan": float("nan")}.get(kind)
    mask = ~hidden if kind == "mask" else None
    if nodata is not None:
        left[hidden], right[hidden] = nodata, nodata
    first = write(tmp_path / "a & <b> #1_rp100.tif", left, 500000, nodata=nodata, mask=mask)
    # 20 columns of nothing between the two.
    second = write(tmp_path / "c_rp100.tif", right, 500700, nodata=nodata, mask=mask)
    other = write(tmp_path / "d_rp50.tif", right, 500700, nodata=nodata, mask=mask)
    folder, summary = catalog(tmp_path, first, second, other)
    made, alone = summary["mosaics"]
    assert (made["name"], len(made["rasters"])) == ("mosaic-rp100.vrt", 2)
    # A mosaic of one raster would be that raster.
    assert (alone["rasters"], "name" in alone) == (["d_rp50.tif"], False)
    assert "no other raster" in alone["reason"]
    assert [path.name for path in folder.glob("*.vrt")] == ["mosaic-rp100.vrt"]
    with rasterio.open(folder / "mosaic-rp100.vrt") as mosaic:
        assert (mosaic.width, mosaic.height, mosaic.crs.to_epsg()) == (120, 50, 32614)
        found, valid = mosaic.read(1), mosaic.dataset_mask() > 0
    expected = np.hstack([~hidden, np.zeros((50, 20), bool), ~hidden])
    assert np.array_equal(valid, expected)
    assert np.array_equal(found[:, :50][~hidden], left[~hidden])
    assert np.array_equal(found[:, 70:][~hidden], right[~hidden])


@pytest.mark.parametrize("kind", ["nodata", "mask"])
def test_where_rasters_overlap_the_hidden_pixels_of_the_upper_hide_nothing(tmp_path, kind):
    low, high = np.full((40, 40), 1, "float32"), np.full((40, 40), 2, "float32")
    hidden = np.zeros((40, 40), bool)
    hidden[:20] = True
    nodata = -1.0 if kind == "nodata" else None
    if nodata is not None:
        high[hidden] = nodata
    full = np.ones_like(hidden)
    first = write(tmp_path / "a.tif", low, 500000, nodata=nodata, mask=None if nodata else full)
    second = write(tmp_path / "b.tif", high, 500000, nodata=nodata, mask=None if nodata else ~hidden)
    folder, _ = catalog(tmp_path, first, second)
    with rasterio.open(folder / "mosaic.vrt") as mosaic:
        assert mosaic.dataset_mask().all()
        assert np.array_equal(mosaic.read(1), np.where(hidden, low, high))


def test_a_mask_goes_before_nodata_as_it_does_in_the_rasters(tmp_path):
    values = np.arange(1600, dtype="float32").reshape(40, 40)
    values[0] = -1
    mask = np.zeros((40, 40), bool)
    mask[:10] = True
    first = write(tmp_path / "a.tif", values, 500000, nodata=-1.0, mask=mask)
    second = write(tmp_path / "b.tif", values, 500400, nodata=-1.0, mask=mask)
    third = write(tmp_path / "c.tif", values, 500000, nodata=-1.0)
    folder, summary = catalog(tmp_path, first, second, third)
    # Another raster hides by nodata alone: one virtual raster cannot do both.
    assert [entry["rasters"] for entry in summary["mosaics"]] == [["a.tif", "b.tif"], ["c.tif"]]
    with rasterio.open(folder / "mosaic.vrt") as mosaic:
        assert np.array_equal(mosaic.read_masks(1) > 0, np.hstack([mask, mask]))
        shown = mosaic.read(1)[:, :40]
    assert np.array_equal(shown[mask], values[mask])


def test_nodata_of_whole_numbers_is_written_as_one(tmp_path):
    values = np.full((20, 20), 7, "int64")
    values[:5] = -9999
    paths = [write(tmp_path / f"{west}.tif", values, west, nodata=-9999) for west in (500000, 500200)]
    folder, _ = catalog(tmp_path, *paths)
    assert "<NoDataValue>-9999</NoDataValue>" in (folder / "mosaic.vrt").read_text()
    with rasterio.open(folder / "mosaic.vrt") as mosaic:
        assert np.array_equal(mosaic.read_masks(1)[:, :20] > 0, values > 0)


def test_whole_numbers_beyond_double_precision_have_no_mosaic(tmp_path):
    values = np.full((20, 20), (1 << 60) + 1, "int64")
    paths = [write(tmp_path / f"{west}.tif", values, west) for west in (500000, 500200)]
    folder, summary = catalog(tmp_path, *paths)
    assert "beyond 2^53" in summary["mosaics"][0]["reason"]
    assert not list(folder.glob("*.vrt"))


def test_nodata_beyond_double_precision_has_no_mosaic(tmp_path):
    values = np.full((20, 20), 7, "int64")
    paths = [write(tmp_path / f"{west}.tif", values, west, nodata=-9999) for west in (500000, 500200)]
    items = [convert_raster(str(path), str(tmp_path / "out")) | {"nodata": float(-(1 << 60))} for path in paths]
    ((_, _, text),) = mosaics_of([(item, item["path"]) for item in items])
    assert "beyond 2^53" in text


def test_rasters_of_different_systems_are_not_put_together(tmp_path):
    values = np.ones((20, 20), "float32")
    paths = [
        write(tmp_path / f"{code}{part}.tif", values, 500000 + 200 * part, crs=f"EPSG:{code}")
        for code in (32614, 32615)
        for part in (0, 1)
    ]
    _, summary = catalog(tmp_path, *paths)
    assert [each["name"] for each in summary["mosaics"]] == ["mosaic.vrt", "mosaic-2.vrt"]


def test_the_items_as_a_table(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra geoparquet is not installed")
    values = np.ones((20, 20), "float32")
    first = write(tmp_path / "a.tif", values, 500000, nodata=float("nan"))
    second = write(tmp_path / "b.tif", np.ones((20, 20), "uint8"), 500000, nodata=0)
    folder, summary = catalog(tmp_path, first, second)
    assert summary["geoparquet"] == "items.parquet"
    table = parquet.read_table(io.BytesIO((folder / "items.parquet").read_bytes()))
    item = json.loads((folder / "items" / "a" / "a.json").read_text())
    geo = json.loads(table.schema.metadata[b"geo"])
    assert (geo["version"], geo["columns"]["geometry"]["encoding"]) == ("1.1.0", "WKB")
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == ["a", "b"]
    ring = item["geometry"]["coordinates"][0]
    found = np.frombuffer(rows[0]["geometry"], "<f8", offset=13).reshape(-1, 2)
    assert np.array_equal(found, np.array(ring))
    assert list(rows[0]["bbox"].values()) == item["bbox"]
    assert rows[0]["assets"]["data"]["file:checksum"] == item["assets"]["data"]["file:checksum"]


def test_the_table_has_the_columns_of_all_items(tmp_path):
    """An item with a code has no definition, and one with an instant no interval."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra geoparquet is not installed")
    values = np.ones((20, 20), "float32")
    with rasterio.open(write(tmp_path / "a.tif", values, 500000), "r+") as dataset:
        dataset.update_tags(DATETIME="2024-05-01T00:00:00Z")
    local = "+proj=tmerc +lat_0=10 +lon_0=-97 +k=0.9 +x_0=500000 +datum=WGS84 +units=m"
    second = write(tmp_path / "b.tif", values, 500000, crs=local)
    folder, _ = catalog(tmp_path, tmp_path / "a.tif", second)
    first, other = parquet.read_table(io.BytesIO((folder / "items.parquet").read_bytes())).to_pylist()
    assert (first["proj:wkt2"], other["proj:code"]) == (None, None)
    assert other["proj:wkt2"].startswith("PROJCRS")
    assert first["start_datetime"] is None
    assert other["start_datetime"].year == 1
    assert first["datetime"].year == 2024


def test_without_pyarrow_the_summary_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    folder, summary = catalog(tmp_path, write(tmp_path / "a.tif", np.ones((20, 20), "float32"), 500000))
    assert summary["geoparquet"] == "not written: pyarrow is not installed; install the extra geoparquet"
    assert not (folder / "items.parquet").exists()


def test_a_result_that_cannot_be_described_costs_no_other_raster(tmp_path):
    values = np.ones((20, 20), "float32")
    paths = [write(tmp_path / f"{name}.tif", values, 500000) for name in "abc"]
    good, odd, old = [convert_raster(str(path), str(tmp_path / "out" / "cogs")) for path in paths]
    odd["statistics"]["max_depth"] = float("nan")
    # As a release before told it, and its file is gone.
    del old["geometry"]
    (tmp_path / "out" / "cogs" / "c.tif").unlink()
    result = build_catalog([good, odd, old], [], str(tmp_path / "out"), collection_id="floods", title="Floods")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [raster["name"] for raster in summary["rasters"]] == ["a.tif"]
    assert [failure["name"] for failure in summary["failures"]] == ["b.tif", "c.tif"]
    assert result["left_out"] == summary["failures"]
    assert (summary["totals"]["converted"], summary["totals"]["failed"]) == (1, 2)


@pytest.mark.parametrize(
    ("bands", "dtype", "nodata"),
    [(2, "float32", None), (2, "uint8", 0)],
    ids=["floats", "nodata"],
)
def test_rasters_whose_alpha_is_no_mask_for_gdal_have_no_mosaic(tmp_path, bands, dtype, nodata):
    """What alpha hides would be shown in it, and hide the rasters below."""
    paths = []
    for number in range(2):
        pixels = np.stack([np.full((20, 20), 50, dtype)] * (bands - 1) + [np.tri(20, dtype=dtype) * 255])
        profile = {"crs": "EPSG:32614", "transform": from_origin(500_000 + number * 100, 3e6, 10, 10), "nodata": nodata}
        options = {"width": 20, "height": 20, "count": bands, "dtype": dtype, "alpha": "YES", **profile}
        paths.append(tmp_path / f"{number}.tif")
        with rasterio.open(paths[-1], "w", driver="GTiff", **options) as dataset:
            dataset.write(pixels)
    _, summary = catalog(tmp_path, *paths)
    (entry,) = summary["mosaics"]
    assert "alpha band that GDAL takes for no mask" in entry["reason"]
