"""Writing what a plan says: perhaps a reprojected copy, then the COG by GDAL's own driver."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from jobs.flood_risk_cog.bent_rows import TOLERANCE, has_bent_rows
from jobs.flood_risk_cog.facts import CELL, MOST_WINDOW_BYTES, DamagedRaster, cause, read_pieces, windows
from jobs.flood_risk_cog.footprint import end_of_globe
from jobs.flood_risk_cog.ground import OF_KERNELS, kernel_scales, sides
from jobs.flood_risk_cog.neighbours import alpha_of
from jobs.flood_risk_cog.nodata import PER_BAND
from jobs.flood_risk_cog.plan import WHOLE_BYTES, ConversionPlan, UnusableRaster, check_place
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.target_grid import (
    COARSEST,
    FEW,
    FIRST_TO_4326,
    TOO_FEW,
    chosen_grid,
    counted_from_its_middle,
    is_across_its_seam,
    is_no_grid,
)
from jobs.flood_risk_cog.torn_pixels import OF_AREAS, may_be_torn, torn_pixels
from jobs.flood_risk_cog.written import ValueChecksums

Progress = Callable[[float], None]

WARP_MEGABYTES = 64
# How the driver keeps overviews until they are in the COG. Its own choice (zstd, level 9) takes a fifth of its time,
# level 1 a twelfth. Those of several bands are read again and again: compressed ones are quicker then.
TEMPORARY = {"COG_TMP_COMPRESSION": "ZSTD", "ZSTD_LEVEL_OVERVIEW": 1}
TEMPORARY_OF_ONE_BAND = {"COG_TMP_COMPRESSION": "NONE"}
MOST_UNCOMPRESSED = 256 << 20
# Of pixels that overviews are made of at once, in bytes: GDAL's own bound, and the most that fits beside its cache.
USUAL_CHUNK, MOST_CHUNK = 10 << 20, 144 << 20
# How many more pixels than two a pixel methods look at, along a side of a tile.
BEYOND_TILE = 64
# Of a pixel, so that windows are as wide as the blocks in which GDAL warps: a row is not longer than one of these.
ONE_CELL = MOST_WINDOW_BYTES
_TOLERANCE, _EXACT = re.compile(r"<MaxError>[^<]*</MaxError>"), "<MaxError>0</MaxError>"
# Which part of the source a piece needs GDAL finds by some of its places, and misses pixels where a projection bends.
_EACH_PLACE = '<Option name="SAMPLE_GRID">YES</Option><Option name="SAMPLE_STEPS">ALL</Option>'
COMPUTED_AS_THEY_ARE = {"uint8", "uint16", "float32"}
# Measured on the source's grid, they are none of the reprojected one's.
_MEASURED = "STATISTICS_"


def write_warped(
    path: str, dataset: Any, target: Path, plan: ConversionPlan, progress: Progress
) -> ValueChecksums | None:
    """Reproject into a plain GeoTIFF whose mask, nodata, palette and metadata are as the COG's are to be.

    Args:
        path: As people know the raster, for messages.
        dataset: What is read.

    Returns:
        The checksums of what was written; None of types of fewer bits (NBITS), which round what they are given.
    """
    checksums = None if plan.nbits else ValueChecksums(has_mask=plan.validity == "mask")
    with ExitStack() as stack:
        if plan.fill_nodata:
            filled = target.with_name("filled.tiff")
            _write_filled(dataset, filled, plan)
            dataset = stack.enter_context(open_raster(str(filled)))
        warped = stack.enter_context(_warped(path, dataset, plan))
        _check_grid(path, dataset, warped, plan)
        read = stack.enter_context(_reader(path, dataset, warped, target, plan))
        end = end_of_globe(warped)
        profile = plain_profile(dataset, plan) | {
            "width": warped.width,
            "height": warped.height,
            "crs": warped.crs,
            "transform": warped.transform,
        }
        # Of masks beside a file GDAL makes another file; inside, it travels with the values.
        stack.enter_context(rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True))
        with rasterio.open(target, "w", **profile) as written:
            copy_descriptions(dataset, written)
            done, total = 0, warped.width * warped.height
            for window in windows(warped.width, warped.height, ONE_CELL):
                try:
                    values, valid = read(window)
                    if end is not None:
                        _hide(values, valid, ~end.is_on_globe_in(window), plan, alpha_of(dataset))
                    written.write(values, window=window)
                    if plan.validity == "mask":
                        written.write_mask(valid, window=window)
                except CPLE_BaseError as error:
                    raise DamagedRaster("it", cause(error)) from error
                if checksums is not None:
                    checksums.see(window, list(range(1, len(values) + 1)), values, np.broadcast_to(valid, values.shape))
                done += window.width * window.height
                progress(done / total)
    return checksums


@contextmanager
def _reader(
    path: str, dataset: Any, warped: Any, target: Path, plan: ConversionPlan
) -> Iterator[Callable[[Window], tuple[Any, Any]]]:
    """What reads a window of a warped dataset: values (bands, rows, columns) and which pixels its mask has."""
    bands = [number for number in range(1, warped.count + 1) if not _is_added(warped, dataset, number)]
    alpha = _alpha_beside_nodata(dataset, plan)
    with ExitStack() as stack:

        def reads(name: str, other: ConversionPlan | None = None) -> Callable[[Window], tuple[Any, Any]]:
            one = warped if other is None else stack.enter_context(_warped(path, dataset, other))
            choose = stack.enter_context(_by_window(dataset, one, target.with_name(f"{name}.vrt")))

            def read_one(window: Window) -> tuple[Any, Any]:
                here = choose(window)
                # All bands: one alone GDAL places a bit otherwise.
                values = _as(np.dtype(dataset.dtypes[0]), here.read(bands, window=window))
                has_mask = plan.validity == "mask"
                return values, here.read(warped.count, window=window) > 0 if has_mask else np.ones(
                    values.shape[1:], bool
                )

            return read_one

        read_area = reads("warped")
        # GDAL has one nodata for all bands, and takes it for a hole in the alpha band too: that is read without.
        read_alpha = reads("alpha", replace(plan, nodata=None)) if alpha else None
        is_of_areas = plan.warp_resampling in OF_AREAS and may_be_torn(dataset) and not alpha
        read_middle = reads("middle", replace(plan, warp_resampling="nearest")) if is_of_areas else None

        def read(window: Window) -> tuple[Any, Any]:
            values, valid = read_area(window)
            if read_alpha is not None:
                values[alpha - 1] = read_alpha(window)[0][alpha - 1]
            if read_middle is not None and (torn := torn_pixels(dataset, warped, window)) is not None:
                middles, is_there = read_middle(window)
                values[:, torn], valid[torn] = middles[:, torn], is_there[torn]
            return values, valid

        yield read


def check_target_grid(path: str, dataset: Any, plan: ConversionPlan) -> None:
    """Refuse a grid on which it would lose what it has; no pixel is read."""
    with _warped(path, dataset, plan) as warped:
        _check_grid(path, dataset, warped, plan)


def _check_grid(path: str, dataset: Any, warped: Any, plan: ConversionPlan) -> None:
    if not (warped.width and warped.height):
        raise _no_grid(path, plan, "it has no pixel")
    if not all(map(math.isfinite, warped.transform)):
        raise _no_grid(path, plan, "its edge has no place")
    if is_no_grid(warped.transform):
        if max(dataset.width, dataset.height) > FEW:
            raise _no_grid(path, plan, "its pixels have no size")
        raise UnusableRaster(path, f"reprojected to {plan.target_crs}, it would have pixels without a size; {TOO_FEW}")
    check_place(path, warped)
    check_coarseness(path, dataset, warped.crs, warped.transform, plan)


def check_coarseness(path: str, dataset: Any, crs: Any, grid: Any, plan: ConversionPlan) -> None:
    """Refuse a grid that is much coarser than the source: across a seam or a pole it spans the world."""
    found = sides(dataset, crs, grid).mean
    if found > COARSEST:
        size = f"pixels {found:.3g} times as large as its own" if math.isfinite(found) else "no place for most of it"
        across, down = abs(dataset.transform.a), abs(dataset.transform.e)
        if math.isfinite(found) and max(across, down) > COARSEST * min(across, down):
            reason = f"as its pixels are no squares ({across:g} x {down:g}); give it such first (gdalwarp -tr)"
            raise UnusableRaster(path, f"reprojected to {plan.target_crs}, it would have {size}, {reason}")
        if is_across_its_seam(dataset, crs):
            reason = f"as it lies across 180 degrees and on another datum than that; {FIRST_TO_4326}"
            raise UnusableRaster(path, f"reprojected to {plan.target_crs}, it would have {size}, {reason}")
        raise _no_grid(path, plan, f"it would have {size}")


def _no_grid(path: str, plan: ConversionPlan, found: str) -> UnusableRaster:
    if plan.web is not None:
        why = "as it lies across the antimeridian, where web maps end"
        advice = "set target_crs to EPSG:3857 in the place of web_optimized, or to a system of its region"
    else:
        why = "as it lies across the seam of that system, at a pole or outside of it"
        advice = "choose a target_crs of its region, or leave it out"
    return UnusableRaster(path, f"reprojected to {plan.target_crs}, {found}, {why}; {advice}")


@contextmanager
def _warped(path: str, dataset: Any, plan: ConversionPlan) -> Iterator[Any]:
    options: dict[str, Any] = {"resampling": Resampling[plan.warp_resampling], "warp_mem_limit": WARP_MEGABYTES}
    target = CRS.from_user_input(plan.target_crs)
    if plan.validity == "nodata":
        # Each band by its own: else a pixel that is nodata in one of them is mixed into its neighbours.
        options |= {"src_nodata": plan.nodata, "nodata": plan.nodata, "UNIFIED_SRC_NODATA": "NO"}
    elif plan.validity == "mask":
        options |= {"add_alpha": True}
    elif plan.validity == "alpha":
        # Left out, it is that of the dataset.
        options |= {"src_nodata": plan.nodata, "nodata": plan.nodata, "UNIFIED_SRC_NODATA": "NO"}
    if plan.most_alpha is not None:
        options |= {"SRC_ALPHA_MAX": repr(plan.most_alpha)}
    if (grid := plan.web or plan.grid) is not None:
        options |= {"transform": grid.transform, "width": grid.width, "height": grid.height}
        if (unwrapped := counted_from_its_middle(dataset, target)) is not None:
            options |= {"src_crs": unwrapped[0], "src_transform": unwrapped[1]}
    if plan.warp_resampling in OF_KERNELS:
        # GDAL would guess it of each piece by its shape: where rows are bent, it mixed pixels far from each other.
        across, down = kernel_scales(dataset, target, _grid(dataset, target, plan))
        options |= {"XSCALE": repr(across), "YSCALE": repr(down)}
    try:
        warped = WarpedVRT(dataset, crs=target, tolerance=TOLERANCE, **options)
    except (RasterioError, CPLE_BaseError) as error:
        reason = f"it cannot be reprojected to {plan.target_crs} ({error}); choose a target_crs that covers its place"
        raise UnusableRaster(path, reason) from error
    with warped:
        yield warped


def _grid(dataset: Any, target: CRS, plan: ConversionPlan) -> Any:
    if (grid := plan.web or plan.grid) is not None:
        return grid.transform
    return chosen_grid(dataset, target).transform


@contextmanager
def _by_window(dataset: Any, warped: Any, virtual: Path) -> Iterator[Callable[[Window], Any]]:
    """What to read a window of at most a cell from: a warped dataset, or an exact one where its rows may be bent.

    Args:
        virtual: For a file that is made where it is needed. GDAL takes a tolerance of 0 only there.
    """
    with ExitStack() as stack:
        exact: list[Any] = []

        def choose(window: Window) -> Any:
            if not has_bent_rows(dataset, warped.crs, warped.transform, window):
                return warped
            if not exact:
                copy(warped, virtual, driver="VRT")
                text, count = _TOLERANCE.subn(_EXACT, virtual.read_text(encoding="utf-8"))
                if count != 1:
                    raise RuntimeError(f"expected one tolerance in what GDAL writes of a warp, found {count}")
                text = text.replace("<GDALWarpOptions>", f"<GDALWarpOptions>{_EACH_PLACE}", 1)
                virtual.write_text(text, encoding="utf-8")
                exact.append(stack.enter_context(rasterio.open(virtual, driver="VRT", sharing=False)))
            return exact[0]

        yield choose


def _hide(values: Any, valid: Any, hidden: Any, plan: ConversionPlan, alpha: int | None) -> None:
    """Leave pixels (rows, columns) without a value, in place.

    Off the globe PROJ counts longitudes on for some projections (sinusoidal, Equal Earth): there, GDAL puts what is on
    the other side of the globe.
    """
    values[:, hidden] = 0 if plan.nodata is None else plan.nodata
    valid[hidden] = False
    if alpha:
        values[alpha - 1, hidden] = 0


def _as(dtype: Any, values: Any) -> Any:
    """Signed bytes are warped as a wider type, which methods such as cubic may fill beyond theirs."""
    if values.dtype == dtype:
        return values
    limits = np.iinfo(dtype)
    return values.clip(limits.min, limits.max).astype(dtype)


def _alpha_beside_nodata(dataset: Any, plan: ConversionPlan) -> int:
    """The number of the alpha band of a raster that hides by it and by nodata; else 0."""
    if plan.validity != "alpha" or plan.nodata is None:
        return 0
    return int(dataset.colorinterp.index(ColorInterp.alpha)) + 1


def _is_added(warped: Any, dataset: Any, number: int) -> bool:
    """Whether this band is the alpha that the warp added."""
    return bool(number > dataset.count and warped.count == dataset.count + 1)


def plain_profile(dataset: Any, plan: ConversionPlan) -> dict[str, Any]:
    tile = CELL**2 * dataset.count * np.dtype(dataset.dtypes[0]).itemsize
    profile = {
        # A tile of many bands would be in memory several times, stored and decoded.
        "interleave": "band" if tile > MOST_WINDOW_BYTES else "pixel",
        "driver": "GTiff",
        "count": dataset.count,
        "dtype": dataset.dtypes[0],
        "nodata": plan.nodata,
        "tiled": True,
        "blockxsize": CELL,
        "blockysize": CELL,
        "compress": "zstd",
        "zstd_level": 1,
        "BIGTIFF": "IF_SAFER",
    }
    return profile | ({"nbits": plan.nbits} if plan.nbits else {})


def _write_filled(dataset: Any, target: Path, plan: ConversionPlan) -> None:
    """The source on its own grid, with nodata where its mask hides values or NaN is: a warp heeds nodata alone."""
    profile = plain_profile(dataset, plan) | {
        "width": dataset.width,
        "height": dataset.height,
        "crs": dataset.crs,
        "transform": dataset.transform,
    }
    with rasterio.open(target, "w", **profile) as written:
        copy_descriptions(dataset, written)
        for window, numbers, values, valid in read_pieces(dataset):
            known = valid & ~np.isnan(values) if values.dtype.kind == "f" else valid
            written.write(np.where(known, values, values.dtype.type(plan.nodata)), numbers, window=window)


def copy_descriptions(source: Any, target: Any) -> None:
    """All that describes the values, but for measurements of the old grid."""
    target.colorinterp = source.colorinterp
    if source.colorinterp[0] is ColorInterp.palette:
        # rasterio raises where a band is called a palette and has no table.
        with suppress(ValueError):
            target.write_colormap(1, source.colormap(1))
    target.scales, target.offsets, target.units = source.scales, source.offsets, [unit or "" for unit in source.units]
    for namespace in [None, *_kept_domains(source.tag_namespaces())]:
        tags = source.tags(ns=namespace)
        # What it hides is in the mask then, beside which GDAL writes no other.
        tags.pop(PER_BAND, None)
        target.update_tags(ns=namespace, **_as_one_text(namespace, tags))
    for number in range(1, source.count + 1):
        if source.descriptions[number - 1]:
            target.set_band_description(number, source.descriptions[number - 1])
        for namespace in [None, *_kept_domains(source.tag_namespaces(number))]:
            tags = {
                name: text for name, text in source.tags(number, ns=namespace).items() if not name.startswith(_MEASURED)
            }
            target.update_tags(number, ns=namespace, **tags)


def _as_one_text(namespace: str | None, tags: dict[str, str]) -> dict[str, str]:
    """Tags as rasterio is to set them: a domain of XML is one text, which it takes in the form of name=text alone."""
    if namespace is None or not namespace.startswith("xml:"):
        return tags
    name, _, rest = tags[namespace].partition("=")
    return {name: rest} if rest else {}


def _own_domains(namespaces: list[str]) -> list[str]:
    """Domains that a file holds, without those that GDAL computes."""
    return [name for name in namespaces if name not in {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS"}]


def _kept_domains(namespaces: list[str]) -> list[str]:
    """Those that are about the values: others place the old grid's pixels, which the new one's are not."""
    return [name for name in _own_domains(namespaces) if name not in {"RPC", "GEOLOCATION"}]


def write_tiled(dataset: Any, target: Path, rows: int) -> None:
    """The same raster in tiles of few rows: each block of the source is read once, whatever its shape."""
    options = {"TILED": True, "BLOCKXSIZE": CELL, "BLOCKYSIZE": rows, "COMPRESS": "ZSTD", "ZSTD_LEVEL": 1}
    across = math.ceil(dataset.width / CELL) * CELL
    # Else GDAL copies in pieces that are as large as its cache allows, or smaller than a row of tiles.
    swath = across * rows * dataset.count * np.dtype(dataset.dtypes[0]).itemsize
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_SWATH_SIZE=swath):
        copy(dataset, target, driver="GTiff", INTERLEAVE="PIXEL", BIGTIFF="IF_SAFER", **options)


def write_cog(dataset: Any, target: Path, plan: ConversionPlan) -> None:
    """The COG of an open GeoTIFF that has everything already, its fingerprint too."""
    options: dict[str, Any] = {
        "BLOCKSIZE": plan.tile_size,
        "COMPRESS": plan.compression.upper(),
        # Of a raster that needs none, GDAL would keep those that it came with.
        "OVERVIEWS": "IGNORE_EXISTING" if max(dataset.width, dataset.height) > plan.tile_size else "NONE",
        "OVERVIEW_RESAMPLING": plan.overview_resampling.replace("_", "").upper(),
        "BIGTIFF": "IF_SAFER",
    }
    if plan.compression == "lerc":
        # Lossless: depths are measurements.
        options["MAX_Z_ERROR"] = 0
    elif plan.nbits is None or plan.nbits in WHOLE_BYTES:
        options["PREDICTOR"] = "YES"
    if _own_domains(dataset.tag_namespaces()) and not any(
        dataset.tags(number) for number in range(1, dataset.count + 1)
    ):
        # It keeps other domains, and loses what bands have in the default one.
        options["COPY_SRC_MDD"] = "YES"
    chunk = {"GDAL_OVR_CHUNK_MAX_SIZE": _chunk_bytes(dataset, plan.tile_size)}
    with rasterio.Env(**_temporary_of(dataset), **chunk, GDAL_PAM_ENABLED=False):
        copy(dataset, target, driver="COG", **options)


def _chunk_bytes(dataset: Any, tile_size: int) -> int:
    """Of what GDAL makes overviews at once: all bands of the pixels below one tile.

    Where it may not have as much, it takes another way, on which pixels of overviews at the edge of a mask are valid
    and 0.
    """
    dtype = np.dtype(dataset.dtypes[0])
    # Of other types it computes in double precision.
    bytes_each = dtype.itemsize if dtype.name in COMPUTED_AS_THEY_ARE else 8
    needed = (2 * tile_size + BEYOND_TILE) ** 2 * (dataset.count * bytes_each + 1)
    return needed if USUAL_CHUNK < needed <= MOST_CHUNK else USUAL_CHUNK


def _temporary_of(dataset: Any) -> dict[str, Any]:
    """Overviews together are a third of the full size."""
    overviews = dataset.width * dataset.height * np.dtype(dataset.dtypes[0]).itemsize // 3
    return TEMPORARY_OF_ONE_BAND if dataset.count == 1 and overviews <= MOST_UNCOMPRESSED else TEMPORARY
