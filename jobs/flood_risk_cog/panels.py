"""Several pictures on one sheet, below a small one of where they are."""

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from jobs.flood_risk_cog.footprint import HALF_TURN, TURN, union
from jobs.flood_risk_cog.picture_frame import LONGEST_SIDE, Frame, Shape

BACKGROUND, INK, PALE, DEEP = (246, 246, 242), (40, 40, 40), (120, 120, 115), (8, 48, 107)
PAPER, EDGE_LINE = (255, 255, 255), (214, 214, 208)
# Panels beside each other to the longest side of each.
PANEL_SIDES = {1: LONGEST_SIDE, 2: 392, 3: 256}
GAP, LABEL, LOCATOR_HEIGHT, LEAST_LOCATOR = 16, 18, 200, 60
GRATICULE = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)
LETTERS = "ABCDEFGHIJKL"


@dataclass(frozen=True)
class Panel:
    """Rasters that are near each other, with their part of the world and the depths there."""

    shapes: list[Shape]
    frame: Frame
    depths: Any


def arranged(panels: list[Panel], pictures: list[Any]) -> Any:
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
    kilometres = frame.columns * frame.kilometres_per_pixel
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
