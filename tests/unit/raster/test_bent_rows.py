"""Each pixel of a reprojected raster has the value of its own place, where rows of it are bent on the source too."""

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from jobs.flood_risk_cog import write
from jobs.flood_risk_cog.bent_rows import has_bent_rows
from jobs.flood_risk_cog.convert import DifferentOutput, convert_raster
from jobs.flood_risk_cog.ground import around, places, sides


def centred(pixel, width, height, x=0.0, y=0.0):
    return Affine(pixel, 0, x - pixel * width / 2, 0, -pixel, y + pixel * height / 2)


GEOS = "+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=GRS80"
LAEA = "+proj=laea +lat_0=0 +lon_0=20 +datum=WGS84"
STEREO = "+proj=stere +lat_0=0 +lon_0=20 +datum=WGS84"
AEQD = "+proj=aeqd +lat_0=47 +lon_0=8 +datum=WGS84"
# Coordinate system, grid, width, height, target.
BENT = {
    "geostationary": (GEOS, centred(60_000, 186, 186), 186, 186, "EPSG:4326"),
    "equal area, at the equator": (LAEA, centred(40_000, 200, 200), 200, 200, "EPSG:4326"),
    "with the equator in a row": (LAEA, centred(40_000, 201, 201), 201, 201, "EPSG:4326"),
    "stereographic": (STEREO, centred(40_000, 200, 200), 200, 200, "EPSG:4326"),
    "from degrees": ("EPSG:4326", centred(0.4, 200, 200, 20), 200, 200, pyproj.CRS(LAEA).to_wkt()),
    "around a pole": ("EPSG:3576", centred(40_000, 150, 150), 150, 150, "EPSG:3413"),
    "with an antipode": (AEQD, centred(400_000, 100, 100), 100, 100, "EPSG:4326"),
    "UTM at the equator": ("EPSG:32632", Affine(300, 0, 200_000, 0, -300, 3_000), 2000, 20, "EPSG:4326"),
    "UTM in mirrored columns": ("EPSG:32632", Affine(300, 0, 200_000, 0, -300, 900_000), 2000, 20, "EPSG:4326"),
}


def places_of(cog, source):
    """Row and column on the source of the centre of each pixel, by PROJ."""
    columns, rows = np.meshgrid(np.arange(cog.width) + 0.5, np.arange(cog.height) + 0.5)
    x, y = places(cog.crs, source.crs, *(each.ravel() for each in cog.transform @ (columns, rows)))
    x = around(source.crs).into(source.bounds.left, source.bounds.right, x)
    with np.errstate(invalid="ignore"):
        column, row = ~source.transform @ (x, y)
    return row.reshape(rows.shape), column.reshape(rows.shape)


@pytest.mark.parametrize("name", BENT)
def test_no_pixel_is_taken_from_another_place(make_raster, tmp_path, name):
    """Columns and rows as values: up to 21 pixels away, GDAL's quick way took a bent row for a straight one."""
    crs, transform, width, height, target = BENT[name]
    numbers = np.stack(np.meshgrid(np.arange(width), np.arange(height))).astype("int32")
    path = make_raster(pixels=numbers, crs=crs, transform=transform, nodata=-1)
    result = convert_raster(path, str(tmp_path / "out"), target_crs=target, resampling="nearest", kind="continuous")
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        row, column = places_of(cog, source)
        found = cog.read()
        valid = found[0] >= 0
        away = np.maximum(np.abs(found[0] + 0.5 - column), np.abs(found[1] + 0.5 - row))[valid]
    assert valid.sum() > 0.3 * width * height
    assert away.max() < 0.525


@pytest.mark.parametrize(
    ("datum", "resampling"),
    [
        ("+ellps=GRS80", "nearest"),
        ("+ellps=GRS80", "cubic"),
        ("+ellps=GRS80", "lanczos"),
        ("+datum=NAD27", "nearest"),
        ("+datum=NAD27", "bilinear"),
        ("+datum=NAD27", "cubic_spline"),
    ],
)
def test_a_row_that_is_taken_from_another_place_is_refused(make_raster, tmp_path, monkeypatch, datum, resampling):
    """Also of another datum, where its pixels are larger than ways between datums are apart."""
    monkeypatch.setattr(write, "has_bent_rows", lambda *_: False)
    monkeypatch.setattr(write, "TOLERANCE", 0.125)
    noise = np.random.default_rng(1).normal(5, 1, (1, 186, 186)).astype("float32")
    crs = GEOS.replace("+ellps=GRS80", datum)
    path = make_raster(pixels=noise, crs=crs, transform=centred(60_000, 186, 186))
    with pytest.raises(DifferentOutput, match="pixels with the value of another place"):
        convert_raster(path, str(tmp_path / "out"), target_crs="EPSG:4326", resampling=resampling)
    monkeypatch.undo()
    convert_raster(path, str(tmp_path / "out"), target_crs="EPSG:4326", resampling=resampling)


def by_hand(source, row, column):
    """Bilinear where all four neighbours are in the raster and valid; else NaN."""
    values = np.pad(source.read(1).astype("float64"), 1, constant_values=np.nan)
    row, column = (np.where(np.isfinite(each), each, -9.0) + 0.5 for each in (row, column))
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    is_there = (top >= 0) & (left >= 0) & (top < source.height + 1) & (left < source.width + 1)
    top, left = np.where(is_there, top, 0), np.where(is_there, left, 0)
    down, across = row - np.floor(row), column - np.floor(column)
    upper = values[top, left] * (1 - across) + values[top, left + 1] * across
    lower = values[top + 1, left] * (1 - across) + values[top + 1, left + 1] * across
    return np.where(is_there, upper * (1 - down) + lower * down, np.nan)


# Here a pixel of the result is not larger than one of the source.
KERNELS = {
    "Canada": ("EPSG:3347", Affine(20_000, 0, 3_500_000, 0, -20_000, 4_500_000), 270, 180, "EPSG:3857"),
    "south of Canada's": ("EPSG:3347", Affine(20_000, 0, 3_500_000, 0, -20_000, -4_500_000), 270, 180, "EPSG:3857"),
    "the Arctic": ("EPSG:3413", Affine(25_000, 0, -3_850_000, 0, -25_000, 5_850_000), 304, 448, "EPSG:4326"),
    "Europe": ("EPSG:3035", Affine(100, 0, 4_000_000, 0, -100, 3_300_000), 300, 300, "EPSG:4326"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_bilinear_mixes_the_four_pixels_around_a_place(make_raster, tmp_path, name):
    """GDAL guessed the kernel's width by the shape of each piece, and mixed pixels 20 apart."""
    crs, transform, width, height, target = KERNELS[name]
    noise = np.random.default_rng(1).normal(5, 1, (1, height, width)).astype("float32")
    path = make_raster(pixels=noise, crs=crs, transform=transform)
    result = convert_raster(path, str(tmp_path / "out"), target_crs=target)
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        expected = by_hand(source, *places_of(cog, source))
        found, known = cog.read(1), (cog.read_masks(1) > 0) & np.isfinite(expected)
    assert known.sum() > 0.3 * width * height
    assert np.abs(found - expected)[known].max() < 0.06


@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
def test_where_pixels_become_larger_more_of_the_source_is_mixed_along_that_side(make_raster, tmp_path, resampling):
    """At 70 degrees of latitude a pixel of Web Mercator covers more than two columns, and less than a row."""
    columns, rows = (np.zeros((1, 300, 300), "float32") for _ in range(2))
    columns[:, :, ::2] = 1
    rows[:, ::2] = 1
    place = {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 20, 0, -0.01, 71)}
    spread = []
    for name, stripes in (("columns", columns), ("rows", rows)):
        path = make_raster(f"{name}.tif", pixels=stripes, **place)
        options = {"target_crs": "EPSG:3857", "kind": "continuous", "resampling": resampling}
        result = convert_raster(path, str(tmp_path / "out"), **options)
        with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
            found = sides(source, cog.crs, cog.transform)
            spread.append(float(cog.read(1)[5:-5, 5:-5].std()))
        assert 2 < found.across < 2.5
        assert 0.6 < found.down < 0.8
    assert spread[0] < 0.1
    assert spread[1] > 0.25


@pytest.mark.parametrize(("pixel", "expected"), [(10, False), (100, False), (1_000, True), (20_000, True)])
def test_rows_of_small_pixels_are_straight_enough(make_raster, pixel, expected):
    """The exact way takes three times as long, and rasters of large pixels are small."""
    pixels = np.zeros((1, 512, 512), "uint8")
    path = make_raster(pixels=pixels, crs="EPSG:3035", transform=Affine(pixel, 0, 4_000_000, 0, -pixel, 3_300_000))
    with rasterio.open(path) as source, WarpedVRT(source, crs="EPSG:4326") as grid:
        assert has_bent_rows(source, grid.crs, grid.transform, Window(0, 0, 512, 512)) is expected
