"""The depths of rasters in the pixels of a picture."""

import math
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from jobs.flood_risk_cog.ground import around, places
from jobs.flood_risk_cog.picture_frame import Frame
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.units import metres_of

SAMPLE_SIDE = 512


def add_depths(depths: Any, frame: Frame, path: str, box: list[float]) -> str | None:
    """Lay one raster into its part of the picture, read from the overview that is about as fine; its unit."""
    place = Affine.translation(-frame.turn_of(box[0]), 0) @ frame.place
    rows, columns = depths.shape
    (west, top), (east, bottom) = ~place @ (box[0], box[3]), ~place @ (box[2], box[1])
    in_row, in_column = centres_between(top, bottom, rows), centres_between(west, east, columns)
    part = depths[in_row, in_column]
    # Beyond what a picture's numbers hold, a depth is infinite.
    with open_raster(path) as dataset, np.errstate(over="ignore"):
        shrink = max(dataset.width, dataset.height) / SAMPLE_SIDE
        shape = [max(1, round(side / max(shrink, 1))) for side in (dataset.height, dataset.width)]
        unit = dataset.units[0] or None
        is_length = metres_of(unit) is not None
        source_place = _place_seen_from(dataset, box) @ Affine.scale(
            dataset.width / shape[1], dataset.height / shape[0]
        )
        values = depths_of_band(dataset, out_shape=tuple(shape), resampling=Resampling.nearest).astype("float32")
        warped = np.full(part.shape, np.nan, dtype="float32")
        reproject(
            values,
            warped,
            src_transform=source_place,
            src_crs=dataset.crs,
            src_nodata=np.nan,
            dst_transform=place @ Affine.translation(in_column.start, in_row.start),
            dst_crs="EPSG:4326",
            dst_nodata=np.nan,
            resampling=Resampling.nearest,
        )
    np.fmax(part, warped, out=part)
    return "m" if is_length else unit


def depths_of_band(dataset: Any, **options: Any) -> Any:
    """Band 1 with scale and offset, in metres where its unit is a length; NaN where nodata, a mask or alpha hides.

    Args:
        options: Of rasterio's read.
    """
    band = dataset.read(1, masked=True, **options)
    metres = metres_of(dataset.units[0]) or 1
    values = band.astype("float64").filled(np.nan) * (dataset.scales[0] * metres) + dataset.offsets[0] * metres
    if ColorInterp.alpha in dataset.colorinterp:
        # GDAL takes alpha bands of 8 and 16 unsigned bits alone for masks.
        values[dataset.read(dataset.colorinterp.index(ColorInterp.alpha) + 1, **options) == 0] = np.nan
    return values


def _place_seen_from(dataset: Any, box: list[float]) -> Any:
    """Its transform, a turn around the globe away where it shows a part beyond the seam of its coordinate system."""
    middle = (np.array([(box[0] + box[2]) / 2]), np.array([(box[1] + box[3]) / 2]))
    x, _ = places(CRS.from_user_input("OGC:CRS84"), dataset.crs, *middle)
    west, east = sorted(dataset.bounds[0::2])
    away = float((x - around(dataset.crs).into(west, east, x))[0])
    return Affine.translation(away, 0) @ dataset.transform if math.isfinite(away) else dataset.transform


def centres_between(begin: float, end: float, count: int) -> slice:
    """Of `count` pixels those whose centre lies in between, else the one that holds the begin.

    A centre beyond the date line would come back from GDAL on its other side, and GDAL's linear approximation between
    first, middle and last pixel would then mirror a raster of the whole world.
    """
    first, last = math.ceil(begin - 0.5), math.floor(end - 0.5)
    if last < first:
        first = last = math.floor(begin)
    return slice(max(first, 0), min(last, count - 1) + 1)
