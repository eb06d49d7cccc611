"""Several pictures on one sheet, below a small one of where they are."""

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from jobs.flood_risk_cog.footprint import HALF_TURN, POLE, TURN, union
from jobs.flood_risk_cog.picture_frame import LONGEST_SIDE, Frame, Shape

BACKGROUND, INK, PALE, DEEP = (246, 246, 242), (40, 40, 40), (120, 120, 115), (8, 48, 107)
PAPER, EDGE_LINE = (255, 255, 255), (214, 214, 208)
# Panels beside each other to the longest side of each.
PANEL_SIDES = {1: LONGEST_SIDE, 2: 392, 3: 256}
GAP, LABEL, LOCATOR_HEIGHT, LEAST_LOCATOR = 16, 18, 200, 60
GRATICULE = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 45, 60, 90)
LETTERS, LETTER = "ABCDEFGHIJKL", (11, 14)


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
    sheet.paste(locator, ((width - locator.width) // 2, 0))
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
    # Beside the world there is a margin.
    columns = min(frame.columns, TURN / frame.place.a)
    longitude = (frame.west + frame.place.a * frame.columns / 2 + HALF_TURN) % TURN - HALF_TURN
    place = f"{_degrees(frame.middle, 'NS')} {_degrees(longitude, 'EW')}"
    width = in_kilometres(columns * frame.kilometres_per_pixel)
    return f"{LETTERS[number]}: {count} raster{'s' * (count != 1)} at {place}, {width} wide"


def in_kilometres(length: float) -> str:
    """With three digits that count."""
    if length >= 1000:  # noqa: PLR2004 - where digits are grouped
        return f"{float(f'{length:.3g}'):,.0f} km"
    return f"{length:.3g} km" if length >= 1 else f"{length * 1000:.3g} m"


def _degrees(value: float, signs: str) -> str:
    return f"{abs(value):.4g}°{signs[value < 0] if abs(value) not in {0, HALF_TURN} else ''}"


def _locator(panels: list[Panel], width: int) -> Any:
    """Where the panels are, with their letters."""
    boxes = [box for panel in panels for _, _, box in panel.shapes]
    frame = Frame.around(boxes, width)
    scale = min(1.0, LOCATOR_HEIGHT / frame.rows)
    # Beside the world there is no other one.
    across = min(width, math.ceil(max(TURN / frame.place.a, frame.columns) * scale))
    image = Image.new("RGB", (across, max(LEAST_LOCATOR, round(frame.rows * scale))), BACKGROUND)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    left, top = (across - frame.columns * scale) / 2, (image.height - frame.rows * scale) / 2
    _draw_graticule(pen, frame, image, scale, (left, top))
    taken: list[tuple[float, float]] = []
    for number, panel in enumerate(panels):
        column, row, wide, high = frame.part_of(union([box for _, _, box in panel.shapes]))
        x, y = left + column * scale, top + row * scale
        half, tall = max(3.0, wide * scale / 2), max(3.0, high * scale / 2)
        pen.rectangle((x - half, y - tall, x + half, y + tall), outline=DEEP, width=2)
        at = _free_place(_places_of_letter((x, y), (half, tall), image), taken)
        taken.append(at)
        pen.text(at, LETTERS[number], INK, font)
    pen.rectangle((0, 0, image.width - 1, image.height - 1), outline=EDGE_LINE)
    return image


def _places_of_letter(spot: tuple[float, float], half: tuple[float, float], image: Any) -> list[tuple[float, float]]:
    """Where a letter may be: beside the box on the right, the left, below, above, and in it; all in the picture."""
    (x, y), (wide, tall) = spot, half
    beside = [(wide + 4, -7), (-wide - 13, -7), (-4, tall + 1), (-4, -tall - 15), (-wide + 5, -tall + 2)]
    inside = (image.width - 12, image.height - 16)
    places = [(x + across, y + down) for across, down in beside]
    kept = [at for at in places if 0 < at[0] <= inside[0] and 0 < at[1] <= inside[1]]
    return kept or [(min(max(x - 4, 1), inside[0]), min(max(y - 7, 1), inside[1]))]


def _free_place(places: list[tuple[float, float]], taken: list[tuple[float, float]]) -> tuple[float, float]:
    """The first on which no other letter is, else the first."""
    free = [at for at in places if all(abs(at[0] - x) >= LETTER[0] or abs(at[1] - y) >= LETTER[1] for x, y in taken)]
    return (free or places)[0]


def _draw_graticule(pen: Any, frame: Frame, image: Any, scale: float, corner: tuple[float, float]) -> None:
    """Lines of round longitudes and latitudes, with their degrees."""
    pixel = frame.place.a / scale
    step = next((each for each in GRATICULE if each >= pixel * 90), GRATICULE[-1])
    west, north = frame.west - corner[0] * pixel, frame.place.f + corner[1] * pixel
    font = ImageFont.load_default(10)
    # One turn of longitudes, and no latitudes beyond the poles.
    middle = frame.west + frame.place.a * frame.columns / 2
    begin, end = max(west, middle - HALF_TURN), min(west + image.width * pixel, middle + HALF_TURN)
    for number in range(math.ceil(begin / step), math.floor(end / step) + 1):
        x = (number * step - west) / pixel
        pen.line((x, 0, x, image.height), fill=EDGE_LINE)
        longitude = (number * step + HALF_TURN) % TURN - HALF_TURN
        label = _degrees(longitude, "EW")
        if x + 3 + pen.textlength(label, font) < image.width:
            pen.text((x + 3, image.height - 14), label, PALE, font)
    south, north_end = max(north - image.height * pixel, -POLE), min(north, POLE)
    for number in range(math.ceil(south / step), math.floor(north_end / step) + 1):
        y = (north - number * step) / pixel
        pen.line((0, y, image.width, y), fill=EDGE_LINE)
        pen.text((4, y - 13), _degrees(number * step, "NS"), PALE, font)
