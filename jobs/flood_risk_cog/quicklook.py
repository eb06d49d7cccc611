"""A small picture of where the rasters lie and how deep the water stands, with its title, colours and scale."""

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import reproject

from jobs.flood_risk_cog.footprint import HALF_TURN, TURN, union
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.units import metres_of

# Path of a COG of depths (None for one of classes), its GeoJSON footprint, its box: [west, south, east, north].
Shape = tuple[str | None, dict[str, Any], list[float]]

LONGEST_SIDE = 800
SMALLEST_WIDTH = 480
SAMPLE_SIDE = 512
BACKGROUND, GROUND, OUTLINE, INK, PALE = (246, 246, 242), (222, 220, 208), (70, 70, 70), (40, 40, 40), (120, 120, 115)
SHALLOW, DEEP = (176, 214, 240), (8, 48, 107)
HEADER, FOOTER, EDGE = 44, 72, 16
KILOMETRES_PER_DEGREE = 111.32


@dataclass(frozen=True)
class Frame:
    """The picture's part of the world; `east` is over 180 where it crosses the antimeridian."""

    place: Affine
    columns: int
    rows: int
    west: float
    middle: float

    @classmethod
    def around(cls, boxes: list[list[float]]) -> "Frame":
        west, south, east, north = union(boxes)
        east += TURN * (east < west)
        margin = max(east - west, north - south, 1e-6) * 0.03
        west, south, east, north = west - margin, south - margin, east + margin, north + margin
        pixel = max(east - west, north - south) / LONGEST_SIDE
        columns, rows = max(1, round((east - west) / pixel)), max(1, round((north - south) / pixel))
        return cls(Affine(pixel, 0, west, 0, -pixel, north), columns, rows, west, (south + north) / 2)

    def turn_of(self, west: float) -> float:
        """What a longitude is moved by to stand in the frame."""
        return TURN if west < self.west - 1e-9 else 0.0


def draw_quicklook(
    shapes: list[Shape], title: str = "", *, each: Callable[[list[Shape]], Iterable[Shape]] = iter
) -> tuple[bytes, list[dict[str, str]]]:
    """A PNG in longitude and latitude, the deepest water on top; and which rasters are missing in it, and why.

    Memory is that of the picture and of one decimated raster, however many there are. `each` is asked for the shapes
    one by one, as they are drawn.
    """
    frame = Frame.around([box for _, _, box in shapes])
    depths = np.full((frame.rows, frame.columns), np.nan, dtype="float32")
    missing, units = [], set()
    for path, _, box in each(shapes):
        if path is None:
            continue
        try:
            for part in _parts(box):
                units.add(add_depths(depths, frame, path, part))
        except (RasterioError, CPLE_BaseError, ValueError, OSError) as error:
            missing.append({"name": PurePosixPath(path).name, "reason": f"it could not be drawn: {error}"[:500]})
    picture = np.empty((frame.rows, frame.columns, 3), dtype="uint8")
    picture[:] = BACKGROUND
    picture[np.isfinite(depths)] = GROUND
    wet = np.isfinite(depths) & (depths > 0)
    deepest = float(depths[wet].max()) if wet.any() else None
    if deepest is not None:
        picture[wet] = _colours(depths[wet] / deepest)
    lines = [{"type": "MultiLineString", "coordinates": _rings(frame, shape)} for _, shape, _ in shapes]
    if lines:
        edges = rasterize(lines, out_shape=depths.shape, transform=frame.place, all_touched=True, dtype="uint8")
        picture[edges > 0] = OUTLINE
    unit = units.pop() if len(units) == 1 else "different units" if units else None
    return _with_legend(picture, frame, title, _subtitle(shapes), deepest, unit), missing


def _subtitle(shapes: list[Shape]) -> str:
    classes = sum(path is None for path, _, _ in shapes)
    if not shapes:
        return "nothing was converted"
    words = f"{len(shapes)} rasters" if len(shapes) != 1 else "1 raster"
    return f"{words}, the deepest water on top" + (f"; of {classes} with classes the outline alone" if classes else "")


def _parts(box: list[float]) -> list[list[float]]:
    west, south, east, north = box
    return [box] if west <= east else [[west, south, HALF_TURN, north], [-HALF_TURN, south, east, north]]


def _colours(share: Any) -> Any:
    shallow, deep = np.array(SHALLOW), np.array(DEEP)
    return np.rint(shallow + (deep - shallow) * np.asarray(share)[..., None]).astype("uint8")


def _rings(frame: Frame, shape: dict[str, Any]) -> list[Any]:
    polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    rings = []
    for ring in (ring for polygon in polygons for ring in polygon):
        turn = frame.turn_of(min(x for x, _ in ring))
        rings.append([(x + turn, y) for x, y in ring])
    return rings


def _with_legend(picture: Any, frame: Frame, title: str, words: str, deepest: float | None, unit: str | None) -> bytes:
    rows, columns = picture.shape[:2]
    width = max(columns, SMALLEST_WIDTH) + 2 * EDGE
    sheet = Image.new("RGB", (width, rows + HEADER + FOOTER), (255, 255, 255))
    left = (width - columns) // 2
    sheet.paste(Image.fromarray(picture), (left, HEADER))
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(12)
    pen.text((EDGE, 6), _fitted(pen, title or "Flood depths", large, width - 2 * EDGE), INK, large)
    pen.text((EDGE, 27), words, PALE, small)
    top = HEADER + rows + 14
    _draw_colours(pen, sheet, top, deepest, unit, small)
    _draw_scale(pen, frame, width - EDGE, top, small)
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=False)
    return file.getvalue()


def _fitted(pen: Any, text: str, font: Any, width: float) -> str:
    text = " ".join(text.split())
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(f"{text}...", font) > width:
        text = text[:-1]
    return f"{text}..."


def _draw_colours(pen: Any, sheet: Any, top: int, deepest: float | None, unit: str | None, font: Any) -> None:
    bar = 180
    if deepest is None:
        pen.text((EDGE, top), "no water", INK, font)
        bar = 0
    else:
        ramp = np.repeat(_colours(np.linspace(0, 1, bar))[None], 12, axis=0)
        sheet.paste(Image.fromarray(ramp), (EDGE, top))
        pen.text((EDGE, top + 16), "0", INK, font)
        label = f"{deepest:.3g} {unit or '(no unit)'}"
        pen.text((EDGE + bar, top + 16), label, INK, font, anchor="ra")
    at = EDGE + bar + (20 if bar else 70)
    for colour, words in ((GROUND, "dry"), (BACKGROUND, "no data")):
        pen.rectangle((at, top, at + 12, top + 12), colour, OUTLINE)
        pen.text((at + 18, top - 1), words, INK, font)
        at += 30 + int(pen.textlength(words, font))


def _draw_scale(pen: Any, frame: Frame, right: int, top: int, font: Any) -> None:
    """A bar of a round length, true at the middle of the picture."""
    per_pixel = frame.place.a * KILOMETRES_PER_DEGREE * max(math.cos(math.radians(frame.middle)), 1e-6)
    longest = per_pixel * 140
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    left = right - round(length / per_pixel)
    pen.line([(left, top), (left, top + 8), (right, top + 8), (right, top)], INK, 2)
    label = f"{length:g} km" if length >= 1 else f"{length * 1000:g} m"
    pen.text(((left + right) / 2, top + 14), label, INK, font, anchor="ma")
    pen.text((right, top + 32), "longitude and latitude, WGS 84", PALE, font, anchor="ra")


def add_depths(depths: Any, frame: Frame, path: str, box: list[float]) -> str | None:
    """Lay one raster into its part of the picture, read from the overview that is about as fine; its unit."""
    place = Affine.translation(-frame.turn_of(box[0]), 0) @ frame.place
    rows, columns = depths.shape
    (west, top), (east, bottom) = ~place @ (box[0], box[3]), ~place @ (box[2], box[1])
    in_row, in_column = centres_between(top, bottom, rows), centres_between(west, east, columns)
    part = depths[in_row, in_column]
    with open_raster(path) as dataset:
        shrink = max(dataset.width, dataset.height) / SAMPLE_SIDE
        shape = [max(1, round(side / max(shrink, 1))) for side in (dataset.height, dataset.width)]
        band = dataset.read(1, out_shape=tuple(shape), masked=True, resampling=Resampling.nearest)
        unit = dataset.units[0] or None
        metres = metres_of(unit)
        scale, offset = dataset.scales[0] * (metres or 1), dataset.offsets[0] * (metres or 1)
        source_place = dataset.transform @ Affine.scale(dataset.width / shape[1], dataset.height / shape[0])
        values = (band.astype("float64") * scale + offset).astype("float32").filled(np.nan)
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
    return "m" if metres is not None else unit


def centres_between(begin: float, end: float, count: int) -> slice:
    """Of `count` pixels those whose centre lies in between, else the one that holds the begin.

    A centre beyond the date line would come back from GDAL on its other side, and GDAL's linear approximation between
    first, middle and last pixel would then mirror a raster of the whole world.
    """
    first, last = math.ceil(begin - 0.5), math.floor(end - 0.5)
    if last < first:
        first = last = math.floor(begin)
    return slice(max(first, 0), min(last, count - 1) + 1)
