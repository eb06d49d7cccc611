"""The STAC catalog, the summary and the picture of a finished job."""

import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pystac
from pystac.layout import BestPracticesLayoutStrategy
from pystac.stac_io import DefaultStacIO
from rio_stac import create_stac_item

from jobs.flood_risk_cog.quicklook import draw_quicklook, union
from jobs.flood_risk_cog.scratch import scratch_folder
from jobs.flood_risk_cog.source import is_remote, open_raster, without_file_scheme
from jobs.flood_risk_cog.target import join, put_file, put_tree

Report = Callable[[str, float], None]
Thing = TypeVar("Thing")

# STAC wants an instant. A modelled flood has none, and the time of the run would make each run differ.
FALLBACK_DATETIME = datetime(2000, 1, 1, tzinfo=UTC)
DATETIME_TAGS = ("DATETIME", "ACQUISITIONDATETIME", "TIFFTAG_DATETIME")
COG_MEDIA_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"


class AtomicStacIO(DefaultStacIO):
    """A reader of the catalog never sees half a file."""

    def write_text_to_href(self, href: str, txt: str) -> None:
        write_whole(Path(href), txt.encode())


def build_catalog(
    items: Iterable[dict[str, Any]],
    failures: list[dict[str, Any]],
    output: str,
    *,
    collection_id: str,
    title: str,
    report: Report | None = None,
) -> dict[str, Any]:
    """Write `collection.json` with its items, `summary.json` and `quicklook.png` into a folder.

    The same items and failures give the same bytes, whatever their order.

    Args:
        items: What `convert_raster` returned.
        failures: `{"name": ..., "reason": ...}` of each raster without a result.
        output: A local folder, made when it is missing, or an fsspec URL.
        collection_id: The collection's id.
        title: The collection's title, for people.
        report: Called with the name of a step and how much of it is done (0 to 1), before each raster; what it raises
            ends the work.

    Returns:
        The paths written and the summary's totals.
    """
    output = without_file_scheme(output)
    rasters = sorted(items, key=lambda item: str(item["name"]))
    failed = sorted(failures, key=lambda failure: json.dumps(failure, sort_keys=True))
    summary = summarise(rasters, failed, collection_id, title)
    report = report or (lambda _step, _share: None)
    if is_remote(output):
        with scratch_folder(Path(tempfile.gettempdir())) as folder:
            write_catalog(rasters, summary, output, folder, report)
            report("store", 0)
            put_tree(folder, output)
    else:
        write_catalog(rasters, summary, output, Path(output).resolve(), report)
    return {
        "collection": join(output, "collection.json"),
        "summary": join(output, "summary.json"),
        "quicklook": join(output, "quicklook.png"),
        "totals": summary["totals"],
        "by_return_period": summary["by_return_period"],
    }


def write_catalog(
    rasters: list[dict[str, Any]], summary: dict[str, Any], output: str, folder: Path, report: Report
) -> None:
    """Write everything into a local folder whose content is, or becomes, that of the output."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        stac_item(raster, href_of(str(raster["path"]), output, folder))
        for raster in in_steps(rasters, "describe", report)
    ]
    save_collection(entries, folder, str(summary["collection"]), str(summary["title"]))
    text = json.dumps(summary, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_whole(folder / "summary.json", text.encode())
    footprints = [
        (str(raster["path"]), entry.geometry or {}, list(entry.bbox or []))
        for raster, entry in zip(rasters, entries, strict=True)
    ]
    picture = draw_quicklook(footprints, each=lambda shapes: in_steps(shapes, "draw", report))
    write_whole(folder / "quicklook.png", picture)


def in_steps(things: Sequence[Thing], step: str, report: Report) -> Iterator[Thing]:
    for index, thing in enumerate(things):
        report(step, index / len(things))
        yield thing


def href_of(path: str, output: str, folder: Path) -> str:
    """Where the raster stands, seen from the folder that the catalog is written in."""
    if is_remote(path):
        inside = path.removeprefix(output.rstrip("/") + "/")
        return path if is_remote(inside) else str(folder / inside)
    return str(Path(path).resolve())


def stac_item(raster: dict[str, Any], href: str) -> pystac.Item:
    with open_raster(str(raster["path"])) as dataset, warnings.catch_warnings():
        # rio-stac tries TIFF's own date format in vain, though it is given the instant.
        warnings.filterwarnings("ignore", message="Could not get parse date")
        item = create_stac_item(
            dataset,
            id=PurePosixPath(raster["name"]).stem,
            input_datetime=datetime_of(dataset.tags()),
            asset_name="data",
            asset_href=href,
            asset_media_type=COG_MEDIA_TYPE,
            asset_roles=["data"],
            with_proj=True,
        )
    assert isinstance(item, pystac.Item)  # noqa: S101  # rio-stac has no types
    item.properties.update({f"flood:{name}": value for name, value in raster["statistics"].items()})
    return item


def datetime_of(tags: dict[str, str]) -> datetime:
    """The instant in the raster's tags, taken as UTC when it has no zone, or `FALLBACK_DATETIME`."""
    for tag in DATETIME_TAGS:
        text = tags.get(tag, "").strip()
        for parse in (datetime.fromisoformat, tiff_datetime):
            try:
                found = parse(text)
            except ValueError:
                continue
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return FALLBACK_DATETIME


def tiff_datetime(text: str) -> datetime:
    return datetime.strptime(text, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)


def save_collection(entries: list[pystac.Item], folder: Path, collection_id: str, title: str) -> None:
    instants = [entry.datetime for entry in entries if entry.datetime] or [FALLBACK_DATETIME]
    box = list(union([list(entry.bbox or []) for entry in entries]))
    collection = pystac.Collection(
        id=collection_id,
        title=title,
        description=f"{title}: {len(entries)} flood depth rasters as Cloud Optimized GeoTIFFs.",
        extent=pystac.Extent(
            pystac.SpatialExtent([box]),
            pystac.TemporalExtent([[min(instants), max(instants)]]),
        ),
    )
    collection.add_items(entries)
    collection.normalize_hrefs(str(folder), strategy=BestPracticesLayoutStrategy())
    collection.make_all_asset_hrefs_relative()
    collection.save(pystac.CatalogType.SELF_CONTAINED, stac_io=AtomicStacIO())


def summarise(
    rasters: list[dict[str, Any]],
    failures: list[dict[str, Any]],
    collection_id: str,
    title: str,
) -> dict[str, Any]:
    groups: dict[int | None, list[dict[str, Any]]] = {}
    for raster in rasters:
        groups.setdefault(raster["statistics"]["return_period"], []).append(raster["statistics"])
    ordered = sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or 0))
    return {
        "collection": collection_id,
        "title": title,
        # `reused` and the place tell of the run, not of the data.
        "rasters": [{k: v for k, v in raster.items() if k not in {"reused", "path", "source"}} for raster in rasters],
        "failures": failures,
        "totals": {
            "converted": len(rasters),
            "failed": len(failures),
            "bytes": sum(int(raster.get("bytes", 0)) for raster in rasters),
            **combine([raster["statistics"] for raster in rasters]),
        },
        "by_return_period": [
            {"return_period": period, "rasters": len(group), **combine(group)} for period, group in ordered
        ],
    }


def combine(statistics: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of several rasters together; the mean is over their flooded pixels."""
    wet = [one for one in statistics if one["flooded_pixels"]]
    pixels = sum(one["flooded_pixels"] for one in wet)
    return {
        "valid_pixels": sum(one["valid_pixels"] for one in statistics),
        "flooded_pixels": pixels,
        "min_depth": min((one["min_depth"] for one in wet), default=None),
        "mean_depth": sum(one["mean_depth"] * one["flooded_pixels"] for one in wet) / pixels if wet else None,
        "max_depth": max((one["max_depth"] for one in wet), default=None),
        "flooded_area_km2": math.fsum(one["flooded_area_km2"] for one in statistics),
    }


def write_whole(path: Path, content: bytes) -> None:
    """Put the content in place in one step, or not at all."""
    with scratch_folder(path.parent) as scratch:
        temporary = scratch / path.name
        temporary.write_bytes(content)
        put_file(temporary, str(path))
