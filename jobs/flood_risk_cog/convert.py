"""One raster to one Cloud Optimized GeoTIFF: refused with a reason, or written whole and validated."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rio_cogeo.cogeo import cog_translate, cog_validate

from jobs.flood_risk_cog.inventory import crs_text, describe
from jobs.flood_risk_cog.scratch import ScratchOwner, scratch_folder
from jobs.flood_risk_cog.source import (
    fetch_raster,
    is_remote,
    open_raster,
    read_windows,
    version_of,
    without_file_scheme,
)
from jobs.flood_risk_cog.statistics import flood_statistics
from jobs.flood_risk_cog.target import join, put_file, size_of

Compression = Literal["deflate", "zstd", "lerc"]
Report = Callable[[str], None]

FINGERPRINT_TAG = "COREMACHINE_SOURCE"
# A classification has few values; a photograph or a hill shade has most of the 256.
MOST_CLASSES = 32
# GDAL's blocks in memory, in bytes (so rasterio takes it): one bound for all threads of a process and any raster. More
# hardly helps, since blocks are read in order, and a process with 256 MB of them takes twice the memory in all.
GDAL_OPTIONS = {"GDAL_CACHEMAX": 64 << 20, "GDAL_TIFF_INTERNAL_MASK": True}
OVERVIEW_RESAMPLING = {"nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "gauss", "rms"}


class UnusableRaster(ValueError):
    """No attempt can make a COG of this raster; `reason` tells a person why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{PurePosixPath(path).name}: {reason}")
        self.path = path
        self.reason = reason


class InvalidOutput(RuntimeError):
    """The file that was written does not validate as a COG; it was removed."""


def convert_raster(
    path: str,
    output: str,
    *,
    target_crs: str | None = None,
    tile_size: int = 512,
    compression: Compression = "deflate",
    resampling: str = "auto",
    report: Report | None = None,
    owner: ScratchOwner | None = None,
) -> dict[str, Any]:
    """Write `<stem>.tif` into the folder `output`, describe it and measure its flood.

    The same source version with the same options gives the same bytes (with lerc the same pixels: its encoder leaves
    a few padding bytes undefined), and a valid result that is already there is
    returned with `reused` true. The final name only ever holds a validated COG. A remote source is copied to local
    scratch first, a remote result written there and uploaded: room for both, and once more the result, is needed.

    Args:
        path: A local path or fsspec URL.
        output: A local folder, made when it is missing, or an fsspec URL.
        target_crs: Reproject to it, when the raster has another one.
        tile_size: 256 or 512.
        compression: Each is lossless.
        resampling: A name of GDAL's, or "auto": nearest and mode for classes, bilinear and average for quantities.
        report: Called with the name of each step as it begins; what it raises ends the conversion.
        owner: Whose attempt this is; what its earlier attempts left behind is removed.

    Raises:
        UnusableRaster: The raster itself is at fault; trying again is no use.
        SourceNotFound: There is no such file.
        InvalidOutput: The written file is not a valid COG.
        ValueError: An option is not one of the above.
        OSError: A place could not be read or written; stores raise types of their own as well.
    """
    options = {"crs": target_crs, "tile": tile_size, "compression": compression, "resampling": resampling}
    check_options(target_crs, tile_size, compression, resampling)
    report = report or (lambda _step: None)
    path, output = without_file_scheme(path), without_file_scheme(output)
    name = f"{PurePosixPath(path).stem}.tif"
    final = join(output, name)
    if final == path or (
        not is_remote(path) and not is_remote(final) and Path(final).resolve() == Path(path).resolve()
    ):
        raise ValueError(f"expected an output folder other than the source's, found {output!r}; choose another one")
    identity = [PurePosixPath(path).name, version_of(path), options]
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    # Around every read as well: outside it GDAL's cache grows to a share of the machine's memory.
    with rasterio.Env(**GDAL_OPTIONS):
        if is_finished(final, fingerprint):
            report("reuse")
            return {**result_of(path, final), "path": final, "reused": True}
        with scratch_folder(scratch_parent(output), owner) as scratch:
            temporary = scratch / name
            make_cog(path, temporary, options, fingerprint, report)
            report("measure")
            result = {**result_of(path, str(temporary)), "path": final, "reused": False}
            report("store")
            put_file(temporary, final)
            return result


def scratch_parent(output: str) -> Path:
    """Where conversions into this output keep their scratch: beside a local result, so that its replace is atomic."""
    output = without_file_scheme(output)
    return Path(tempfile.gettempdir() if is_remote(output) else output)


def make_cog(path: str, temporary: Path, options: dict[str, Any], fingerprint: str, report: Report) -> None:
    """Fetch, write and validate one COG in its scratch folder."""
    if is_remote(path):
        report("download")
    fetched = temporary.parent / "source"
    fetched.mkdir()
    write_cog(fetch_raster(path, fetched), str(temporary), options, fingerprint, report)
    report("validate")
    valid, errors, warnings = cog_validate(str(temporary), strict=True, quiet=True)
    if not valid:
        raise InvalidOutput(f"{temporary.name}: expected a valid COG, found {'; '.join([*errors, *warnings])}")


def check_options(target_crs: str | None, tile_size: int, compression: str, resampling: str) -> None:
    for name, value, allowed in (
        ("tile_size", tile_size, (256, 512)),
        ("compression", compression, ("deflate", "zstd", "lerc")),
        ("resampling", resampling, ("auto", *Resampling.__members__)),
    ):
        if value not in allowed:
            raise ValueError(f"expected {name} to be one of {', '.join(map(str, allowed))}, found {value!r}")
    if target_crs is not None:
        try:
            target = CRS.from_user_input(target_crs)
        except CRSError as error:
            raise ValueError(f"expected target_crs such as EPSG:4326, found {target_crs!r}: {error}") from error
        if not (target.is_geographic or target.is_projected):
            raise ValueError(f"expected target_crs to be geographic or projected, found {target_crs!r}")


def is_finished(final: str, fingerprint: str) -> bool:
    if size_of(final) is None:
        return False
    try:
        with open_raster(final) as dataset:
            if dataset.tags().get(FINGERPRINT_TAG) != fingerprint:
                return False
        # An upload is validated before it is sent, and committed whole.
        return is_remote(final) or bool(cog_validate(final, strict=True, quiet=True)[0])
    except RasterioError:
        # Whatever stands there is not our result: it is written again.
        return False


def write_cog(path: str, temporary: str, options: dict[str, Any], fingerprint: str, report: Report) -> None:
    with ExitStack() as stack:
        try:
            source = stack.enter_context(open_raster(path))
        except RasterioError as error:
            raise UnusableRaster(path, f"it cannot be opened as a raster ({error}); export it again") from error
        check_position(path, source)
        report("read")
        classes = read_every_block(path, source)
        warp, overview = choose_resampling(options["resampling"], categorical=classes)
        dataset, add_mask = source, False
        target = CRS.from_user_input(options["crs"]) if options["crs"] else None
        if target is not None and target != source.crs:
            empty = empty_of(source)
            add_mask = bool(empty.get("add_alpha"))
            dataset = stack.enter_context(warped(path, source, target, resampling=Resampling[warp], **empty))
            check_place(path, dataset)
        report("write")
        cog_translate(
            dataset,
            temporary,
            creation_options(source.dtypes[0], options["tile"], options["compression"]),
            overview_level=overview_levels(dataset.width, dataset.height, options["tile"]),
            overview_resampling=cast("Any", overview),
            add_mask=add_mask,
            in_memory=False,
            web_optimized=False,
            forward_band_tags=True,
            config={**GDAL_OPTIONS, "GDAL_TIFF_OVR_BLOCKSIZE": options["tile"]},
            colormap=palette_of(source),
            additional_cog_metadata={**source.tags(), FINGERPRINT_TAG: fingerprint},
            quiet=True,
        )


def warped(path: str, source: Any, target: CRS, **options: Any) -> WarpedVRT:
    try:
        return WarpedVRT(source, crs=target, **options)
    except (RasterioError, CPLE_BaseError) as error:
        reason = (
            f"it cannot be reprojected to {target.to_string()} ({error}); choose a target_crs that covers its place"
        )
        raise UnusableRaster(path, reason) from error


def empty_of(source: Any) -> dict[str, Any]:
    """How the warped grid says "nothing here" outside the source's footprint, when the source has no way to."""
    if source.nodata is not None or ColorInterp.alpha in source.colorinterp:
        return {}
    kind = np.dtype(source.dtypes[0])
    if kind in {np.dtype("uint8"), np.dtype("uint16")}:
        # GDAL takes an alpha band for a mask in these two types alone.
        return {"add_alpha": True}
    return {"nodata": float("nan") if kind.kind == "f" else float(np.iinfo(kind).min)}


def check_position(path: str, dataset: Any) -> None:
    if not dataset.count:
        raise UnusableRaster(path, "it has no bands; if it is a container, export one of its subdatasets")
    if len(set(dataset.dtypes)) > 1:
        raise UnusableRaster(path, f"its bands have different types ({', '.join(dataset.dtypes)}); give them one")
    if dataset.dtypes[0].startswith("complex"):
        raise UnusableRaster(path, "its values are complex numbers, which are no depths; export the real part")
    transform = dataset.transform
    if abs(transform.b) > 1e-9 * abs(transform.a) or abs(transform.d) > 1e-9 * abs(transform.e):
        reason = "its grid is rotated or skewed, not aligned north up; warp it to a regular grid first (gdalwarp)"
        raise UnusableRaster(path, reason)
    if dataset.crs is None:
        reason = "it has no coordinate reference system, so its place is unknown; assign one first (gdal_edit -a_srs)"
        raise UnusableRaster(path, reason)
    check_place(path, dataset)


def check_place(path: str, dataset: Any) -> None:
    """A raster that cannot be found on the globe would fail the catalog, and with it all the others."""
    crs = crs_text(dataset.crs)
    if not (dataset.crs.is_geographic or dataset.crs.is_projected):
        reason = f"its coordinate system {crs} is neither geographic nor projected; assign one that is"
        raise UnusableRaster(path, reason)
    try:
        box = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        reason = f"its place in {crs} has no longitude and latitude ({error}); assign the right coordinate system"
        raise UnusableRaster(path, reason) from error
    west, south, east, north = box
    # Grids from 0 to 360 degrees exist, and such whose outermost pixel centres lie on the poles.
    if not (max(abs(west), abs(east)) <= 540 and max(abs(south), abs(north)) <= 91):  # noqa: PLR2004 - false for NaN too
        bounds = ", ".join(f"{value:g}" for value in dataset.bounds)
        reason = f"its bounds ({bounds}) lie outside of its coordinate system {crs}; assign the right one"
        raise UnusableRaster(path, reason)


def read_every_block(path: str, dataset: Any) -> bool:
    """Read all pixels, so that damage is found before anything is written; true when the values are classes."""
    palette = dataset.colorinterp[0] is ColorInterp.palette
    countable = dataset.count == 1 and dataset.dtypes[0] == "uint8"
    seen = np.zeros(256, dtype=bool)
    has_mask = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    for window in read_windows(dataset):
        try:
            pixels = dataset.read(window=window)
            if has_mask:
                dataset.dataset_mask(window=window)
        except RasterioError as error:
            where = f"rows {window.row_off} to {window.row_off + window.height - 1}"
            raise UnusableRaster(path, f"its data is damaged in {where} ({cause(error)}); get a fresh copy") from error
        if countable:
            seen[np.unique(pixels)] = True
    return palette or (countable and int(seen.sum()) <= MOST_CLASSES)


def cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def choose_resampling(wanted: str, *, categorical: bool) -> tuple[str, str]:
    """Names of the methods for the warp and for the overviews."""
    if wanted == "auto":
        return ("nearest", "mode") if categorical else ("bilinear", "average")
    return wanted, wanted if wanted in OVERVIEW_RESAMPLING else "average"


def creation_options(dtype: str, tile_size: int, compression: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "driver": "GTiff",
        "interleave": "pixel",
        "tiled": True,
        "blockxsize": tile_size,
        "blockysize": tile_size,
        "compress": compression.upper(),
        "BIGTIFF": "IF_SAFER",
    }
    if compression == "lerc":
        # Lossless: depths are measurements.
        return {**options, "MAX_Z_ERROR": 0}
    return {**options, "predictor": 3 if dtype.startswith("float") else 2}


def overview_levels(width: int, height: int, tile_size: int) -> int:
    """Halvings until the longer side fits one tile: a long narrow raster needs them as well."""
    levels = 0
    while max(width, height) >> levels > tile_size:
        levels += 1
    return levels


def palette_of(dataset: Any) -> dict[int, Any] | None:
    return dataset.colormap(1) if dataset.count == 1 and dataset.colorinterp[0] is ColorInterp.palette else None


def result_of(source: str, path: str) -> dict[str, Any]:
    with open_raster(path) as dataset:
        described = {
            "name": PurePosixPath(path).name,
            "source": source,
            **describe(dataset),
            "compression": dataset.compression.value.lower(),
            "tile_size": dataset.block_shapes[0][0],
            "overviews": dataset.overviews(1),
            "bytes": size_of(path),
        }
    return {**described, "statistics": flood_statistics(path)}
