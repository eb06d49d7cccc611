"""The proof of a conversion: what the COG says, read back and compared with its source."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from rasterio.windows import Window

from jobs.flood_risk_cog.facts import Facts, read_facts, validity
from jobs.flood_risk_cog.plan import ConversionPlan
from jobs.flood_risk_cog.source import open_raster

Progress = Callable[[float], None]

# Methods whose results lie between the values that they are made of.
_BETWEEN = {"nearest", "bilinear", "average", "mode", "max", "min", "med", "q1", "q3"}
_SAMPLES = 4
_SAMPLE_SIDE = 128
# Rounding of the type's own precision.
_TOLERANCE = 1e-6
_COMPUTED = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS"}


def verify_cog(source: str, facts: Facts, cog: str, plan: ConversionPlan, progress: Progress) -> dict[str, Any]:
    """Compare a COG, pixel by pixel where it was not reprojected, with what was read of its source.

    Args:
        facts: Of the source, as it was read before anything was written.

    Returns:
        `problems` holds in words what must not differ; `lost` names metadata that the COG does not have.
    """
    with open_raster(source) as before, open_raster(cog) as after:
        found = read_facts(after, report=progress)
        lost = find_lost(before, after)
        problems = find_problems(facts, found, plan) + find_overview_problems(cog, plan)
        return {
            "values": "reprojected"
            if plan.warped
            else "identical"
            if facts.checksum == found.checksum
            else "different",
            "valid_pixels": {"source": facts.valid_pixels, "cog": found.valid_pixels},
            "range": {"source": _range(facts), "cog": _range(found)},
            "checksum_of_values": found.checksum,
            "lost": lost,
            "problems": problems,
        }


def _range(facts: Facts) -> list[list[float | None]]:
    return [[band.low, band.high] for band in facts.bands]


def find_problems(facts: Facts, found: Facts, plan: ConversionPlan) -> list[str]:
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
    for number, (before, after) in enumerate(zip(facts.bands, found.bands, strict=True), start=1):
        if before.valid == 0 and after.valid > 0:
            problems.append(f"band {number}: expected no valid pixel, as in its source, found {after.valid}")
        if plan.warp_resampling not in _BETWEEN or before.low is None or after.low is None:
            continue
        if before.high is None or after.high is None:
            continue
        slack = _TOLERANCE * max(abs(before.low), abs(before.high), 1)
        if after.low < before.low - slack or after.high > before.high + slack:
            problems.append(
                f"band {number}: expected values from {before.low} to {before.high}, found {after.low} to {after.high}"
            )
        if plan.kind == "classes" and before.classes is not None and not (after.classes or set()) <= before.classes:
            problems.append(f"band {number}: expected the classes of its source, found others")
    return problems


def find_overview_problems(cog: str, plan: ConversionPlan) -> list[str]:
    """In samples of the first overview: are its valid values between those that they were made of?"""
    if plan.overview_resampling not in _BETWEEN:
        return []
    with open_raster(cog) as base:
        if not base.overviews(1):
            return []
        with open_raster(cog, overview_level=0) as overview:
            found = (_compare(base, overview, window) for window in _sample_windows(overview))
            return [problem for problem in found if problem][:1]


def _compare(base: Any, overview: Any, window: Window) -> str | None:
    known, below = _known(overview, window), _known(base, _below(base, overview, window))
    if not known.size:
        return None
    place = f"overview 1 at {window.col_off}, {window.row_off}"
    if not below.size:
        return f"{place}: expected no valid pixel, found {known.size}"
    low, high = below.min(), below.max()
    slack = _TOLERANCE * max(abs(float(low)), abs(float(high)), 1)
    if float(known.min()) < float(low) - slack or float(known.max()) > float(high) + slack:
        return f"{place}: expected values from {low} to {high}, found {known.min()} to {known.max()}"
    return None


def _known(dataset: Any, window: Window) -> Any:
    """The valid and finite values of band 1."""
    values = dataset.read([1], window=window)
    known = values[validity(dataset, [1], window, values)]
    return known[np.isfinite(known)] if known.dtype.kind == "f" else known


def _below(base: Any, overview: Any, window: Window) -> Window:
    """What a window of the overview was made of, and a pixel more on each side: sizes are rounded."""
    across, down = base.width / overview.width, base.height / overview.height
    left, top = max(0, int(window.col_off * across) - 1), max(0, int(window.row_off * down) - 1)
    right = min(base.width, math.ceil((window.col_off + window.width) * across) + 1)
    bottom = min(base.height, math.ceil((window.row_off + window.height) * down) + 1)
    return Window(left, top, right - left, bottom - top)


def _sample_windows(overview: Any) -> list[Window]:
    width, height = min(_SAMPLE_SIDE, overview.width), min(_SAMPLE_SIDE, overview.height)
    return [
        Window(int((overview.width - width) * place), int((overview.height - height) * place), width, height)
        for place in np.linspace(0, 1, _SAMPLES)
    ]


def find_lost(before: Any, after: Any) -> list[str]:
    """Names of the source's metadata that the COG does not have, or has otherwise."""
    lost = [
        f"{namespace or 'metadata'}:{name}"
        for namespace in [None, *sorted(set(before.tag_namespaces()) - _COMPUTED)]
        for name, text in before.tags(ns=namespace).items()
        if after.tags(ns=namespace).get(name) != text
    ]
    for number in range(1, min(before.count, after.count) + 1):
        lost += [
            f"band {number} {namespace or 'metadata'}:{name}"
            for namespace in [None, *sorted(set(before.tag_namespaces(number)) - _COMPUTED)]
            for name, text in before.tags(number, ns=namespace).items()
            if after.tags(number, ns=namespace).get(name) != text
        ]
        pairs = [
            ("description", before.descriptions, after.descriptions),
            ("unit", before.units, after.units),
            ("scale", before.scales, after.scales),
            ("offset", before.offsets, after.offsets),
            ("colour", before.colorinterp, after.colorinterp),
        ]
        lost += [f"band {number} {what}" for what, one, two in pairs if one[number - 1] != two[number - 1]]
    return lost
