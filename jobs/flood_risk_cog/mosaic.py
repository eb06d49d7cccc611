"""One virtual raster (GDAL's VRT) of all COGs of a return period that lie on one kind of grid."""

import math
from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape

from rasterio.crs import CRS
from rasterio.dtypes import _gdal_typename

Json = dict[str, Any]
# A result, its path, its first column and row in the mosaic, its box, and the mosaic's pixel.
Placed = tuple[Json, str, float, float, Any, tuple[float, float]]

# GDAL counts pixels along a side in 32 bits.
MOST_PIXELS = (1 << 31) - 1
# GDAL computes in double precision what a virtual raster shows.
MOST_EXACT = 1 << 53
ALONE = (
    "no other raster has its return period, coordinate system, type, bands, nodata, way to hide pixels, unit, scale "
    "and offset"
)
# What XML 1.0 cannot hold, however it is written.
_NO_XML = {chr(code) for code in range(32)} - set("\t\n\r") | {"\ufffe", "\uffff"}


class NoMosaic(ValueError):
    """These rasters do not fit into one virtual raster."""


def mosaics_of(rasters: Sequence[tuple[Json, str]]) -> Iterator[tuple[str, list[Json], str]]:
    """Of (result, path as seen from the mosaics' folder): file name, the results in it, and text or why there is none.

    Rasters are put together where their return period, coordinate system, type, bands, nodata, way to hide pixels
    (nodata, or a mask), unit, scale and offset are the same; where they overlap, the last by name is on top. A text
    that is no XML is the reason. A raster that is alone has no mosaic and no name for one: its COG is the whole of it.
    """
    groups: dict[str, list[tuple[Json, str]]] = {}
    for result, path in rasters:
        groups.setdefault(repr(_key(result)), []).append((result, path))
    counts: dict[str, int] = {}
    for _, group in sorted(groups.items(), key=lambda entry: entry[1][0][0]["name"]):
        if len(group) == 1:
            yield "", [group[0][0]], ALONE
            continue
        period = group[0][0]["statistics"]["return_period"]
        stem = f"mosaic-rp{period}" if period else "mosaic"
        counts[stem] = counts.get(stem, 0) + 1
        name = f"{stem}.vrt" if counts[stem] == 1 else f"{stem}-{counts[stem]}.vrt"
        try:
            text = _vrt(group)
        except NoMosaic as error:
            text = str(error)
        yield name, [result for result, _ in group], text


def _key(result: Json) -> tuple[Any, ...]:
    names = ("crs", "wkt", "dtype", "bands", "nodata", "units", "scales", "offsets")
    hides = "other alpha" if _has_other_alpha(result) else _nodata_of(result) is not None
    return (result["statistics"]["return_period"], _is_north_up(result), hides, *(result[name] for name in names))


def _has_other_alpha(result: Json) -> bool:
    """Whether an alpha band hides pixels that GDAL, and so a virtual raster, would show."""
    return bool(result.get("validity") == "other alpha")


def _nodata_of(result: Json) -> float | int | None:
    """The value that hides pixels; None where a mask or an alpha band does, whatever the file's nodata is."""
    nodata = result["nodata"]
    # A result of the release before has no validity.
    if nodata is None or result.get("validity", "nodata") != "nodata":
        return None
    is_whole = "int" in result["dtype"] and float(nodata).is_integer()
    return int(nodata) if is_whole else float(nodata)


def _check_exact(results: list[Json]) -> None:
    if results[0]["dtype"] not in {"int64", "uint64"}:
        return
    for result in results:
        values = [value for pair in result["verification"]["range"]["cog"] for value in pair if value is not None]
        values += [nodata] if (nodata := _nodata_of(result)) is not None else []
        if any(abs(value) > MOST_EXACT for value in values):
            raise NoMosaic(
                f"{result['name']!r} has {result['dtype']} values or nodata beyond 2^53, which GDAL's virtual rasters "
                "compute in double precision; use the items"
            )


def _is_north_up(result: Json) -> bool:
    return bool(result["transform"][0] > 0 and result["transform"][4] < 0)


def _vrt(group: list[tuple[Json, str]]) -> str:
    results = [result for result, _ in group]
    first = results[0]
    if not _is_north_up(first):
        raise NoMosaic(
            "the rows of its rasters run from south to north, or their columns from east to west; use the items"
        )
    if _has_other_alpha(first):
        raise NoMosaic(
            "its rasters have an alpha band that GDAL takes for no mask: what it hides would be shown, and hide others "
            "below it; use the items"
        )
    _check_exact(results)
    across = min(abs(result["transform"][0]) for result in results)
    down = min(abs(result["transform"][4]) for result in results)
    boxes = [_box(result) for result in results]
    west, north = min(box[0] for box in boxes), max(box[3] for box in boxes)
    columns = math.ceil(round((max(box[2] for box in boxes) - west) / across, 6))
    rows = math.ceil(round((north - min(box[1] for box in boxes)) / down, 6))
    if max(columns, rows) > MOST_PIXELS:
        raise NoMosaic(f"its grid would have {columns} x {rows} pixels, more than GDAL can count; use the items")
    for result, path in group:
        if _NO_XML & set(path):
            raise NoMosaic(f"the name of {result['name']!r} cannot be written in XML; rename it")
    placed = [
        (result, path, (box[0] - west) / across, (north - box[3]) / down, box, (across, down))
        for (result, path), box in zip(group, boxes, strict=True)
    ]
    wkt = CRS.from_user_input(first["wkt"] or first["crs"]).to_wkt()
    lines = [
        f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}">',
        f"<SRS>{escape(wkt)}</SRS>",
        f"<GeoTransform>{west!r}, {across!r}, 0, {north!r}, 0, {-down!r}</GeoTransform>",
    ]
    for number in range(1, first["bands"] + 1):
        lines += _band(first, number, placed)
    if _nodata_of(first) is None:
        # What no raster covers, and what a raster's own mask hides.
        lines.append('<MaskBand><VRTRasterBand dataType="Byte">')
        lines += [_source(*one, "mask,1", "<NODATA>0</NODATA>") for one in placed]
        lines.append("</VRTRasterBand></MaskBand>")
    return "\n".join([*lines, "</VRTDataset>", ""])


def _box(result: Json) -> tuple[float, float, float, float]:
    step, _, west, _, fall, north = result["transform"]
    east, south = west + step * result["width"], north + fall * result["height"]
    return min(west, east), min(north, south), max(west, east), max(north, south)


def _band(first: Json, number: int, placed: list[Placed]) -> list[str]:
    nodata, unit = _nodata_of(first), first["units"][number - 1]
    return [
        f'<VRTRasterBand dataType="{_gdal_typename(first["dtype"])}" band="{number}">',
        *([f"<NoDataValue>{nodata}</NoDataValue>"] if nodata is not None else []),
        *([f"<UnitType>{escape(unit)}</UnitType>"] if unit else []),
        f"<Offset>{first['offsets'][number - 1]!r}</Offset>",
        f"<Scale>{first['scales'][number - 1]!r}</Scale>",
        *(_source(*one, str(number), "" if nodata is None else f"<NODATA>{nodata}</NODATA>") for one in placed),
        "</VRTRasterBand>",
    ]


def _source(
    result: Json, path: str, column: float, row: float, box: Any, pixel: tuple[float, float], band: str, end: str
) -> str:
    is_relative = int("://" not in path)
    name = escape(path, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
    width, height = (box[2] - box[0]) / pixel[0], (box[3] - box[1]) / pixel[1]
    # Without nodata a mask decides which pixels of this raster hide those below it.
    use_mask = "<UseMaskBand>true</UseMaskBand>" if not end else ""
    return (
        '<ComplexSource resampling="nearest">'
        f'<SourceFilename relativeToVRT="{is_relative}">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{result["width"]}" ySize="{result["height"]}"/>'
        f'<DstRect xOff="{column!r}" yOff="{row!r}" xSize="{width!r}" ySize="{height!r}"/>{end}{use_mask}'
        "</ComplexSource>"
    )
