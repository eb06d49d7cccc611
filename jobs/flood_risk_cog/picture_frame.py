"""Which part of the world a picture shows, and which rasters share one picture."""

import math
from dataclasses import dataclass
from typing import Any

from rasterio.transform import Affine

from jobs.flood_risk_cog.footprint import TURN, union

# Path of a COG of depths (None for one of classes), its GeoJSON footprint, its box: [west, south, east, north].
Shape = tuple[str | None, dict[str, Any], list[float]]

LONGEST_SIDE = 800
KILOMETRES_PER_DEGREE = 111.32
# Smaller than this in the picture of all, a raster is a speck.
SPECK = 24.0
# A raster that takes more of the picture than this share hides how small the others are.
DOMINANT = 0.8
MOST_PANELS = 12


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
        column, row, wide, high = self.part_of(box)
        return column, row, max(wide, high)

    def part_of(self, box: list[float]) -> tuple[float, float, float, float]:
        """Column and row of a box's middle, its width and its height, in pixels."""
        west, south, east, north = box
        west, east = west + self.turn_of(west), east + self.turn_of(west) + TURN * (east < west)
        column, row = ~self.place @ ((west + east) / 2, (south + north) / 2)
        return column, row, (east - west) / self.place.a, (north - south) / self.place.a

    @property
    def kilometres_per_pixel(self) -> float:
        """At the middle of the picture."""
        return float(self.place.a) * KILOMETRES_PER_DEGREE * max(math.cos(math.radians(self.middle)), 1e-6)


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
    """The widest gap of a group that shows a speck, its index, and its two parts; None where it should stay whole.

    Where there is no gap, since one raster covers all the others, that one is parted from them.
    """
    if len(group) < 2:  # noqa: PLR2004
        return None
    frame = Frame.around([box for _, _, box in group], LONGEST_SIDE)
    sizes = [frame.spot_of(box)[2] for _, _, box in group]
    if min(sizes) >= SPECK:
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
    if best is None and max(sizes) >= DOMINANT * LONGEST_SIDE:
        largest = sizes.index(max(sizes))
        best = 0.0, [[group[largest]], group[:largest] + group[largest + 1 :]]
    return None if best is None else (best[0], index, best[1])


def _span(frame: Frame, shape: Shape, low: int, high: int) -> tuple[float, float]:
    box = shape[2]
    if low == 1:
        return box[1], box[3]
    turn = frame.turn_of(box[0])
    return box[low] + turn, box[high] + turn + TURN * (box[high] < box[low])
