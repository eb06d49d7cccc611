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
from rasterio.errors import RasterioError
from rasterio.features import rasterize

from jobs.flood_risk_cog.depth_grid import add_depths
from jobs.flood_risk_cog.footprint import HALF_TURN
from jobs.flood_risk_cog.panels import BACKGROUND, DEEP, INK, PALE, PANEL_SIDES, PAPER, Panel, arranged, in_kilometres
from jobs.flood_risk_cog.picture_frame import LONGEST_SIDE, Frame, Shape, groups_of

SMALLEST_WIDTH = 480
GROUND, OUTLINE, SHALLOW = (222, 220, 208), (70, 70, 70), (176, 214, 240)
# Of no class: of rasters of classes the picture shows the area alone.
CLASSES = (226, 210, 224)
HEADER, FOOTER, EDGE = 44, 72, 16
# A raster that is smaller than this in the picture gets a ring around it.
TINY = 5.0


def draw_quicklook(
    shapes: list[Shape],
    title: str = "",
    *,
    deepest: float | None = None,
    each: Callable[[list[Shape]], Iterable[Shape]] = iter,
) -> tuple[bytes, list[dict[str, str]]]:
    """A PNG in longitude and latitude, the deepest water on top; and which rasters are missing in it, and why.

    Rasters that would be specks in one picture of all are drawn in several, with a small one of where these are.
    Memory is that of the picture and of one decimated raster, however many there are. `each` is asked for the shapes
    one by one, as they are drawn. `deepest` is the depth with the darkest colour: the picture shows some of the pixels,
    and perhaps not the deepest one; left out, it is the deepest that is drawn.
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
    drawn = max((depth for panel in panels if (depth := _deepest(panel.depths)) is not None), default=None)
    if drawn is not None:
        deepest = max(drawn, deepest or 0)
    pictures = [_coloured(panel, deepest) for panel in panels]
    unit = units.pop() if len(units) == 1 else "different units" if units else None
    whole = panels[0].frame if len(panels) == 1 else None
    picture = Image.fromarray(pictures[0]) if len(panels) == 1 else arranged(panels, pictures)
    classes = sum(path is None for path, _, _ in shapes)
    legend = Legend(title, _subtitle(shapes, len(panels)), deepest, unit, classes, len(shapes) - classes)
    return _with_legend(picture, whole, legend), missing


def draw_as_text(shapes: list[Shape], title: str, deepest: float | None = None) -> dict[str, Any]:
    """The picture in base64, for a worker that has a child process draw it."""
    png, missing = draw_quicklook([(path, geometry, box) for path, geometry, box in shapes], title, deepest=deepest)
    return {"png": base64.b64encode(png).decode(), "missing": missing}


def _deepest(depths: Any) -> float | None:
    wet = depths[np.isfinite(depths) & (depths > 0)]
    return float(wet.max()) if wet.size else None


def _coloured(panel: Panel, deepest: float | None) -> Any:
    """Ground, water, the areas of classes, and outlines; a ring around what is still too small to see."""
    depths, frame = panel.depths, panel.frame
    # Of each pixel the number of its colour: whole pixels are assigned slowly.
    plain = np.zeros(depths.shape, dtype="uint8")
    areas = [
        {"type": "Polygon", "coordinates": [ring]}
        for path, shape, _ in panel.shapes
        if path is None
        for ring in _rings(frame, shape)
    ]
    if areas:
        rasterize(areas, out=plain, transform=frame.place, default_value=1)
    is_known = np.isfinite(depths)
    plain[is_known] = 2
    picture = np.array([BACKGROUND, CLASSES, GROUND], dtype="uint8").take(plain, axis=0)
    wet = is_known & (depths > 0)
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


def _subtitle(shapes: list[Shape], panels: int) -> str:
    classes = sum(path is None for path, _, _ in shapes)
    if not shapes:
        return "nothing was converted"
    words = f"{len(shapes)} rasters" if len(shapes) != 1 else "1 raster"
    words += f" in {panels} pictures" if panels > 1 else ""
    if classes == len(shapes):
        return f"{words} of classes, the area alone"
    return f"{words}, the deepest water on top" + (f"; of {classes} with classes the area alone" if classes else "")


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


@dataclass(frozen=True)
class Legend:
    """What is written around the picture; of rasters of classes the area alone is shown."""

    title: str
    words: str
    deepest: float | None
    unit: str | None
    classes: int
    depths: int


def _with_legend(picture: Any, frame: Frame | None, legend: Legend) -> bytes:
    columns, rows = picture.size
    width = max(columns, SMALLEST_WIDTH) + 2 * EDGE
    sheet = Image.new("RGB", (width, rows + HEADER + FOOTER), PAPER)
    left = (width - columns) // 2
    sheet.paste(picture, (left, HEADER))
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(12)
    pen.text((EDGE, 6), _fitted(pen, legend.title or "Flood depths", large, width - 2 * EDGE), INK, large)
    pen.text((EDGE, 27), legend.words, PALE, small)
    top = HEADER + rows + 14
    _draw_colours(pen, sheet, top, legend, small)
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


def _draw_colours(pen: Any, sheet: Any, top: int, legend: Legend, font: Any) -> None:
    bar = 180
    if legend.classes and not legend.depths:
        bar = -20
    elif legend.deepest is None:
        pen.text((EDGE, top), "no water", INK, font)
        bar = 0
    else:
        ramp = np.repeat(_colours(np.linspace(0, 1, bar))[None], 12, axis=0)
        sheet.paste(Image.fromarray(ramp), (EDGE, top))
        pen.text((EDGE, top + 16), "0", INK, font)
        label = f"{legend.deepest:.3g} {legend.unit or '(no unit)'}"
        pen.text((EDGE + bar, top + 16), label, INK, font, anchor="ra")
    at = EDGE + bar + (20 if bar else 70)
    swatches = [(GROUND, "dry"), (BACKGROUND, "no data")] * bool(legend.depths or not legend.classes)
    for colour, words in swatches + [(CLASSES, "classes, no depths")] * bool(legend.classes):
        pen.rectangle((at, top, at + 12, top + 12), colour, OUTLINE)
        pen.text((at + 18, top - 1), words, INK, font)
        at += 30 + int(pen.textlength(words, font))


def _draw_scale(pen: Any, frame: Frame | None, right: int, top: int, font: Any) -> None:
    """A bar of a round length, true at the middle of the picture; panels have their widths beside them."""
    pen.text((right, top + 32), "longitude and latitude, WGS 84", PALE, font, anchor="ra")
    if frame is None:
        return
    per_pixel = frame.kilometres_per_pixel
    longest = per_pixel * 140
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    left = right - round(length / per_pixel)
    pen.line([(left, top), (left, top + 8), (right, top + 8), (right, top)], INK, 2)
    label = in_kilometres(length)
    pen.text(((left + right) / 2, top + 14), label, INK, font, anchor="ma")
