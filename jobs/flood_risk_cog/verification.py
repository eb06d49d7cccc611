"""The proof of a conversion: what the COG says, read back and compared with its source."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from jobs.flood_risk_cog.facts import Facts, read_facts
from jobs.flood_risk_cog.ground import places
from jobs.flood_risk_cog.memory import cache_for_check
from jobs.flood_risk_cog.neighbours import BETWEEN, alpha_of, warp_tolerance
from jobs.flood_risk_cog.overview_check import overview_check
from jobs.flood_risk_cog.places import heights_of
from jobs.flood_risk_cog.plan import ConversionPlan
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.stage import has_epoch
from jobs.flood_risk_cog.tiff import EPOCH, lost_tags
from jobs.flood_risk_cog.warp_check import WarpCheck, check_warp
from jobs.flood_risk_cog.written import ValueChecksums

Progress = Callable[[float], None]

_TABLES = {
    "CategoryNames": "names of its categories",
    "GDALRasterAttributeTable": "its attribute table",
    "Histograms": "its histograms",
}
_COMPUTED = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS"}
# Measured on the source's grid, they are none of the reprojected one's.
_MEASURED = "STATISTICS_"
_BLACK = (0, 0, 0, 255)
# Of a pixel: less does not move it.
_MOST_SHIFT = 0.01


def verify_cog(
    source: str,
    facts: Facts,
    cog: str,
    plan: ConversionPlan,
    progress: Progress,
    *,
    made: ValueChecksums | None = None,
) -> dict[str, Any]:
    """Compare a COG, pixel by pixel where it was not reprojected and in samples where it was, with its source.

    Args:
        facts: Of the source, as it was read before anything was written.
        made: Of what the warp made, where it was reprojected.

    Returns:
        `problems` says in words what must not differ, `allowed` what may, `lost` names metadata that the COG does not
        have. `agreement` is of the pixels compared one by one: their number and, of reprojected ones, the distance of
        histograms (0: the same values as often, 1: none in common).
    """
    with open_raster(source) as before, open_raster(cog, sidecars=False) as after:
        with (
            rasterio.Env(GDAL_CACHEMAX=cache_for_check(after)),
            overview_check(cog, after, plan.tile_size, plan.overview_resampling) as overviews,
        ):
            read = ValueChecksums(has_mask=plan.validity == "mask")

            def see(window: Any, numbers: list[int], values: Any, valid: Any) -> None:
                overviews.see(window, numbers, values, valid)
                if made is not None:
                    read.see(window, numbers, values, valid)

            found = read_facts(after, seen_bands=see, report=progress)
            overview_problems = overviews.problems()
        changed = list(find_changed_meaning(before, after, plan))
        problems = [*changed, *find_problems(facts, found, plan, alpha_of(before))]
        problems += find_cut_sums(after.dtypes[0], found, plan, alpha_of(before))
        check = WarpCheck(compared=after.width * after.height)
        # Bands of another meaning are not compared.
        if plan.warped and not changed:
            check = check_warp(before, after, plan, facts.bands[0].low, facts.bands[0].high)
            problems += check.problems
        if made is not None and (difference := made.difference(read)) is not None:
            problems.append(difference)
        problems += overview_problems
        return {
            "values": _verdict(facts, found, plan),
            "valid_pixels": {"source": facts.valid_pixels, "cog": found.valid_pixels},
            "range": {"source": _range(facts), "cog": _range(found)},
            "checksum_of_values": found.checksum,
            "agreement": {
                "pixels": check.compared,
                "histogram_distance": check.histogram_distance if plan.warped else 0.0,
            },
            "overviews": after.overviews(1),
            "allowed": [*plan.changed, *check.notes],
            "lost": find_lost(before, after, plan),
            "problems": problems,
        }


def _verdict(facts: Facts, found: Facts, plan: ConversionPlan) -> str:
    if plan.warped:
        return "reprojected"
    return "identical" if facts.checksum == found.checksum else "different"


def _range(facts: Facts) -> list[list[float | None]]:
    return [[band.low, band.high] for band in facts.bands]


def find_changed_meaning(before: Any, after: Any, plan: ConversionPlan) -> Iterator[str]:
    """What makes the same numbers mean something else: type, nodata, scale, offset, unit, colours, place."""
    pairs: list[tuple[str, Any, Any]] = [
        ("bands", before.count, after.count),
        ("types", before.dtypes, after.dtypes),
        ("nodata", [repr(plan.nodata)] * before.count, [repr(value) for value in after.nodatavals]),
        ("scales", before.scales, after.scales),
        ("offsets", before.offsets, after.offsets),
        ("units", _units_expected(before, plan), [unit or "" for unit in after.units]),
    ]
    if not plan.warped:
        pairs.append(("size", (before.width, before.height), (after.width, after.height)))
    for what, expected, found in pairs:
        if expected != found:
            yield f"expected {what} {_short(expected)}, found {_short(found)}"
    yield from find_changed_colours_and_place(before, after, plan)


def _units_expected(before: Any, plan: ConversionPlan) -> list[str]:
    """Of each band its own; where it has none, GDAL reads that of the heights of the coordinate system in a TIFF."""
    heights = None if plan.warped else heights_of(before.crs.to_wkt())
    return [unit or (heights[1] if heights else "") for unit in before.units]


def find_changed_colours_and_place(before: Any, after: Any, plan: ConversionPlan) -> Iterator[str]:
    """What a GeoTIFF may be unable to hold of a header, whatever the pixels are."""
    one, two = _differing(_colours(before), _colours(after))
    if one != two:
        yield f"expected colours {_short(one)}, found {_short(two)}"
    if after.crs is None:
        expected = _short(plan.target_crs if plan.warped else before.crs)
        yield f"expected the coordinate system {expected}, found none: a GeoTIFF cannot hold it; choose a target_crs"
    elif plan.warped and plan.target_crs is not None and not is_same_crs(plan.target_crs, after.crs):
        yield f"expected the coordinate system {plan.target_crs}, found {_short(after.crs)}"
    elif not plan.warped and (shift := _shift(before, after)) > _MOST_SHIFT:
        yield f"expected it where its source is, found it {shift:.3g} pixels away"


def is_same_crs(wanted: str, found: Any) -> bool:
    """OGC:CRS84 is EPSG:4326 with its axes in the order that files have anyway."""
    if CRS.from_user_input(wanted) == found:
        return True
    one, two = pyproj.CRS.from_user_input(wanted), pyproj.CRS.from_wkt(found.to_wkt())
    return bool(one.equals(two, ignore_axis_order=True)) or (wanted.upper() == "OGC:CRS84" and found.to_epsg() == 4326)  # noqa: PLR2004


def _colours(dataset: Any) -> list[Any]:
    """What each band shows, with its table; an undefined band and a grey one are the same."""
    plain = {ColorInterp.undefined: ColorInterp.gray}
    return [
        _table(dataset, number)
        if interpretation is ColorInterp.palette
        else plain.get(interpretation, interpretation).name
        for number, interpretation in enumerate(dataset.colorinterp, start=1)
    ]


def _differing(one: list[Any], two: list[Any]) -> tuple[list[Any], list[Any]]:
    """Of each pair of tables, the colours that differ: a whole one is long, and looks like the other at its begin."""
    if len(one) != len(two):
        return one, two
    pairs = [_differing_colours(*pair) for pair in zip(one, two, strict=True)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _differing_colours(one: Any, two: Any) -> tuple[Any, Any]:
    if not (isinstance(one, dict) and isinstance(two, dict)):
        return one, two
    values = [value for value in {**one, **two} if one.get(value) != two.get(value)]
    left, right = ({value: table[value] for value in values if value in table} for table in (one, two))
    return left, right


def _table(dataset: Any, number: int) -> dict[int, tuple[int, ...]]:
    """A band's colours, of each value of its type: a TIFF has black where a table beside the source ends.

    What nodata hides has none: GDAL makes it transparent in some files, and in others not.
    """
    table: dict[int, tuple[int, ...]] = dict.fromkeys(range(1 << 8 * np.dtype(dataset.dtypes[0]).itemsize), _BLACK)
    # rasterio raises where a band is called a palette and has no table.
    with suppress(ValueError):
        table |= dataset.colormap(number)
    return {value: (*colour[:3], 0) if value == dataset.nodata else colour for value, colour in table.items()}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"  # noqa: PLR2004 - for people


def _shift(before: Any, after: Any) -> float:
    """How far, in pixels, a corner of the COG is from where it is in the source."""
    corners = np.array([(0, 0), (before.width, 0), (0, before.height), (before.width, before.height)], float).T
    xs, ys = after.transform @ tuple(corners)
    if after.crs != before.crs:
        xs, ys = places(after.crs, before.crs, xs, ys)
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.array(~before.transform @ (xs, ys)) - corners).max()
    return float(distance) if math.isfinite(distance) else math.inf


def find_problems(facts: Facts, found: Facts, plan: ConversionPlan, alpha: int | None) -> list[str]:
    if not plan.warped:
        if facts.checksum == found.checksum:
            return []
        return [
            (
                f"expected the values of its source, found others: {facts.valid_pixels} valid pixels in the source, "
                f"{found.valid_pixels} in the COG; ranges {_range(facts)} and {_range(found)}"
            )
        ]
    problems = []
    for number, (before, after) in enumerate(zip(facts.bands, found.bands, strict=False), start=1):
        if number == alpha:
            # It is 0 outside of the source, where that has no pixels; `check_warp` compares it.
            continue
        # NaN may become nodata: of a raster that has nothing else, nothing is valid then.
        if (before.valid == 0) != (after.valid == 0) and not (before.low is None and before.has_nan):
            expected = "valid pixels" if before.valid else "no valid pixel"
            advice = "; they fall between the pixels of the other grid: leave target_crs out" if before.valid else ""
            problems.append(f"band {number}: expected {expected}, as in its source, found {after.valid}{advice}")
        if plan.kind == "classes" and before.classes is not None and not (after.classes or set()) <= before.classes:
            problems.append(f"band {number}: expected the classes of its source, found others")
        if plan.warp_resampling not in BETWEEN or before.low is None or after.low is None:
            continue
        if before.high is None or after.high is None:
            continue
        slack = warp_tolerance(plan.nbits) * max(abs(before.low), abs(before.high), 1)
        if after.low < before.low - slack or after.high > before.high + slack:
            problems.append(
                f"band {number}: expected values from {before.low} to {before.high}, found {after.low} to {after.high}"
            )
    return problems


def find_cut_sums(dtype: str, found: Facts, plan: ConversionPlan, alpha: int | None) -> list[str]:
    """Why sums are wrong that GDAL cuts at the ends of a type of whole numbers; empty where they are right."""
    if not plan.warped or plan.warp_resampling != "sum" or np.dtype(dtype).kind not in "iu":
        return []
    limits = np.iinfo(dtype)
    low, high = min(limits.min, -1), 2 ** int(plan.nbits) - 1 if plan.nbits else limits.max
    bands = [band for number, band in enumerate(found.bands, start=1) if number != alpha]
    ends = [value for band in bands for value in (band.low, band.high) if value is not None]
    if not any(value <= low or value >= high for value in ends):
        return []
    return [
        f"reprojected: sums are beyond its type {dtype}; give it a wider one (gdal_translate -ot), or another method"
    ]


def find_lost(before: Any, after: Any, plan: ConversionPlan) -> list[str]:
    """Names of the source's metadata that the COG does not have, or has otherwise."""
    lost = [f"{_domain(namespace)}:{name}" for namespace, name in _missing(before, after, 0)]
    for number in range(1, min(before.count, after.count) + 1):
        lost += [
            f"band {number} {_domain(namespace)}:{name}"
            for namespace, name in _missing(before, after, number)
            if not (plan.warped and name.startswith(_MEASURED))
        ]
        if (before.descriptions[number - 1] or "") != (after.descriptions[number - 1] or ""):
            lost.append(f"band {number} description")
    if not plan.warped and before.crs != after.crs:
        lost.append("words of its coordinate system")
    if "MINISWHITE" in before.tags(ns="IMAGE_STRUCTURE") and "MINISWHITE" not in after.tags(ns="IMAGE_STRUCTURE"):
        lost.append("that its lowest value is white")
    lost += [*lost_tags(before.name, after.name), *tables_of(before.name)]
    if plan.warped and EPOCH not in lost and has_epoch(before.name):
        lost.append(EPOCH)
    return lost


def tables_of(source: str) -> list[str]:
    """Names and tables of values that stand in the metadata file of a staged raster, and that no COG holds."""
    file = Path(f"{source}.aux.xml")
    if not file.is_file():
        return []
    found = {element.tag for element in ET.parse(file).iter()}  # noqa: S314 - it was read before, by `stage`
    return [name for tag, name in _TABLES.items() if tag in found]


def _domain(namespace: str | None) -> str:
    return namespace or "metadata"


def _missing(before: Any, after: Any, number: int) -> Iterator[tuple[str | None, str]]:
    """Of a band, or with 0 of the whole: domain and name."""
    for namespace in [None, *sorted(set(before.tag_namespaces(number)) - _COMPUTED)]:
        there = after.tags(number, ns=namespace)
        for name, text in before.tags(number, ns=namespace).items():
            if there.get(name) != text:
                yield namespace, name
