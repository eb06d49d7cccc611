"""Where rasters may be read and results written: checked when a job is submitted, and again where a place is opened.

`COREMACHINE_RASTER_ROOTS` names the allowed folders and URL prefixes, separated by commas. Without it a machine of
one's own may use any place, and an app in Azure none: whoever may submit a job could read what the app can read.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from core.basics.canonical import shown
from jobs.flood_risk_cog.marker import FOLDERS, STALE
from jobs.validators import ResourceInvalid, resource_validator

ROOTS_SETTING = "COREMACHINE_RASTER_ROOTS"
# `memory` is of one process alone: for trials.
READABLE = ("file", "memory", "s3", "gs", "az", "abfs", "abfss", "http", "https")
WRITABLE = ("file", "memory", "s3", "gs", "az", "abfs", "abfss")
_LONGEST = 4096
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,19}:[A-Za-z0-9]{1,20}")
_WKT = re.compile(
    r"\s*(GEOG|PROJ|BOUND|COMPOUND|COMPD|GEOD)[A-Z]*CRS?\s*\[|\s*(GEOGCS|PROJCS|COMPD_CS)\s*\[", re.IGNORECASE
)
# What a definition could name beside itself: grid files, and PROJ's own texts.
_OUTSIDE = re.compile(r"nadgrids|geoidgrids|PARAMETERFILE|\bPROJ4\b|://|@", re.IGNORECASE)


COMPUTABLE_CRS = "target_crs to be a system that PROJ can compute, to longitude and latitude and back"
PLANE_AXES = 2
PLANE_CRS = "a system without heights, as those of the values are not shifted"
NAMED_CRS = "an authority's code such as EPSG:4326, or whole WKT or PROJJSON"


class PlaceRefused(ValueError):
    """A place that this app may not use; says which it may."""

    def __init__(self, place: str, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found} in {shown(place, 200)}")
        self.expected, self.found = expected, found


@dataclass(frozen=True)
class Policy:
    """Which places are allowed; `roots` None is any."""

    roots: tuple[str, ...] | None = None
    in_azure: bool = False

    @property
    def words(self) -> str:
        if self.roots is None:
            return "any folder" if not self.in_azure else f"a place (none is allowed yet: set {ROOTS_SETTING})"
        return f"a place in {', '.join(self.roots)} ({ROOTS_SETTING})"


def read_policy(environment: Mapping[str, str]) -> Policy:
    """What the app's settings allow."""
    roots = tuple(root.strip() for root in environment.get(ROOTS_SETTING, "").split(",") if root.strip())
    return Policy(roots or None, in_azure=bool(environment.get("WEBSITE_INSTANCE_ID")))


def check_place(place: str, *, writes: bool = False, listed: bool = False, policy: Policy | None = None) -> None:
    """Refuse a place that is not what it seems, or that is not allowed.

    Args:
        place: A local path or URL.
        listed: It was found in a folder, and not written by a person: files may have any name.
        policy: The app's own when left out.

    Raises:
        PlaceRefused: Says what is allowed.
    """
    policy = policy or read_policy(os.environ)
    if not listed or "://" in place:
        _check_form(place, WRITABLE if writes else READABLE)
    if policy.roots is None:
        if policy.in_azure:
            raise PlaceRefused(place, policy.words, "no allowed place")
        return
    if not any(_is_inside(place, root) for root in policy.roots):
        raise PlaceRefused(place, policy.words, "another place")


def _check_form(place: str, schemes: tuple[str, ...]) -> None:
    if not place or len(place) > _LONGEST:
        raise PlaceRefused(place[:100], f"a path or URL of 1 to {_LONGEST} characters", f"{len(place)}")
    if any(ord(character) < ord(" ") or ord(character) == 127 for character in place):  # noqa: PLR2004 - DEL
        raise PlaceRefused(place, "a path or URL", "a control character")
    if "::" in place:
        raise PlaceRefused(place, "one path or URL", "a chain of them (::)")
    found = _SCHEME.match(place)
    if found is not None:
        scheme, slashes = found[1], found[2]
        if scheme not in schemes or not slashes:
            raise PlaceRefused(place, f"a local path or one of {'://, '.join(schemes)}://", f"{scheme!r}")
        if scheme == "file" and not place.startswith("file:///"):
            raise PlaceRefused(place, "file:/// and an absolute path", "another host")
    elif place.startswith(("//", "\\\\", "~")):
        raise PlaceRefused(place, "a path on this machine", f"{place[:2]!r}")
    if ".." in re.split(r"[/\\]", unquote(place)):
        raise PlaceRefused(place, "a path without ..", "..")


def without_folder(place: str) -> str | None:
    """What a relative path would be here; None for an absolute one or a URL.

    Whoever sends one means a folder of their own, and this process has another.
    """
    if _SCHEME.match(place) or place.startswith(("/", "\\", "~")) or Path(place).is_absolute():
        return None
    return str(Path(place).absolute())


def _is_inside(place: str, root: str) -> bool:
    local = place.removeprefix("file://")
    if "://" in local:
        prefix = root.rstrip("/")
        bare = re.split(r"[?#]", place)[0].rstrip("/")
        return "://" in root and (bare == prefix or bare.startswith(f"{prefix}/"))
    if "://" in root.removeprefix("file://"):
        return False
    # `Path.resolve` raises where links lead in a circle.
    folder = os.path.realpath(root.removeprefix("file://"))
    return Path(os.path.realpath(local)).is_relative_to(folder)


def is_named_crs(text: str) -> bool:
    """Whether a text defines a coordinate system by itself: GDAL and PROJ would open what others name."""
    is_whole = _WKT.match(text) or text.lstrip().startswith("{")
    return not _OUTSIDE.search(text) and bool(_CODE.fullmatch(text) or is_whole)


@lru_cache(maxsize=64)
def is_computable(text: str) -> bool:
    """Whether PROJ has a way from a coordinate system to longitude and latitude, and back; some it knows by name."""
    import pyproj  # noqa: PLC0415 - an extra

    try:
        way = pyproj.Transformer.from_crs("OGC:CRS84", pyproj.CRS.from_user_input(text), always_xy=True)
        way.transform(0.0, 0.0)
        way.transform(0.0, 0.0, direction="INVERSE")
    except pyproj.exceptions.ProjError:
        return False
    return True


@lru_cache(maxsize=64)
def heights_of(text: str) -> tuple[str, str] | None:
    """Name and unit of the heights in a compound coordinate system; None for any other one."""
    import pyproj  # noqa: PLC0415 - an extra

    parts = pyproj.CRS.from_user_input(text).sub_crs_list
    found = next((part for part in parts if part.is_vertical), None)
    return None if found is None else (found.name, found.axis_info[0].unit_name)


@lru_cache(maxsize=64)
def without_heights(text: str) -> str | None:
    """The horizontal part, as WKT, of a system with ellipsoidal heights; None for any other one."""
    import pyproj  # noqa: PLC0415 - an extra

    found = pyproj.CRS.from_user_input(text)
    has_heights = not found.sub_crs_list and len(found.axis_info) > PLANE_AXES
    return str(found.to_2d().to_wkt()) if has_heights else None


def has_heights(text: str) -> bool:
    """Whether a system has heights of any kind."""
    return heights_of(text) is not None or without_heights(text) is not None


@resource_validator("raster_place")
def raster_place(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """The place is one that this app may use; with `writes` true, one that it may write to."""
    field = config["param"]
    if (here := without_folder(parameters[field])) is not None:
        hint = f"this server would take it from its own folder, as {here}: send the whole path"
        raise ResourceInvalid(field, "an absolute path or a URL", f"the relative {shown(parameters[field], 200)}", hint)
    try:
        check_place(parameters[field], writes=bool(config.get("writes")))
    except PlaceRefused as refused:
        raise ResourceInvalid(field, refused.expected, refused.found, "choose another place") from refused


@resource_validator("apart_from_source")
def apart_from_source(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Results are not among the sources, nor sources among the results: a run would read what another one wrote."""
    field = config["param"]
    source, is_deep = _folder_of(parameters[config["source"]])
    is_deep = is_deep or bool(parameters.get("recursive"))
    output = _comparable(parameters[field])
    hint = "choose another folder, beside that of the source"
    if output == source:
        raise ResourceInvalid(field, "another folder than the source's", shown(parameters[field], 200), hint)
    if is_deep and output.startswith(f"{source.rstrip('/')}/"):
        expected = "a folder outside of the source, of which folders inside are read too"
        raise ResourceInvalid(field, expected, shown(parameters[field], 200), hint)
    for name in (*FOLDERS, STALE):
        if f"{source}/".startswith(f"{output.rstrip('/')}/{name}/"):
            expected = f"a folder other than {name} of the output, which the job itself writes"
            found = shown(parameters[config["source"]], 200)
            raise ResourceInvalid(config["source"], expected, found, "choose another source, or another output")


def _folder_of(source: str) -> tuple[str, bool]:
    """The folder whose rasters a source names, and whether it is a pattern of folders inside, too."""
    begin, pattern = _divided(source)
    if pattern:
        folder, _, _ = begin.rpartition("/")
        return _comparable(folder or "/"), "/" in pattern
    place = _comparable(source)
    is_file = Path(place).is_file() if "://" not in place else place.lower().endswith((".tif", ".tiff"))
    return (place.rpartition("/")[0] or "/") if is_file else place, False


def _divided(source: str) -> tuple[str, str]:
    """A source up to its first wildcard, and the rest; a file or folder may have such a character in its name."""
    mark = re.search(r"[*?\[]", source)
    local = source.removeprefix("file://")
    if mark is None or ("://" not in local and Path(local).exists()):
        return source, ""
    return source[: mark.start()], source[mark.start() :]


def _comparable(place: str) -> str:
    """Without what may be written in several ways; links of this machine are followed."""
    local = place.removeprefix("file://")
    return re.sub(r"(?<!:)/+", "/", local).rstrip("/") if "://" in local else os.path.realpath(local)


@resource_validator("one_listing_rule")
def one_listing_rule(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """A pattern says itself which folders are meant: `recursive` beside it would be a second answer."""
    source = parameters[config["param"]].removeprefix("file://")
    is_pattern = any(mark in source for mark in "*?[") and "://" not in source and not Path(source).exists()
    if is_pattern and parameters.get("recursive"):
        hint = "write ** in the pattern for all folders inside, as in /data/**/*.tif"
        raise ResourceInvalid("recursive", "false where the source is a pattern", "true", hint)


@resource_validator("named_crs")
def named_crs(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """A coordinate system by an authority's code, or whole as WKT or PROJJSON: nothing that names a file or a URL."""
    field = config["param"]
    text = parameters[field]
    if not is_named_crs(text):
        raise ResourceInvalid(field, NAMED_CRS, shown(text, 100), "name no file, URL or PROJ text")
    if parameters.get("web_optimized") and text.upper() != "EPSG:3857":
        expected = "EPSG:3857 or nothing beside web_optimized"
        raise ResourceInvalid(field, expected, shown(text, 100), "leave one of them out")
    try:
        import pyproj  # noqa: PLC0415 - an extra; without it the inventory looks

        pyproj.CRS.from_user_input(text)
        if not is_computable(text):
            raise ResourceInvalid(field, COMPUTABLE_CRS, shown(text, 100), "choose another one")
        if has_heights(text):
            raise ResourceInvalid(field, PLANE_CRS, shown(text, 100), "give its horizontal part alone")
    except ImportError:
        return
    except (ValueError, RuntimeError) as error:
        hint = f"look it up at epsg.org ({str(error)[:200]})"
        raise ResourceInvalid(field, "a coordinate system that PROJ knows", shown(text, 100), hint) from error
