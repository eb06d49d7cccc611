"""Opening rasters, wherever they are, and reading them piece by piece."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import rasterio
from rasterio.crs import CRS
from rasterio.enums import WktVersion
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

from jobs.flood_risk_cog.remote import filesystem_of, find_redirect, is_remote
from jobs.flood_risk_cog.stage import (
    by_name_without_case,
    check_differ,
    names_a_file,
    sidecar_names,
    sidecars_among,
    sidecars_of,
    without_case,
)
from jobs.flood_risk_cog.target import short_name


class SourceNotFound(FileNotFoundError):
    """There is nothing at the place where rasters were expected."""

    def __init__(self, source: str) -> None:
        super().__init__(f"expected rasters at {source!r}, found nothing there; check the path and the access to it")
        self.source = source


def fetch_raster(path: str, folder: Path, sidecars: Sequence[str] | None = None) -> str:
    """A local path to the raster: a remote one is copied into the folder.

    So it crosses the network once though it is read several times, and every error after the copy is the raster's own.

    Raises:
        SourceNotFound: No such file.
        OSError: The copy failed; another attempt may succeed. Stores raise types of their own as well.
    """
    if not is_remote(path):
        return path
    filesystem, inner = filesystem_of(path)
    local = folder / short_name(PurePosixPath(path).name)
    try:
        filesystem.get_file(inner, str(local))
    except FileNotFoundError as error:
        raise SourceNotFound(path) from error
    if sidecars is not None:
        check_differ(sidecars)
    for there, here in remote_sidecars(path, local, sidecars):
        # A server that takes names without case has each by all its names.
        if any(without_case(each.name) == without_case(here.name) for each in folder.iterdir()):
            continue
        # Most rasters have none.
        with suppress(FileNotFoundError):
            filesystem.get_file(filesystem_of(there)[1], str(here))
    return str(local)


def remote_sidecars(path: str, local: Path, names: Sequence[str] | None = None) -> Iterator[tuple[str, Path]]:
    """URLs of the files beside a remote raster that belong to it, and where their copies belong.

    Args:
        names: Which there are; None: which there may be.
    """
    url, mark, query = path.partition("?")
    folder, slash, name = url.rpartition("/")
    stem = name.rpartition(".")[0]
    for there in sidecars_among(name, by_name_without_case(sidecar_names(name) if names is None else names)):
        is_appended = without_case(there).startswith(without_case(f"{name}."))
        here = local.name + there[len(name) :] if is_appended else local.stem + there[len(stem) :]
        yield f"{folder}{slash}{there}{mark}{query}", local.with_name(here)


class UntrustedRaster(RasterioError):  # type: ignore[misc] # rasterio has no types
    """What belongs to the raster would make GDAL open something else."""


@contextmanager
def open_raster(path: str, *, sidecars: bool = True, **options: Any) -> Iterator[Any]:
    """A dataset of rasterio's, open for reading; a URL is read through fsspec, with its credentials.

    Args:
        sidecars: Whether GDAL may look at the files beside it.

    Raises:
        RasterioError: It is no GeoTIFF, or names another file.
    """
    if is_remote(path):
        options["opener"] = filesystem_of(path)[0]
    probing = {} if sidecars else {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
    with rasterio.Env(**probing), warnings.catch_warnings():
        # A raster without a position is refused by name later; the warning would only repeat it.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # No other driver: a text that is called .tif could name any file of this machine.
        dataset = rasterio.open(path, driver="GTiff", **options)
    with dataset:
        # GDAL would open it with whatever driver fits.
        domains = {"OVERVIEWS", *(each for each in dataset.tag_namespaces() if each.upper() == "OVERVIEWS")}
        if any(dataset.tags(ns=domain) for domain in domains):
            raise UntrustedRaster("its metadata names another file as its overviews; remove OVERVIEW_FILE")
        if dataset.crs is not None and names_a_file(_text_of(dataset.crs)):
            raise UntrustedRaster("its coordinate system names a file; assign one that does not (gdal_edit -a_srs)")
        yield dataset


def _text_of(crs: CRS) -> str:
    """What it says; some systems cannot be said in the newer form."""
    try:
        return str(crs.to_wkt(version=WktVersion.WKT2_2019))
    except CRSError:
        return str(crs.to_wkt())


def version_of(path: str, sidecars: Sequence[str] | None = None) -> str:
    """What changes when the file does, or one that belongs to it: sizes with times or entity tags.

    Raises:
        SourceNotFound: No such file.
    """
    if not is_remote(path):
        own = _version_of_file(Path(path))
        return ";".join([own, *(f"{each.name[-8:]}:{_version_of_file(each)}" for each in sidecars_of(Path(path)))])
    found = _version_of_url(path)
    if found is None:
        raise SourceNotFound(path)
    versions = [_version_of_url(url) for url, _ in remote_sidecars(path, Path("x.tif"), sidecars)]
    return ";".join([found, *(each for each in versions if each is not None)])


def entity_tag_of(path: str) -> str | None:
    """What a store says of the content of a remote file, and changes with it; None where it says nothing."""
    if not is_remote(path):
        return None
    filesystem, inner = filesystem_of(path)
    filesystem.invalidate_cache()
    try:
        info = filesystem.info(inner)
    except FileNotFoundError:
        return None
    tag = info.get("ETag") or info.get("etag")
    # A weak one is equal for contents that are nearly the same.
    return None if tag is None or str(tag).startswith("W/") else str(tag)


def _version_of_file(path: Path) -> str:
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise SourceNotFound(str(path)) from error
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _version_of_url(url: str) -> str | None:
    filesystem, inner = filesystem_of(url)
    try:
        info = filesystem.info(inner)
    except FileNotFoundError as error:
        # fsspec says so of every failure over HTTP.
        if (refused := find_redirect(error)) is not None:
            raise refused from error
        return None
    stamp = next((info[key] for key in ("etag", "ETag", "last_modified", "mtime", "created") if info.get(key)), "")
    return f"{info.get('size')}-{stamp}"
