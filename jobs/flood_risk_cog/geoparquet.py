"""The items as STAC GeoParquet: one table beside the JSON, which GeoPandas, DuckDB and QGIS read."""

import importlib.util
import io
import json
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any

Json = dict[str, Any]

NOT_INSTALLED = "not written: pyarrow is not installed; install the extra geoparquet"
NO_ITEMS = "not written: there are no items"
_TIMES = ("datetime", "start_datetime", "end_datetime")
_POLYGON, _MULTI_POLYGON = 3, 6


def geoparquet_of(items: Sequence[Json]) -> bytes | str:
    """The file's bytes, or in words why there are none."""
    if importlib.util.find_spec("pyarrow") is None:
        return NOT_INSTALLED
    if not items:
        return NO_ITEMS
    import pyarrow as pa  # noqa: PLC0415  # an extra
    from pyarrow import parquet  # noqa: PLC0415

    rows = [_row(item) for item in items]
    # The columns are those of the first row: what one item has, each row has.
    columns = dict.fromkeys(name for row in rows for name in row)
    table = pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows])
    for name in _TIMES:
        if name in table.column_names:
            column = table[name].cast(pa.timestamp("us", tz="UTC"))
            table = table.set_column(table.column_names.index(name), name, column)
    kinds = sorted({str(item["geometry"]["type"]) for item in items})
    column_metadata = {
        "encoding": "WKB",
        "geometry_types": kinds,
        "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column_metadata}}
    metadata = {b"geo": json.dumps(geo).encode(), b"stac-geoparquet": b'{"version": "1.0.0"}'}
    buffer = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


def _row(item: Json) -> Json:
    """An item with its properties beside its other fields, as the format wants."""
    west, south, east, north = item["bbox"]
    row = {
        **{name: item[name] for name in ("type", "stac_version", "stac_extensions", "id", "collection", "links")},
        **{name: _number(name, value) for name, value in item["properties"].items()},
        "geometry": wkb_of(item["geometry"]),
        "bbox": {"xmin": float(west), "ymin": float(south), "xmax": float(east), "ymax": float(north)},
        "assets": {
            name: {**asset, "bands": [_plain(band) for band in asset["bands"]]}
            for name, asset in item["assets"].items()
        },
    }
    for name in _TIMES:
        row[name] = datetime.fromisoformat(text) if (text := row.get(name)) else None
    return row


def _number(name: str, value: Any) -> Any:
    """A column has one type: depths of whole numbers become floats as those of others are."""
    is_depth = name.endswith("_depth") or name == "flood:flooded_area_km2"
    return float(value) if is_depth and value is not None else value


def _plain(band: Json) -> Json:
    statistics = {name: float(value) for name, value in band["statistics"].items()}
    nodata = {"nodata": float(band["nodata"])} if "nodata" in band else {}
    return {**band, **nodata, "statistics": statistics}


def wkb_of(shape: Json) -> bytes:
    """Well-known binary of a Polygon or MultiPolygon."""
    if shape["type"] == "Polygon":
        return _polygon(shape["coordinates"])
    parts = b"".join(_polygon(rings) for rings in shape["coordinates"])
    return struct.pack("<BII", 1, _MULTI_POLYGON, len(shape["coordinates"])) + parts


def _polygon(rings: Any) -> bytes:
    text = struct.pack("<BII", 1, _POLYGON, len(rings))
    for ring in rings:
        text += struct.pack("<I", len(ring)) + b"".join(struct.pack("<dd", x, y) for x, y in ring)
    return text
