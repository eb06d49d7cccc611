"""Which rasters cover the same ground: sums of their areas count it once per raster."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

Json = dict[str, Any]

# What a summary counts and names.
MOST_COUNTED, MOST_NAMED = 10_000, 100
TURN = 360.0
# In degrees, about ten metres: neighbours in different systems touch.
TOUCHING = 1e-4
# Of longitude, in Web Mercator.
METRES_OF_A_DEGREE = 111_319.49


def overlapping(rasters: Sequence[Json]) -> list[tuple[str, str]]:
    """Names of pairs that overlap, at most `MOST_COUNTED`, in order."""
    return sorted(islice(_pairs(rasters), MOST_COUNTED))


def _pairs(rasters: Sequence[Json]) -> Iterator[tuple[str, str]]:
    beside: list[Json] = []
    for raster in sorted(rasters, key=lambda each: (each["bbox"][1], each["name"])):
        beside = [each for each in beside if each["bbox"][3] > raster["bbox"][1]]
        for other in beside:
            if _do_overlap(raster, other):
                yield min(raster["name"], other["name"]), max(raster["name"], other["name"])
        beside.append(raster)


def _do_overlap(one: Json, other: Json) -> bool:
    touching = TOUCHING
    if one.get("web_zoom") is not None and one["crs"] == other["crs"]:
        # Their grids are whole tiles; where their data are, their boxes show.
        touching = max(touching, max(one["transform"][0], other["transform"][0]) / 2 / METRES_OF_A_DEGREE)
    elif one["crs"] == other["crs"] and one["crs"] is not None:
        half_a_pixel = max(abs(one["transform"][0]), abs(other["transform"][0])) / 2
        (left, bottom, right, top), (west, south, east, north) = one["bounds"], other["bounds"]
        across = min(max(left, right), max(west, east)) - max(min(left, right), min(west, east))
        down = min(max(bottom, top), max(south, north)) - max(min(bottom, top), min(south, north))
        if across > half_a_pixel and down > half_a_pixel:
            return True
        if one["bbox"][0] <= one["bbox"][2] and other["bbox"][0] <= other["bbox"][2]:
            return False
    a, b = one["bbox"], other["bbox"]
    if min(a[3], b[3]) - max(a[1], b[1]) <= touching:
        return False
    (begin, end), (west, east) = ((box[0], box[2] + TURN * (box[2] < box[0])) for box in (a, b))
    return any(min(end, east + turn) - max(begin, west + turn) > touching for turn in (0.0, TURN, -TURN))


def area_of(rasters: Sequence[Json], pairs: int) -> Json:
    """How the sum of flooded areas is to be read."""
    areas = [float(raster["statistics"]["flooded_area_km2"]) for raster in rasters]
    if not pairs:
        return {"overlapping_pairs": 0, "flooded_area_counts": "each place once"}
    return {
        "overlapping_pairs": pairs,
        "flooded_area_counts": "a place once per raster that covers it; flooded_area_at_least_km2 counts the raster "
        "with the largest flooded area alone, so the area without repeated places is between the two",
        "flooded_area_at_least_km2": max(areas, default=0.0),
    }
