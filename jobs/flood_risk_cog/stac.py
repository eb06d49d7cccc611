"""STAC of the results: an item a COG, and the collection of all, from what the conversions found."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from jobs.flood_risk_cog.footprint import union

STAC_VERSION = "1.1.0"
_EXTENSIONS = "https://stac-extensions.github.io"
ITEM_EXTENSIONS = [
    f"{_EXTENSIONS}/projection/v2.0.0/schema.json",
    f"{_EXTENSIONS}/raster/v2.0.0/schema.json",
    f"{_EXTENSIONS}/file/v2.1.0/schema.json",
]
COG_MEDIA_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
DATETIME_TAGS = ("DATETIME", "ACQUISITIONDATETIME", "TIFFTAG_DATETIME")
# A modelled flood has no instant: the item says that it is not known, by the longest interval there is.
UNKNOWN_TIME = {"datetime": None, "start_datetime": "0001-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}

MEASURED_OF_CLASSES = ("valid_pixels", "return_period")

Json = dict[str, Any]


def datetime_of(tags: dict[str, str]) -> str | None:
    """The instant in a raster's tags, in RFC 3339; taken as UTC when it has no zone. None when there is none."""
    for tag in DATETIME_TAGS:
        text = tags.get(tag, "").strip()
        for parse in (datetime.fromisoformat, _tiff_datetime):
            try:
                found = parse(text)
                # Of the first and the last day there is, the instant in UTC may be none.
                found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
            except (ValueError, OverflowError):
                continue
            return found.isoformat().replace("+00:00", "Z")
    return None


def _tiff_datetime(text: str) -> datetime:
    return datetime.strptime(text, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)


def item_of(result: Json, item_id: str, href: str, collection_id: str) -> Json:
    """The item of one conversion's result.

    Args:
        href: Of the COG, as seen from the item; not encoded yet.
    """
    instant = result["datetime"]
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": ITEM_EXTENSIONS,
        "id": item_id,
        "geometry": result["geometry"],
        "bbox": result["bbox"],
        "properties": {
            **({"datetime": instant} if instant else UNKNOWN_TIME),
            **_projection(result),
            **_flood(result),
        },
        "links": [
            {"rel": "root", "href": "../../collection.json", "type": "application/json"},
            {"rel": "parent", "href": "../../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../../collection.json", "type": "application/json"},
        ],
        "assets": {
            "data": {
                "href": encoded(href),
                "type": COG_MEDIA_TYPE,
                "roles": ["data"],
                "file:checksum": result["checksum"],
                "file:size": result["bytes"],
                "raster:sampling": result["sampling"],
                "bands": [_band(result, number) for number in range(result["bands"])],
            }
        },
        "collection": collection_id,
    }


def _flood(result: Json) -> Json:
    """What was measured; classes have no depths, so they have no flood either."""
    kind = result.get("kind", "continuous")
    known = {
        name: value for name, value in result["statistics"].items() if kind != "classes" or name in MEASURED_OF_CLASSES
    }
    return {f"flood:{name}": value for name, value in {"kind": kind, **known}.items()}


def _projection(result: Json) -> Json:
    code = result["crs"] if re.fullmatch(r"[A-Z]+:\d+", result["crs"] or "") else None
    left, bottom, right, top = result["bounds"]
    return {
        "proj:code": code,
        **({} if code else {"proj:wkt2": result["wkt"]}),
        "proj:shape": [result["height"], result["width"]],
        "proj:transform": result["transform"],
        # Of a raster from south to north, or from east to west, they are the other way round.
        "proj:bbox": [min(left, right), min(bottom, top), max(left, right), max(bottom, top)],
    }


def _band(result: Json, number: int) -> Json:
    low, high = result["verification"]["range"]["cog"][number]
    valid = result["verification"]["valid_pixels"]["cog"][number]
    pixels = result["width"] * result["height"]
    band: Json = {"data_type": result["dtype"], "statistics": {"valid_percent": round(100 * valid / pixels, 4)}}
    if low is not None:
        band["statistics"] |= {"minimum": low, "maximum": high}
    if result["nodata"] is not None:
        band["nodata"] = result["nodata"]
    if description := result["descriptions"][number]:
        band["name"] = description
    if unit := result["units"][number]:
        band["unit"] = unit
    if result["scales"][number] != 1:
        band["raster:scale"] = result["scales"][number]
    if result["offsets"][number] != 0:
        band["raster:offset"] = result["offsets"][number]
    return band


def collection_of(
    items: Sequence[Json],
    hrefs: Sequence[str],
    collection_id: str,
    title: str,
    *,
    mosaics: Sequence[str] = (),
    table: str | None = None,
) -> Json:
    """The collection of items, with a link to each.

    Args:
        mosaics: File names of virtual rasters beside it.
        table: File name of the items as STAC GeoParquet.
    """
    rasters = "raster" if len(items) == 1 else "rasters"
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": collection_id,
        "title": title,
        "description": f"{title}: {len(items)} flood depth {rasters} as Cloud Optimized GeoTIFFs.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [union([item["bbox"] for item in items])]},
            "temporal": {"interval": [_interval(items)]},
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            *({"rel": "item", "href": f"./{encoded(href)}", "type": "application/geo+json"} for href in hrefs),
        ],
        "assets": {
            "thumbnail": {"href": "./quicklook.png", "type": "image/png", "roles": ["thumbnail"]},
            "summary": {"href": "./summary.json", "type": "application/json", "roles": ["metadata"]},
            "verification": {"href": "./verification.json", "type": "application/json", "roles": ["metadata"]},
            **{name.removesuffix(".vrt"): _mosaic(name) for name in mosaics},
            **({"items": _table(table)} if table is not None else {}),
        },
    }


def _interval(items: Sequence[Json]) -> list[str | None]:
    """Around the times of all items, those included that are not known."""
    times = [item["properties"] for item in items]
    begins = [each["datetime"] or each["start_datetime"] for each in times]
    ends = [each["datetime"] or each["end_datetime"] for each in times]
    return [min(begins, default=None), max(ends, default=None)]


def _mosaic(name: str) -> Json:
    title = "Virtual raster (GDAL VRT) of the COGs on one grid"
    return {"href": f"./{encoded(name)}", "type": "application/xml", "title": title, "roles": ["data", "virtual"]}


def _table(name: str) -> Json:
    title = "All items as one table (STAC GeoParquet)"
    media_type = "application/vnd.apache.parquet"
    return {"href": f"./{encoded(name)}", "type": media_type, "title": title, "roles": ["collection-mirror"]}


def encoded(href: str) -> str:
    """A relative path, or a URL as it is, with everything percent-encoded that a URL cannot hold."""
    return href if "://" in href else quote(href, safe="/-._~")
