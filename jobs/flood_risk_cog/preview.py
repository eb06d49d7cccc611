"""The preview of a job's COGs: a page, what it shows as JSON, map tiles and values at a place.

Nothing here reads a raster: that is for child processes (`process`), few at a time and for a few seconds each. Files
are those that the job's own summary names, inside of its output folder and of the allowed places.
"""

import atexit
import base64
import html
import importlib.util
import json
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import AuthorError
from core.models import JobStatus
from jobs.flood_risk_cog.places import PlaceRefused, check_place
from jobs.flood_risk_cog.process import ConversionEnded, ConversionProcesses
from jobs.flood_risk_cog.remote import is_remote
from jobs.flood_risk_cog.target import base64_of, join, text_of
from jobs.views import (
    Figure,
    NoSuchPart,
    NothingToShow,
    Outline,
    ViewAnswer,
    ViewBusy,
    ViewFailed,
    ViewNotInstalled,
    ViewRequest,
)

# Drawn at once, waiting for their turn, and for how long one may take; the first of a child imports its libraries.
AT_WORK, MOST_WAITING, MOST_SECONDS = 2, 8, 20.0
MOST_RASTERS, MOST_VALUES, MOST_FOOTPRINTS = 40, 20, 5000
MOST_ZOOM = 24
MOST_SUMMARY_BYTES = 64 << 20
MOST_PICTURE_BYTES = 16 << 20
QUICKLOOK = "quicklook.png"
MOST_KEPT_TILES, MOST_KEPT_BYTES = 400, 16 << 20
NEEDED = ("rasterio", "numpy", "pyproj", "PIL", "fsspec")
HALF_TURN = 180.0
PNG, JSON = "image/png", "application/json"

_FOLDER = Path(__file__).parent / "preview_page"
_FILES = {"style.css": "text/css; charset=utf-8", "map.js": "text/javascript; charset=utf-8"}
_TILE = re.compile(r"tile-(\d{1,3})-(\d{1,2})-(\d{1,8})-(\d{1,8})\.png")
_PLACE = re.compile(r"values-(-?\d{1,3}(?:\.\d{1,12})?),(-?\d{1,2}(?:\.\d{1,12})?)\.json")

Json = dict[str, Any]
Group = tuple[int | None, list[tuple["Cog", Json]]]


@dataclass(frozen=True)
class Cog:
    """One of the job's results."""

    name: str
    path: str
    box: list[float]
    is_classes: bool


@dataclass(frozen=True)
class Layer:
    """The COGs of a return period (None: not known), largest first."""

    period: int | None
    cogs: tuple[Cog, ...]


@dataclass(frozen=True)
class Shown:
    """What a job's preview shows."""

    layers: tuple[Layer, ...]
    deepest: float
    page: bytes


def show(request: ViewRequest) -> ViewAnswer:
    """The page of a job, or a part of it; see `jobs.views`."""
    if request.part in _FILES:
        return ViewAnswer((_FOLDER / request.part).read_bytes(), _FILES[request.part])
    check_installed()
    shown = find_shown(request)
    if not request.part:
        text = (_FOLDER / "page.html").read_text(encoding="utf-8").replace("{query}", html.escape(request.query))
        return ViewAnswer(text.encode(), "text/html; charset=utf-8")
    if request.part == "layers.json":
        return ViewAnswer(shown.page, JSON)
    if request.part == QUICKLOOK:
        return quicklook(request)
    if found := _TILE.fullmatch(request.part):
        return tile(request, shown, *(int(number) for number in found.groups()))
    if found := _PLACE.fullmatch(request.part):
        return values(shown, float(found[1]), float(found[2]))
    expected = f"layers.json, {QUICKLOOK}, tile-LAYER-Z-X-Y.png or values-LON,LAT.json"
    raise NoSuchPart(f"expected {expected}, found {request.part[:100]!r}")


def draw_figure(request: ViewRequest) -> Figure:
    """The job's quicklook, and where its rasters are; see `jobs.views`."""
    check_installed()
    page = json.loads(find_shown(request).page)
    names = [layer["name"] for layer in page["layers"]]
    outlines = [Outline(each["name"], each["rings"], names[each["layer"]]) for each in page["footprints"]]
    has_picture = isinstance((request.result or {}).get("quicklook"), str)
    return Figure(page["title"], outlines, QUICKLOOK if has_picture else "", page["notes"])


def quicklook(request: ViewRequest) -> ViewAnswer:
    """The picture that the job wrote beside its summary."""
    result = request.result or {}
    path = str(result.get("quicklook"))
    if not is_own_file(path, str(result.get("summary")).removesuffix("summary.json").rstrip("/") or "/"):
        raise NothingToShow("The job has no picture in its own folder; run it again.")
    wanted: Json = {"path": path, "most_bytes": MOST_PICTURE_BYTES}
    found = in_child({"work": "base64", **wanted}) if is_remote(path) else base64_of(**wanted)
    if found["base64"] is None:
        size = "none" if found["bytes"] is None else f"{found['bytes']:,} bytes"
        raise NothingToShow(f"{path}: expected a picture of at most {MOST_PICTURE_BYTES:,} bytes, found {size}.")
    return ViewAnswer(base64.b64decode(found["base64"]), PNG)


def check_installed() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ViewNotInstalled(
            f"The preview needs the raster libraries ({', '.join(missing)} missing here): "
            "pip install 'coremachine[raster]' where HTTP is served."
        )


def find_shown(request: ViewRequest) -> Shown:
    """What the job's result names.

    Raises:
        NothingToShow: It has none, or its summary is gone or of another release.
        ViewFailed: The summary cannot be read.
    """
    path = (request.result or {}).get("summary")
    if not isinstance(path, str):
        if JobStatus(request.status).is_terminal:
            raise NothingToShow(f"The job is {request.status} and has no catalog; see `coremachine explain`.")
        raise NothingToShow(f"The job is {request.status} and has no catalog yet; look again when it has ended.")
    # A rerun writes another summary, and a result is written once in a run.
    return _read_shown(request.job_id, request.run, path)


@lru_cache(maxsize=16)
def _read_shown(job_id: str, run: int, path: str) -> Shown:
    del job_id, run
    try:
        check_place(path, listed=True)
        # A store that does not answer holds a child process, for a while, and no thread of this one.
        wanted: Json = {"path": path, "most_bytes": MOST_SUMMARY_BYTES}
        found = in_child({"work": "text", **wanted}) if is_remote(path) else text_of(**wanted)
        if found["bytes"] is None:
            raise NothingToShow(f"Its summary is no longer at {path}; run the job again.")
        if found["text"] is None:
            size, most = found["bytes"], MOST_SUMMARY_BYTES
            raise NothingToShow(f"Its summary has {size:,} bytes; a preview reads text of at most {most:,}.")
        return shown_of(json.loads(found["text"]), path.removesuffix("summary.json").rstrip("/") or "/")
    except PlaceRefused as refused:
        raise NothingToShow(f"Its output is not in a place that this app may read: {refused}.") from refused
    except (LookupError, TypeError, ValueError) as error:
        raise NothingToShow(f"Its summary at {path} is not of this release; run the job again.") from error
    except OSError as error:
        raise ViewFailed(f"Its summary at {path} cannot be read now: {error}") from error


def shown_of(summary: Mapping[str, Any], output: str) -> Shown:
    """The layers of a summary whose COGs are in a folder."""
    groups: dict[int | None, list[tuple[Cog, Json]]] = {}
    left_out = []
    for raster in summary["rasters"]:
        cog = _cog_of(raster, output)
        if cog is None:
            left_out.append(str(raster["name"]))
        else:
            groups.setdefault(raster["statistics"]["return_period"], []).append((cog, raster))
    ordered = sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or 0))
    layers = tuple(
        Layer(period, tuple(sorted((cog for cog, _ in group), key=lambda cog: -_area(cog.box))))
        for period, group in ordered
    )
    depths = [raster["statistics"]["max_depth"] for _, group in ordered for _, raster in group]
    deepest = max((float(depth) for depth in depths if depth is not None), default=0.0)
    page = _page_of(summary, ordered, deepest, left_out)
    return Shown(layers, deepest, json.dumps(page, allow_nan=False).encode())


def _cog_of(raster: Json, output: str) -> Cog | None:
    """None for what is not a file of the job's own folder."""
    name, box = str(raster["name"]), [float(side) for side in raster["bbox"]]
    if "/" in name or "\\" in name or not name.endswith(".tif"):
        return None
    path = join(join(output, "cogs"), name)
    return Cog(name, path, box, raster.get("kind") == "classes") if is_own_file(path, output) else None


def is_own_file(path: str, output: str) -> bool:
    """Whether it is inside of the output, links followed, and in a place that the app may read."""
    try:
        check_place(path, listed=True)
    except PlaceRefused:
        return False
    return is_remote(path) or Path(path).resolve().is_relative_to(Path(output).resolve())


def _area(box: Sequence[float]) -> float:
    west, south, east, north = box
    return ((east - west) % 360.0) * (north - south)


def _page_of(summary: Mapping[str, Any], groups: Sequence[Group], deepest: float, left_out: list[str]) -> Json:
    from jobs.flood_risk_cog.footprint import union  # noqa: PLC0415 - numpy and pyproj, an extra

    rasters = [(number, cog, raster) for number, (_, group) in enumerate(groups) for cog, raster in group]
    totals = {entry["return_period"]: entry for entry in summary["by_return_period"]}
    units = {raster["statistics"].get("unit") for _, cog, raster in rasters if not cog.is_classes}
    return {
        "title": summary["title"],
        "box": union([cog.box for _, cog, _ in rasters]),
        "deepest": deepest,
        "unit": units.pop() if len(units) == 1 else "different units" if units else None,
        "layers": [
            {
                "name": f"{period:,} years" if period is not None else "no return period",
                "rasters": len(group),
                "max_depth": totals.get(period, {}).get("max_depth"),
                "flooded_area_km2": totals.get(period, {}).get("flooded_area_km2"),
            }
            for period, group in groups
        ],
        "footprints": [
            {
                "name": cog.name.removesuffix(".tif"),
                "layer": number,
                "box": cog.box,
                "rings": rings_of(raster),
            }
            for number, cog, raster in rasters[:MOST_FOOTPRINTS]
        ],
        "notes": list(_notes(summary, [cog for _, cog, _ in rasters], left_out)),
    }


def _notes(summary: Mapping[str, Any], cogs: Sequence[Cog], left_out: list[str]) -> Iterator[str]:
    """What the page lacks, in words."""
    if failed := len(summary["failures"]):
        yield f"{counted(failed, 'raster')} failed and {_is_or_are(failed)} not shown."
    if left_out:
        yield f"{counted(len(left_out), 'result')} {_is_or_are(len(left_out))} outside of the job's folder, not shown."
    if len(cogs) > MOST_FOOTPRINTS:
        yield f"The outlines of {MOST_FOOTPRINTS:,} of {len(cogs):,} rasters are drawn."
    if classes := sum(cog.is_classes for cog in cogs):
        outlines = "its outline is" if classes == 1 else "their outlines are"
        yield f"{counted(classes, 'raster')} with classes and no depths: {outlines} drawn."


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def rings_of(raster: Json) -> list[Any]:
    """Of its footprint, as longitudes and latitudes."""
    shape = raster["geometry"]
    polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    return [ring for polygon in polygons for ring in polygon]


def tile(request: ViewRequest, shown: Shown, layer: int, zoom: int, column: int, row: int) -> ViewAnswer:
    """A tile; the header `X-Left-Out` is how many of its rasters are missing in it."""
    if layer >= len(shown.layers) or zoom > MOST_ZOOM or max(column, row) >= 2**zoom:
        raise NoSuchPart(f"expected a layer below {len(shown.layers)} and a tile of a zoom up to {MOST_ZOOM}")
    key = (request.job_id, request.run, layer, zoom, column, row)
    if (kept := _TILES.find(key)) is not None:
        return kept
    touching = [
        cog.path
        for cog in shown.layers[layer].cogs
        if not cog.is_classes and _meets(cog.box, box_of_tile(zoom, column, row))
    ]
    drawn = touching[:MOST_RASTERS]
    left_out, content = len(touching) - len(drawn), _EMPTY
    if drawn:
        position = {"zoom": zoom, "column": column, "row": row, "deepest": shown.deepest}
        answer = in_child({"work": "tile", "paths": drawn, **position})
        content, left_out = base64.b64decode(answer["png"]), left_out + len(answer["problems"])
    found = ViewAnswer(content, PNG, {"X-Left-Out": str(left_out)})
    if not left_out:
        _TILES.keep(key, found)
    return found


def values(shown: Shown, longitude: float, latitude: float) -> ViewAnswer:
    """What each layer's rasters have at a place, as JSON."""
    if abs(longitude) > HALF_TURN or abs(latitude) > HALF_TURN / 2:
        raise NoSuchPart("expected a longitude from -180 to 180 and a latitude from -90 to 90")
    there = [
        (number, cog)
        for number, layer in enumerate(shown.layers)
        for cog in layer.cogs
        if _meets(cog.box, (longitude, latitude, longitude, latitude))
    ]
    asked = there[:MOST_VALUES]
    found = []
    if asked:
        position = {"longitude": longitude, "latitude": latitude}
        found = in_child({"work": "values", "paths": [cog.path for _, cog in asked], **position})["values"]
    listed = [
        {"layer": number, "name": cog.name.removesuffix(".tif"), **value}
        for (number, cog), value in zip(asked, found, strict=True)
    ]
    return ViewAnswer(json.dumps({"values": listed, "left_out": len(there) - len(asked)}).encode(), JSON)


def box_of_tile(zoom: int, column: int, row: int) -> tuple[float, float, float, float]:
    """West, south, east and north of a tile, in degrees."""
    count = 2**zoom

    def latitude(edge: int) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * edge / count))))

    west = column / count * 360 - 180
    return west, latitude(row + 1), west + 360 / count, latitude(row)


def _meets(box: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a box meets another; the first one's west is larger than its east across the antimeridian."""
    west, south, east, north = box
    if south > other[3] or north < other[1]:
        return False
    if west <= east:
        return west <= other[2] and east >= other[0]
    return other[2] >= west or other[0] <= east


def in_child(work: Json) -> Json:
    """The answer of a child process, which is ended where it takes too long."""
    with _TURNS.taken():
        until = time.monotonic() + MOST_SECONDS

        def look(_step: str) -> None:
            if time.monotonic() > until:
                raise ViewFailed(f"Reading took longer than {MOST_SECONDS:g} s; zoom in, or ask again later.")

        try:
            return _CHILDREN.convert(work, lambda _step, _share: None, look)
        except ConversionEnded as ended:
            raise ViewFailed(f"A file of the result ended the process that read it (status {ended.status}).") from ended
        except AuthorError as error:
            raise ViewFailed(f"The files of the result cannot be read: {error.failure.message[:300]}") from error


class Turns:
    """Few at a time, and few that wait for them: a thread that waits is one that answers nobody else."""

    def __init__(self, at_work: int, most_waiting: int) -> None:
        self._free, self._places = threading.Semaphore(at_work), threading.Semaphore(at_work + most_waiting)

    @contextmanager
    def taken(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise ViewBusy("Too many parts of previews are asked for at once; ask again in a second.")
        try:
            if not self._free.acquire(timeout=MOST_SECONDS):
                raise ViewBusy("Parts of previews that were asked for before take long; ask again in a second.")
            try:
                yield
            finally:
                self._free.release()
        finally:
            self._places.release()


class Kept:
    """The tiles that were asked for last."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._answers: OrderedDict[tuple[Any, ...], ViewAnswer] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, key: tuple[Any, ...]) -> ViewAnswer | None:
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def keep(self, key: tuple[Any, ...], answer: ViewAnswer) -> None:
        with self._lock:
            if key in self._answers:
                return
            self._answers[key] = answer
            self._bytes += len(answer.content)
            while self._answers and (len(self._answers) > self._most or self._bytes > self._most_bytes):
                _, oldest = self._answers.popitem(last=False)
                self._bytes -= len(oldest.content)


# One transparent pixel: the browser stretches it.
_EMPTY = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)
_TILES = Kept(MOST_KEPT_TILES, MOST_KEPT_BYTES)
_TURNS = Turns(AT_WORK, MOST_WAITING)
_CHILDREN = ConversionProcesses()
atexit.register(_CHILDREN.end)
