"""A small picture of where the rasters lie and how deep the water stands."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.warp import reproject

from jobs.flood_risk_cog.source import open_raster

Footprint = tuple[str, dict[str, Any], list[float]]

LONGEST_SIDE = 800
SAMPLE_SIDE = 512
BACKGROUND, GROUND, OUTLINE = (246, 246, 242), (222, 220, 208), (70, 70, 70)
SHALLOW, DEEP = (176, 214, 240), (8, 48, 107)


def draw_quicklook(
    footprints: list[Footprint], *, each: Callable[[list[Footprint]], Iterable[Footprint]] = iter
) -> bytes:
    """A PNG in EPSG:4326 of (COG's path, GeoJSON footprint, [west, south, east, north]); the deepest water is on top.

    Memory is that of the picture and of one decimated raster, however many there are. `each` is asked for the
    footprints one by one, as they are drawn.
    """
    west, south, east, north = union([box for _, _, box in footprints])
    margin = max(east - west, north - south, 1e-6) * 0.03
    west, south, east, north = west - margin, south - margin, east + margin, north + margin
    pixel = max(east - west, north - south) / LONGEST_SIDE
    columns, rows = max(1, round((east - west) / pixel)), max(1, round((north - south) / pixel))
    place = Affine(pixel, 0, west, 0, -pixel, north)
    depths = np.full((rows, columns), np.nan, dtype="float32")
    for path, _, box in each(footprints):
        add_depths(depths, place, path, box)
    picture = np.empty((3, rows, columns), dtype="uint8")
    picture[:] = np.array(BACKGROUND, dtype="uint8")[:, None, None]
    picture[:, np.isfinite(depths)] = np.array(GROUND, dtype="uint8")[:, None]
    wet = np.isfinite(depths) & (depths > 0)
    if wet.any():
        share = depths[wet] / depths[wet].max()
        shallow, deep = np.array(SHALLOW)[:, None], np.array(DEEP)[:, None]
        picture[:, wet] = np.rint(shallow + (deep - shallow) * share).astype("uint8")
    lines = [{"type": "MultiLineString", "coordinates": rings(shape)} for _, shape, _ in footprints]
    if lines:
        edges = rasterize(lines, out_shape=(rows, columns), transform=place, all_touched=True, dtype="uint8")
        picture[:, edges > 0] = np.array(OUTLINE, dtype="uint8")[:, None]
    return png(picture, place)


def union(boxes: list[list[float]]) -> tuple[float, float, float, float]:
    if not boxes:
        return -180, -90, 180, 90
    west, south, east, north = zip(*boxes, strict=True)
    return min(west), min(south), max(east), max(north)


def rings(shape: dict[str, Any]) -> list[Any]:
    polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    return [ring for polygon in polygons for ring in polygon]


def add_depths(depths: Any, place: Affine, path: str, box: list[float]) -> None:
    """Lay one raster into its part of the picture, read from the overview that is about as fine."""
    rows, columns = depths.shape
    (west, top), (east, bottom) = ~place @ (box[0], box[3]), ~place @ (box[2], box[1])
    in_row, in_column = centres_between(top, bottom, rows), centres_between(west, east, columns)
    part = depths[in_row, in_column]
    with open_raster(path) as dataset:
        shrink = max(dataset.width, dataset.height) / SAMPLE_SIDE
        shape = [max(1, round(side / max(shrink, 1))) for side in (dataset.height, dataset.width)]
        band = dataset.read(1, out_shape=tuple(shape), masked=True, resampling=Resampling.nearest)
        source_place = dataset.transform @ Affine.scale(dataset.width / shape[1], dataset.height / shape[0])
        values = band.astype("float32").filled(np.nan)
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


def centres_between(begin: float, end: float, count: int) -> slice:
    """Of `count` pixels those whose centre lies in between, else the one that holds the begin.

    A centre beyond the date line would come back from GDAL on its other side, and GDAL's linear approximation between
    first, middle and last pixel would then mirror a raster of the whole world.
    """
    first, last = math.ceil(begin - 0.5), math.floor(end - 0.5)
    if last < first:
        first = last = math.floor(begin)
    return slice(max(first, 0), min(last, count - 1) + 1)


def png(picture: Any, place: Affine) -> bytes:
    count, rows, columns = picture.shape
    with MemoryFile(ext=".png") as memory:
        # In memory, because GDAL puts the position into a second file beside a PNG.
        profile = {"driver": "PNG", "dtype": "uint8", "crs": "EPSG:4326", "transform": place}
        with rasterio.open(memory.name, "w", width=columns, height=rows, count=count, **profile) as dataset:
            dataset.write(picture)
        return bytes(memory.read())
