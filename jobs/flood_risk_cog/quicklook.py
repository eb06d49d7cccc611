"""A small picture of where the rasters lie and how deep the water stands, with its title, colours and scale."""

import base64
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import reproject

from jobs.flood_risk_cog.footprint import HALF_TURN, TURN, union
from jobs.flood_risk_cog.ground import around, places
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
# Smaller than this in the picture of all, a raster is a speck; smaller than a tiny one, it gets a ring around it.
SPECK, TINY = 24.0, 5.0
# Panels beside each other to the longest side of each.
PANEL_SIDES = {1: LONGEST_SIDE, 2: 392, 3: 256}
MOST_PANELS, GAP, LABEL, LOCATOR_HEIGHT, LEAST_LOCATOR = 12, 16, 18, 200, 60
GRATICULE = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)
LETTERS = "ABCDEFGHIJKL"
PAPER, EDGE_LINE = (255, 255, 255), (214, 214, 208)


@dataclass(frozen=True)
class Frame:
    """A picture's part of the world; `east` is over 180 where it crosses the antimeridian."""

    place: Affine
    columns: int
    rows: int
    west: float
    middle: float

    @classmethod
    def around(cls, boxes: list[list[float]], longest_side: int = LONGEST_SIDE) -> "Frame":
        west, south, east, north = union(boxes)
        east += TURN * (east < west)
        margin = max(east - west, north - south, 1e-6) * 0.03
        west, south, east, north = west - margin, south - margin, east + margin, north + margin
        pixel = max(east - west, north - south) / longest_side
        columns, rows = max(1, round((east - west) / pixel)), max(1, round((north - south) / pixel))
        return cls(Affine(pixel, 0, west, 0, -pixel, north), columns, rows, west, (south + north) / 2)

    def turn_of(self, west: float) -> float:
        """What a longitude is moved by to stand in the frame."""
        return TURN if west < self.west - 1e-9 else 0.0

    def spot_of(self, box: list[float]) -> tuple[float, float, float]:
        """Column and row of a box's middle, and its longer side, in pixels."""
        west, south, east, north = box
        west, east = west + self.turn_of(west), east + self.turn_of(west) + TURN * (east < west)
        column, row = ~self.place @ ((west + east) / 2, (south + north) / 2)
        return column, row, max(east - west, north - south) / self.place.a


@dataclass(frozen=True)
class Panel:
    """Rasters that are near each other, with their part of the world and the depths there."""

    shapes: list[Shape]
    frame: Frame
    depths: Any


def draw_quicklook(
    shapes: list[Shape], title: str = "", *, each: Callable[[list[Shape]], Iterable[Shape]] = iter
) -> tuple[bytes, list[dict[str, str]]]:
    """A PNG in longitude and latitude, the deepest water on top; and which rasters are missing in it, and why.

    Rasters that would be specks in one picture of all are drawn in several, with a small one of where these are.
    Memory is that of the picture and of one decimated raster, however many there are. `each` is asked for the shapes
    one by one, as they are drawn.
    """
    groups = groups_of(shapes)
    side = LONGEST_SIDE if len(groups) == 1 else PANEL_SIDES[min(len(groups), 3)]
    panels = []
    for group in groups:
        frame = Frame.around([box for _, _, box in group], side)
        panels.append(Panel(group, frame, np.full((frame.rows, frame.columns), np.nan, dtype="float32")))
    panel_of = {id(shape): panel for panel in panels for shape in panel.shapes}
    missing, units = [], set()
    for shape in each(shapes):
        path, _, box = shape
        if path is None:
            continue
        try:
            for part in _parts(box):
                units.add(add_depths(panel_of[id(shape)].depths, panel_of[id(shape)].frame, path, part))
        except (RasterioError, CPLE_BaseError, ValueError, OSError) as error:
            missing.append({"name": PurePosixPath(path).name, "reason": f"it could not be drawn: {error}"[:500]})
    deepest = max((depth for panel in panels if (depth := _deepest(panel.depths)) is not None), default=None)
    pictures = [_coloured(panel, deepest) for panel in panels]
    unit = units.pop() if len(units) == 1 else "different units" if units else None
    whole = panels[0].frame if len(panels) == 1 else None
    picture = Image.fromarray(pictures[0]) if len(panels) == 1 else _arranged(panels, pictures)
    return _with_legend(picture, whole, title, _subtitle(shapes, len(panels)), deepest, unit), missing


def draw_as_text(shapes: list[Shape], title: str) -> dict[str, Any]:
    """The picture in base64, for a worker that has a child process draw it."""
    png, missing = draw_quicklook([(path, geometry, box) for path, geometry, box in shapes], title)
    return {"png": base64.b64encode(png).decode(), "missing": missing}


def groups_of(shapes: list[Shape]) -> list[list[Shape]]:
    """The shapes, divided at the widest gaps between them until none is a speck, or there are enough groups."""
    groups = [shapes]
    while len(groups) < MOST_PANELS:
        divided = [found for index, group in enumerate(groups) if (found := _divided(group, index)) is not None]
        if not divided:
            break
        _, index, parts = max(divided, key=lambda each: (each[0], -each[1]))
        groups[index : index + 1] = parts
    return groups


def _divided(group: list[Shape], index: int) -> tuple[float, int, list[list[Shape]]] | None:
    """The widest gap of a group that shows a speck, its index, and its two parts; None where it should stay whole."""
    if len(group) < 2:  # noqa: PLR2004
        return None
    frame = Frame.around([box for _, _, box in group], LONGEST_SIDE)
    if min(frame.spot_of(box)[2] for _, _, box in group) >= SPECK:
        return None
    best: tuple[float, list[list[Shape]]] | None = None
    for low, high in ((0, 2), (1, 3)):
        spans = sorted((_span(frame, shape, low, high), place) for place, shape in enumerate(group))
        reached = spans[0][0][1]
        for position, ((begin, end), _) in enumerate(spans[1:], start=1):
            if begin - reached > 0 and (best is None or begin - reached > best[0]):
                order = [place for _, place in spans]
                best = (
                    begin - reached,
                    [[group[place] for place in order[:position]], [group[place] for place in order[position:]]],
                )
            reached = max(reached, end)
    return None if best is None else (best[0], index, best[1])


def _span(frame: Frame, shape: Shape, low: int, high: int) -> tuple[float, float]:
    box = shape[2]
    if low == 1:
        return box[1], box[3]
    turn = frame.turn_of(box[0])
    return box[low] + turn, box[high] + turn + TURN * (box[high] < box[low])


def _deepest(depths: Any) -> float | None:
    wet = depths[np.isfinite(depths) & (depths > 0)]
    return float(wet.max()) if wet.size else None


def _coloured(panel: Panel, deepest: float | None) -> Any:
    """Ground, water and outlines; a ring around what is still too small to see."""
    depths, frame = panel.depths, panel.frame
    picture = np.empty((frame.rows, frame.columns, 3), dtype="uint8")
    picture[:] = BACKGROUND
    picture[np.isfinite(depths)] = GROUND
    wet = np.isfinite(depths) & (depths > 0)
    if deepest is not None:
        picture[wet] = _colours(depths[wet] / deepest)
    lines = [{"type": "MultiLineString", "coordinates": _rings(frame, shape)} for _, shape, _ in panel.shapes]
    if lines:
        edges = rasterize(lines, out_shape=depths.shape, transform=frame.place, all_touched=True, dtype="uint8")
        picture[edges > 0] = OUTLINE
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for _, _, box in panel.shapes:
        column, row, side = frame.spot_of(box)
        if side < TINY:
            pen.ellipse((column - TINY, row - TINY, column + TINY, row + TINY), outline=OUTLINE, width=1)
    return np.asarray(image)


def _arranged(panels: list[Panel], pictures: list[Any]) -> Any:
    """Panels in rows, each with its letter, below a small picture of where they are."""
    across = min(len(panels), 3)
    side = PANEL_SIDES[across]
    width = across * side + (across - 1) * GAP
    locator = _locator(panels, width)
    rows = [pictures[first : first + across] for first in range(0, len(pictures), across)]
    heights = [max(picture.shape[0] for picture in row) + LABEL for row in rows]
    sheet = Image.new("RGB", (width, locator.height + GAP + sum(heights) + GAP * (len(rows) - 1)), PAPER)
    sheet.paste(locator, (0, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    top, number = locator.height + GAP, 0
    for row, height in zip(rows, heights, strict=True):
        for place, picture in enumerate(row):
            left = place * (side + GAP)
            pen.text((left, top), _label(number, panels[number]), INK, font)
            sheet.paste(Image.fromarray(picture), (left, top + LABEL))
            number += 1
        top += height + GAP
    return sheet


def _label(number: int, panel: Panel) -> str:
    frame, count = panel.frame, len(panel.shapes)
    kilometres = frame.columns * _kilometres_per_pixel(frame)
    longitude = (frame.west + frame.place.a * frame.columns / 2 + HALF_TURN) % TURN - HALF_TURN
    place = f"{_degrees(frame.middle, 'NS')} {_degrees(longitude, 'EW')}"
    return f"{LETTERS[number]}: {count} raster{'s' * (count != 1)} at {place}, {kilometres:.3g} km wide"


def _degrees(value: float, signs: str) -> str:
    return f"{abs(value):.4g}°{signs[value < 0] if value else ''}"


def _locator(panels: list[Panel], width: int) -> Any:
    """Where the panels are, with their letters."""
    boxes = [box for panel in panels for _, _, box in panel.shapes]
    frame = Frame.around(boxes, width)
    scale = min(1.0, LOCATOR_HEIGHT / frame.rows)
    image = Image.new("RGB", (width, max(LEAST_LOCATOR, round(frame.rows * scale))), BACKGROUND)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    left, top = (width - frame.columns * scale) / 2, (image.height - frame.rows * scale) / 2
    _draw_graticule(pen, frame, image, scale, (left, top))
    for number, panel in enumerate(panels):
        column, row, size = frame.spot_of(union([box for _, _, box in panel.shapes]))
        x, y, half = left + column * scale, top + row * scale, max(3.0, size * scale / 2)
        pen.rectangle((x - half, y - half, x + half, y + half), outline=DEEP, width=2)
        at = min(max(x + half + 4, 2), width - 12), min(max(y - 7, 1), image.height - 16)
        pen.text(at, LETTERS[number], INK, font)
    pen.rectangle((0, 0, image.width - 1, image.height - 1), outline=EDGE_LINE)
    return image


def _draw_graticule(pen: Any, frame: Frame, image: Any, scale: float, corner: tuple[float, float]) -> None:
    """Lines of round longitudes and latitudes, with their degrees."""
    pixel = frame.place.a / scale
    step = next((each for each in GRATICULE if each >= pixel * 90), GRATICULE[-1])
    west, north = frame.west - corner[0] * pixel, frame.place.f + corner[1] * pixel
    font = ImageFont.load_default(10)
    for number in range(math.ceil(west / step), math.floor((west + image.width * pixel) / step) + 1):
        x = (number * step - west) / pixel
        pen.line((x, 0, x, image.height), fill=EDGE_LINE)
        longitude = (number * step + HALF_TURN) % TURN - HALF_TURN
        pen.text((x + 3, image.height - 14), _degrees(longitude, "EW"), PALE, font)
    for number in range(math.ceil((north - image.height * pixel) / step), math.floor(north / step) + 1):
        y = (north - number * step) / pixel
        pen.line((0, y, image.width, y), fill=EDGE_LINE)
        pen.text((4, y - 13), _degrees(number * step, "NS"), PALE, font)


def _subtitle(shapes: list[Shape], panels: int) -> str:
    classes = sum(path is None for path, _, _ in shapes)
    if not shapes:
        return "nothing was converted"
    words = f"{len(shapes)} rasters" if len(shapes) != 1 else "1 raster"
    words += f" in {panels} places far apart" if panels > 1 else ""
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


def _with_legend(
    picture: Any, frame: Frame | None, title: str, words: str, deepest: float | None, unit: str | None
) -> bytes:
    columns, rows = picture.size
    width = max(columns, SMALLEST_WIDTH) + 2 * EDGE
    sheet = Image.new("RGB", (width, rows + HEADER + FOOTER), PAPER)
    left = (width - columns) // 2
    sheet.paste(picture, (left, HEADER))
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


def _kilometres_per_pixel(frame: Frame) -> float:
    """At the middle of the picture."""
    return float(frame.place.a) * KILOMETRES_PER_DEGREE * max(math.cos(math.radians(frame.middle)), 1e-6)


def _draw_scale(pen: Any, frame: Frame | None, right: int, top: int, font: Any) -> None:
    """A bar of a round length, true at the middle of the picture; panels have their widths beside them."""
    pen.text((right, top + 32), "longitude and latitude, WGS 84", PALE, font, anchor="ra")
    if frame is None:
        return
    per_pixel = _kilometres_per_pixel(frame)
    longest = per_pixel * 140
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    left = right - round(length / per_pixel)
    pen.line([(left, top), (left, top + 8), (right, top + 8), (right, top)], INK, 2)
    label = f"{length:g} km" if length >= 1 else f"{length * 1000:g} m"
    pen.text(((left + right) / 2, top + 14), label, INK, font, anchor="ma")


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
        source_place = _place_seen_from(dataset, box) @ Affine.scale(
            dataset.width / shape[1], dataset.height / shape[0]
        )
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
