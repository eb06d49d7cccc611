"""The STAC catalog, the summary and the picture of a finished job."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from jobs.flood_risk_cog.convert import checksum_of, describe_cog
from jobs.flood_risk_cog.facts import DamagedRaster, read_facts
from jobs.flood_risk_cog.footprint import NoFootprint
from jobs.flood_risk_cog.geoparquet import geoparquet_of
from jobs.flood_risk_cog.marker import TABLE
from jobs.flood_risk_cog.mosaic import mosaics_of
from jobs.flood_risk_cog.overlaps import MOST_NAMED, area_of, overlapping
from jobs.flood_risk_cog.picture_frame import Shape
from jobs.flood_risk_cog.quicklook import draw_quicklook
from jobs.flood_risk_cog.remote import is_remote, without_file_scheme
from jobs.flood_risk_cog.scratch import ScratchOwner, scratch_folder
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.stac import collection_of, item_of
from jobs.flood_risk_cog.stale import KEEP, find_kept, find_stale, items_of, settle_stale
from jobs.flood_risk_cog.target import (
    OutputBlocked,
    blocked_in_words,
    check_file_place,
    check_folder_place,
    join,
    put_file,
    put_tree,
    short_name,
)

Report = Callable[[str, float], None]
Thing = TypeVar("Thing")
# Shapes, a title and the greatest depth to a PNG, and what is missing in it.
Draw = Callable[[list[Shape], str, float | None], tuple[bytes, list[dict[str, str]]]]

# What the summary says of each raster; `reused` and the place tell of the run, not of the data.
SUMMARY_FIELDS = (
    "name",
    "width",
    "height",
    "bands",
    "dtype",
    "crs",
    "nodata",
    "bounds",
    "bbox",
    "geometry",
    "kind",
    "changed",
    "compression",
    "tile_size",
    "overviews",
    "bytes",
    "checksum",
    "statistics",
)


def build_catalog(
    items: Iterable[dict[str, Any]],
    failures: list[dict[str, Any]],
    output: str,
    *,
    collection_id: str,
    title: str,
    report: Report | None = None,
    draw: Draw | None = None,
    expected: Collection[str] = (),
    stale_results: str = KEEP,
    owner: ScratchOwner | None = None,
) -> dict[str, Any]:
    """Write `collection.json` with its items, `summary.json`, `quicklook.png`, mosaics and `items.parquet`.

    The same items and failures give the same bytes, whatever their order.

    Args:
        items: What `convert_raster` returned.
        failures: `{"name": ..., "reason": ...}` of each raster without a result.
        output: A local folder, made when it is missing, or an fsspec URL.
        collection_id: The collection's id.
        title: The collection's title, for people.
        report: Called with the name of a step and how much of it is done (0 to 1), before each raster; what it raises
            ends the work.
        draw: Draws the picture; here when it is left out.
        expected: File names of the COGs of rasters that failed: an older result of theirs is kept, and not stale.
        stale_results: Whether results that no source has any more are kept, moved or removed.
        owner: Whose attempt this is; what its earlier attempts left behind is removed.

    Returns:
        The paths written, the summary's totals, as `left_out` and `not_drawn` what cannot be described or shown, as
        `stale` the results that no source has any more, and as `kept` earlier results of rasters that failed now.
    """
    output = without_file_scheme(output)
    items = list(items)
    failed_cogs, expected = set(expected), {*expected, *(str(item["name"]) for item in items)}
    rasters, left_out = usable(sorted(items, key=lambda item: str(item["name"])), output)
    failed = sorted([*failures, *left_out], key=lambda failure: json.dumps(failure, sort_keys=True))
    summary = summarise(rasters, failed, collection_id, title)
    report = report or (lambda _step, _share: None)
    draw = draw or _draw_here(report)

    def note_stale(mosaics: Collection[str]) -> None:
        stale = find_stale(output, expected, mosaics)
        items_left = items_of(output, [each for each in stale if each.startswith("cogs/")])
        summary["stale_results"] = {"action": stale_results, "names": stale, "items": items_left}
        summary["kept_results"] = find_kept(output, failed_cogs)

    if is_remote(output):
        with scratch_folder(Path(tempfile.gettempdir()), owner) as folder:
            write_catalog(rasters, summary, output, folder, report, draw, note_stale, owner)
            report("store", 0)
            put_tree(folder, output)
    else:
        with blocked_in_words():
            write_catalog(rasters, summary, output, Path(output).resolve(), report, draw, note_stale, owner)
    # Last: until then another attempt finds them again.
    with blocked_in_words():
        settle_stale(output, summary["stale_results"]["names"], stale_results)
    return {
        "collection": join(output, "collection.json"),
        "summary": join(output, "summary.json"),
        "quicklook": join(output, "quicklook.png"),
        "verification": join(output, "verification.json"),
        "totals": summary["totals"],
        "by_return_period": summary["by_return_period"],
        "left_out": left_out,
        "not_drawn": summary["not_drawn"],
        "stale": summary["stale_results"]["names"],
        "kept": summary["kept_results"],
    }


def _draw_here(report: Report) -> Draw:
    def draw(shapes: list[Shape], title: str, deepest: float | None) -> tuple[bytes, list[dict[str, str]]]:
        return draw_quicklook(shapes, title, deepest=deepest, each=lambda several: in_steps(several, "draw", report))

    return draw


def usable(results: Iterable[dict[str, Any]], output: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The results that the catalog can tell of, and as failures those that it cannot.

    A store that is away is no fault of a raster: such errors are raised, and another attempt does better.
    """
    rasters, left_out = [], []
    for result in results:
        try:
            raster = completed(result)
            item_of(raster, "", "", "")
            check_item_place(raster, output)
            summarise([raster], [], "", "")
            json.dumps(raster, allow_nan=False)
            rasters.append(raster)
        except OutputBlocked as error:
            left_out.append({"name": str(result["name"]), "reason": str(error)})
        except FileNotFoundError:
            reason = "its COG is no longer there; run the job again"
            left_out.append({"name": str(result["name"]), "reason": reason})
        except (
            RasterioError,
            CPLE_BaseError,
            DamagedRaster,
            NoFootprint,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            reason = f"the catalog cannot describe it ({type(error).__name__}: {error})"[:500]
            left_out.append({"name": str(result["name"]), "reason": reason})
    return rasters, left_out


def check_item_place(raster: dict[str, Any], output: str) -> None:
    """Refuse a result whose item would have the place of something else."""
    name = short_name(PurePosixPath(raster["name"]).stem)
    folder = join(join(output, "items"), name)
    check_folder_place(folder)
    check_file_place(join(folder, f"{name}.json"))


def write_catalog(
    rasters: list[dict[str, Any]],
    summary: dict[str, Any],
    output: str,
    folder: Path,
    report: Report,
    draw: Draw,
    note_stale: Callable[[Collection[str]], None],
    owner: ScratchOwner | None,
) -> None:
    """Write everything into a local folder whose content is, or becomes, that of the output."""
    collection_id, title = str(summary["collection"]), str(summary["title"])
    items, hrefs = write_items(rasters, output, folder, collection_id, report, owner)
    with scratch_folder(folder, owner) as scratch:
        table = geoparquet_of(items)
        if isinstance(table, bytes):
            write_whole(folder / TABLE, table, scratch)
        summary["geoparquet"] = TABLE if isinstance(table, bytes) else table
        summary["mosaics"] = write_mosaics(rasters, output, folder, scratch)
        mosaics = [entry["name"] for entry in summary["mosaics"] if "reason" not in entry]
        beside = TABLE if isinstance(table, bytes) else None
        collection = collection_of(items, hrefs, collection_id, title, mosaics=mosaics, table=beside)
        write_json(folder / "collection.json", collection, scratch)
        note_stale(mosaics)
        footprints = [
            (None if raster.get("kind") == "classes" else str(raster["path"]), raster["geometry"], raster["bbox"])
            for raster in rasters
        ]
        report("draw", 0)
        picture, missing = draw(footprints, title, _deepest(rasters))
        write_whole(folder / "quicklook.png", picture, scratch)
        summary["not_drawn"] = missing
        write_json(folder / "verification.json", verification_of(rasters, summary["failures"]), scratch)
        write_json(folder / "summary.json", summary, scratch)


def _deepest(rasters: list[dict[str, Any]]) -> float | None:
    depths = [raster["statistics"]["max_depth"] for raster in rasters if raster.get("kind") != "classes"]
    return max((float(depth) for depth in depths if depth is not None), default=None)


def write_items(
    rasters: list[dict[str, Any]],
    output: str,
    folder: Path,
    collection_id: str,
    report: Report,
    owner: ScratchOwner | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The STAC items of all rasters, and where they are as seen from the folder."""
    items: list[dict[str, Any]] = []
    hrefs: list[str] = []
    if not rasters:
        return items, hrefs
    with scratch_folder(folder / "items", owner) as scratch:
        for raster in in_steps(rasters, "describe", report):
            item_id = PurePosixPath(raster["name"]).stem
            item = item_of(raster, item_id, href_of(raster, output, "items/item"), collection_id)
            name = short_name(item_id)
            items.append(item)
            hrefs.append(f"items/{name}/{name}.json")
            write_json(folder / "items" / name / f"{name}.json", item, scratch)
    return items, hrefs


def href_of(raster: dict[str, Any], output: str, below: str = "") -> str:
    """Where a COG stands, as seen from the output or a folder in it."""
    inside = str(raster["path"]).removeprefix(f"{output.rstrip('/')}/")
    return inside if is_remote(inside) else os.path.relpath(Path(output) / inside, Path(output) / below)


def write_mosaics(rasters: list[dict[str, Any]], output: str, folder: Path, scratch: Path) -> list[dict[str, Any]]:
    """A virtual raster a return period and kind of grid; what was written, or why not."""
    written = []
    for name, members, text in mosaics_of([(raster, href_of(raster, output)) for raster in rasters]):
        reason = "" if text.startswith("<") else text
        if not reason:
            try:
                with blocked_in_words():
                    write_whole(folder / name, text.encode(), scratch)
            except OutputBlocked as blocked:
                reason = str(blocked)
        named = {"name": name} if name else {}
        entry = {**named, "rasters": [member["name"] for member in members]}
        written.append({**entry, "reason": reason} if reason else entry)
    return written


def write_json(path: Path, document: Any, scratch: Path) -> None:
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    write_whole(path, text.encode(), scratch)


def verification_of(rasters: list[dict[str, Any]], failures: list[dict[str, Any]]) -> dict[str, Any]:
    """The proofs of all results in one place, below how many there are of each kind."""
    names = ("name", "checksum", "bytes", "kind", "resampling", "changed", "verification")
    failed = [failure["name"] for failure in failures]
    return {
        "counts": {
            "rasters": len(rasters) + len(failed),
            "verified": sum("values" in (raster.get("verification") or {}) for raster in rasters),
            "changed": sum(bool(raster.get("changed")) for raster in rasters),
            "failed": len(failed),
        },
        "failed": failed,
        "rasters": [{name: raster.get(name) for name in names} for raster in rasters],
    }


def completed(raster: dict[str, Any]) -> dict[str, Any]:
    """A result of the release before, which knew less, with what this one tells."""
    if "geometry" in raster:
        return raster
    cog = str(raster["path"])
    with open_raster(cog) as dataset:
        facts = read_facts(dataset)
    verification = {
        "valid_pixels": {"cog": facts.valid_pixels},
        "range": {"cog": [[band.low, band.high] for band in facts.bands]},
    }
    return {**raster, **describe_cog(cog), "checksum": checksum_of(cog), "verification": verification}


def in_steps(things: Sequence[Thing], step: str, report: Report) -> Iterator[Thing]:
    for index, thing in enumerate(things):
        report(step, index / len(things))
        yield thing


def summarise(
    rasters: list[dict[str, Any]],
    failures: list[dict[str, Any]],
    collection_id: str,
    title: str,
) -> dict[str, Any]:
    depths = [raster for raster in rasters if raster.get("kind") != "classes"]
    groups: dict[int | None, list[dict[str, Any]]] = {}
    for raster in depths:
        groups.setdefault(raster["statistics"]["return_period"], []).append(raster)
    ordered = sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or 0))
    pairs = {period: overlapping(group) for period, group in ordered}
    named = [{"return_period": period, "rasters": list(pair)} for period, found in pairs.items() for pair in found]
    return {
        "collection": collection_id,
        "title": title,
        "rasters": [{name: raster[name] for name in SUMMARY_FIELDS if name in raster} for raster in rasters],
        "failures": failures,
        "totals": {
            "converted": len(rasters),
            "failed": len(failures),
            "bytes": sum(int(raster.get("bytes", 0)) for raster in rasters),
            # They have no depths: these numbers are without them.
            "classes": len(rasters) - len(depths),
            **combine([raster["statistics"] for raster in depths]),
            **area_of(depths, len(overlapping(depths))),
        },
        "by_return_period": [
            {
                "return_period": period,
                "rasters": len(group),
                **combine([raster["statistics"] for raster in group]),
                **area_of(group, len(pairs[period])),
            }
            for period, group in ordered
        ],
        "overlaps": named[:MOST_NAMED],
    }


def combine(statistics: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of several rasters together; the mean is over their flooded pixels."""
    wet = [one for one in statistics if one["flooded_pixels"]]
    pixels = sum(one["flooded_pixels"] for one in wet)
    units = {one.get("unit") for one in wet if one["mean_depth"] is not None}
    # Depths in different units have no mean.
    alike = [one for one in wet if one["mean_depth"] is not None] if len(units) <= 1 else []
    return {
        "valid_pixels": sum(one["valid_pixels"] for one in statistics),
        "flooded_pixels": pixels,
        "min_depth": min((one["min_depth"] for one in alike), default=None),
        "mean_depth": mean_of(alike),
        "max_depth": max((one["max_depth"] for one in alike), default=None),
        "unit": next(iter(units), None) if len(units) <= 1 else "different units",
        "flooded_area_km2": math.fsum(one["flooded_area_km2"] for one in statistics),
    }


def mean_of(statistics: list[dict[str, Any]]) -> float | None:
    pixels = sum(one["flooded_pixels"] for one in statistics)
    return sum(one["mean_depth"] * one["flooded_pixels"] for one in statistics) / pixels if pixels else None


def write_whole(path: Path, content: bytes, scratch: Path) -> None:
    """Put the content in place in one step, or not at all; `scratch` is a folder beside it."""
    temporary = scratch / path.name
    temporary.write_bytes(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    put_file(temporary, str(path))
