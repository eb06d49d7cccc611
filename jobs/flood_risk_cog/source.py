"""Opening rasters, wherever they are, and reading them piece by piece."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

PIXELS_PER_READ = 1 << 20


class SourceNotFound(FileNotFoundError):
    """There is nothing at the place where rasters were expected."""

    def __init__(self, source: str) -> None:
        super().__init__(f"expected rasters at {source!r}, found nothing there; check the path and the access to it")
        self.source = source


def is_remote(path: str) -> bool:
    return "://" in path


def without_file_scheme(path: str) -> str:
    """A `file://` URL as the local path that it is; anything else unchanged."""
    return path.removeprefix("file://")


def fetch_raster(path: str, folder: Path) -> str:
    """A local path to the raster: a remote one is copied into the folder.

    So it crosses the network once though it is read several times, and every error after the copy is the raster's own.

    Raises:
        SourceNotFound: No such file.
        OSError: The copy failed; another attempt may succeed. Stores raise types of their own as well.
    """
    if not is_remote(path):
        return path
    filesystem, inner = fsspec.core.url_to_fs(path)
    local = folder / PurePosixPath(path).name
    try:
        filesystem.get_file(inner, str(local))
    except FileNotFoundError as error:
        raise SourceNotFound(path) from error
    return str(local)


@contextmanager
def open_raster(path: str, **options: Any) -> Iterator[Any]:
    """A dataset of rasterio's, open for reading; a URL is read through fsspec, with its credentials."""
    if is_remote(path):
        options["opener"] = fsspec.core.url_to_fs(path)[0]
    with warnings.catch_warnings():
        # A raster without a position is refused by name later; the warning would only repeat it.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # No other driver: a text that is called .tif could name any file of this machine.
        dataset = rasterio.open(path, driver="GTiff", **options)
    with dataset:
        yield dataset


def version_of(path: str) -> str:
    """What changes when the file does: its size with its time or its entity tag.

    Raises:
        SourceNotFound: No such file.
    """
    if is_remote(path):
        filesystem, inner = fsspec.core.url_to_fs(path)
        try:
            info = filesystem.info(inner)
        except FileNotFoundError as error:
            raise SourceNotFound(path) from error
        stamp = next((info[key] for key in ("etag", "ETag", "last_modified", "mtime", "created") if info.get(key)), "")
        return f"{info.get('size')}-{stamp}"
    try:
        stat = Path(path).stat()
    except FileNotFoundError as error:
        raise SourceNotFound(path) from error
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def read_windows(dataset: Any) -> Iterator[Window]:
    """Windows that cover the dataset in whole blocks, about a million pixels each, so that memory stays bounded."""
    block_rows, block_columns = dataset.block_shapes[0]
    columns = min(dataset.width, math.ceil(1024 / block_columns) * block_columns)
    rows = max(block_rows, PIXELS_PER_READ // columns // block_rows * block_rows)
    for row in range(0, dataset.height, rows):
        for column in range(0, dataset.width, columns):
            width, height = min(columns, dataset.width - column), min(rows, dataset.height - row)
            yield Window(column, row, width, height)
