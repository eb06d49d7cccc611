"""What becomes of a raster: decided once from what it is, before anything is written."""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, RasterioError

from jobs.flood_risk_cog.facts import CELL, Facts, windows
from jobs.flood_risk_cog.footprint import NoFootprint, footprint_of, is_partly_off_globe
from jobs.flood_risk_cog.ground import around
from jobs.flood_risk_cog.inventory import crs_text
from jobs.flood_risk_cog.memory import MEGABYTE, MOST_BLOCK_BYTES
from jobs.flood_risk_cog.neighbours import OF_SQUARES
from jobs.flood_risk_cog.nodata import (
    AUX,
    PER_BAND,
    exact_nodata,
    has_nodata,
    problem_outside,
    problem_with_nodata,
)
from jobs.flood_risk_cog.places import (
    COMPUTABLE_CRS,
    NAMED_CRS,
    PLANE_CRS,
    has_heights,
    heights_of,
    is_computable,
    is_named_crs,
    without_heights,
)
from jobs.flood_risk_cog.remote import is_remote
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.stage import MASK, WORLD_FILES
from jobs.flood_risk_cog.target_grid import (
    FIRST_TO_4326,
    MERCATOR_ENDS,
    TargetGrid,
    is_across_its_seam,
    lost_rows,
    own_grid,
    reaches_beyond,
    whole_grid,
)
from jobs.flood_risk_cog.tiff import full_size_directories, page_of_larger_image
from jobs.flood_risk_cog.torn_pixels import OF_AREAS, may_be_torn
from jobs.flood_risk_cog.web_grid import WEB_MERCATOR, WebGrid, web_grid

Kind = Literal["continuous", "classes"]
Validity = Literal["all", "nodata", "mask", "alpha"]

KINDS = ("auto", "continuous", "classes")
OVERVIEW_RESAMPLING = {"nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "gauss", "rms"}
# GDAL cannot reproject by it.
ONLY_OF_OVERVIEWS = {"gauss"}
# They give one of the values that they are given.
OF_CLASSES = {"nearest", "mode", "min", "max"}
# And these one of them, or what is between two; none computes with infinities.
OF_ORDER = OF_CLASSES | {"med", "q1", "q3"}
# GDAL leaves out pixels whose alpha is a smaller part of the highest, unless it takes averages or one of the values.
LEAST_ALPHA = 1e-4
LEAST_TILE = 256
# GDAL has so many tiles of all bands in memory while it writes a COG; measured with tiles of 16 to 96 MB.
TILES_AT_ONCE, TILES_OF_AN_OVERVIEW = 3, 2.5
# What a warp leaves to the write that follows it.
WARP_BYTES = 96 * MEGABYTE
NO_LERC = {"int64", "uint64"}
# GDAL reprojects in double precision.
MOST_EXACT = 1 << 53
# Whose alpha bands GDAL takes as masks when it makes overviews.
ALPHA_TYPES = {"uint8", "uint16"}
# Of values of which a GeoTIFF has palettes.
PALETTE_TYPES, OPAQUE = {"uint8", "uint16"}, 255
# Of whose values GDAL's mode lacks -1 in a reprojection: it counts them in bins, and has -1 for none.
MODE_LACKS = {"int8", "int16"}
# Whose negative nodata GDAL's mode does not know.
SIGNED = {"int16", "int32", "int64"}
# GDAL's flags of a mask of all bands; it writes no others inside of a raster.
PER_DATASET = 2
_BEGIN = re.compile(r"\s*[+-]?\d{1,9}")
# Of a pixel: less, over the whole raster, is a rounded digit.
MOST_SKEW = 1e-3
# What a predictor of TIFF works on.
WHOLE_BYTES = {"8", "16", "32", "64"}


class UnusableRaster(ValueError):
    """No attempt can make a COG of this raster; `reason` tells a person why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{PurePosixPath(path).name}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class ConversionOptions:
    """What was asked for; see `convert_raster`."""

    target_crs: str | None = None
    tile_size: int = 512
    compression: str = "deflate"
    resampling: str = "auto"
    kind: str = "auto"
    web_optimized: bool = False

    def __post_init__(self) -> None:
        is_warped = self.target_crs is not None or self.web_optimized
        resampling = set(Resampling.__members__) - (ONLY_OF_OVERVIEWS if is_warped else set())
        for name, value, allowed in (
            ("tile_size", self.tile_size, (256, 512)),
            ("compression", self.compression, ("deflate", "zstd", "lerc")),
            ("resampling", self.resampling, ("auto", *sorted(resampling))),
            ("kind", self.kind, KINDS),
        ):
            if value not in allowed:
                raise ValueError(f"expected {name} to be one of {', '.join(map(str, allowed))}, found {value!r}")
        if self.target_crs is not None:
            check_target(self.target_crs)
            if self.web_optimized and CRS.from_user_input(self.target_crs) != CRS.from_user_input(WEB_MERCATOR):
                raise ValueError(f"expected web_optimized without target_crs, found {self.target_crs!r}; leave one out")

    @property
    def as_json(self) -> dict[str, Any]:
        return {
            "crs": self.target_crs,
            "tile": self.tile_size,
            "compression": self.compression,
            "resampling": self.resampling,
            "kind": self.kind,
            "web": self.web_optimized,
        }


@dataclass(frozen=True)
class Placement:
    """Where a raster is put, which its header decides.

    Args:
        grid: Where GDAL's own choice would be wrong.
        web: Where web maps are to show it.
        changed: In words, what of it has no place there.
    """

    grid: TargetGrid | None = None
    web: WebGrid | None = None
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConversionPlan:
    """How one raster is converted.

    Args:
        warped: Whether it is reprojected; else every pixel stays where and what it is.
        target_crs: What it is reprojected to.
        kind: Classes are never averaged.
        validity: How the source says which pixels are valid, and the result after it: all are, those other than
            `nodata`, those of a mask, those of an alpha band.
        fill_nodata: The source has a mask and nodata, or NaN beside one of them: where the mask hides, and in the place
            of NaN, nodata is written before the warp.
        nodata: Of the result.
        placement: The grid that it is put on.
        warp_resampling, overview_resampling: Names of GDAL's methods.
        most_alpha: The highest value of its alpha band; GDAL would take what is usual for the type.
        changed: In words, what is meant to differ from the source.
    """

    warped: bool
    target_crs: str | None
    kind: Kind
    validity: Validity
    fill_nodata: bool
    nodata: float | None
    warp_resampling: str
    overview_resampling: str
    tile_size: int
    compression: str
    nbits: str | None = None
    most_alpha: float | None = None
    placement: Placement = field(default=Placement())
    changed: tuple[str, ...] = field(default=())

    @property
    def grid(self) -> TargetGrid | None:
        return self.placement.grid

    @property
    def web(self) -> WebGrid | None:
        return self.placement.web


def make_plan(
    path: str, dataset: Any, facts: Facts, options: ConversionOptions, placement: Placement | None = None
) -> ConversionPlan:
    """Decide about an open source whose pixels were read.

    Args:
        placement: Of an earlier plan for the same source and options, which need not be computed again.

    Raises:
        UnusableRaster: It cannot be converted so.
    """
    kind = kind_of(dataset, facts, options.kind)
    target_crs = WEB_MERCATOR if options.web_optimized else options.target_crs
    target = CRS.from_user_input(target_crs) if target_crs else None
    warped = is_warped(dataset, options)
    warp, overview = choose_resampling(options.resampling, kind)
    found, nodata, changed, fill_nodata = validity_of(dataset), dataset.nodata, [], False
    if kind == "classes" and options.resampling not in {"auto", *OF_CLASSES}:
        changed.append(f"its classes are not mixed: nearest and mode in the place of {options.resampling}")
    if warped:
        warp, words = _right_warp(dataset, facts, options, warp)
        changed += words
        check_warp(path, dataset)
        check_exact(path, dataset, facts)
        check_computable(path, dataset, facts, warp)
        changed += _faint_pixels(dataset, facts)
        if PER_BAND in dataset.tags() and found == "mask":
            changed.append(f"its {PER_BAND} become a mask")
        found, nodata, fill_nodata, words = hidden_after_warp(facts, found, nodata)
        changed += words
        changed += _words_of_method(dataset, facts, warp)
    if placement is None:
        placement = _placement_of(path, dataset, target, options) if warped and target is not None else Placement()
    changed += [*placement.changed, *_lost_to_lerc(options, found), *_of_heights(dataset, warped=warped)]
    changed += _grades_of_mask(dataset)
    overview = _right_overviews(overview, found, nodata, dataset, facts, warped=warped)
    return ConversionPlan(
        warped=warped,
        target_crs=target_crs if warped else None,
        kind=kind,
        validity=found,
        fill_nodata=fill_nodata,
        nodata=nodata,
        warp_resampling=warp,
        overview_resampling=overview,
        tile_size=options.tile_size,
        compression=options.compression,
        placement=placement,
        nbits=dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS"),
        most_alpha=most_alpha_of(dataset, facts),
        changed=tuple(changed),
    )


def _right_warp(dataset: Any, facts: Facts, options: ConversionOptions, method: str) -> tuple[str, list[str]]:
    """The method of a reprojection, or in its place one that GDAL computes right, and why in words."""
    if method == "mode" and dataset.dtypes[0] in MODE_LACKS and is_among(-1, facts):
        return "nearest", ["nearest in the place of mode, for which GDAL takes -1 for no value"]
    if options.resampling == "auto" and (why := _why_not_mixed(dataset, facts)):
        return "nearest", [] if method == "nearest" else [f"its values are not mixed, as {why}"]
    return method, []


def _words_of_method(dataset: Any, facts: Facts, method: str) -> list[str]:
    """What a method does not keep in a reprojection."""
    words = []
    is_alpha_beside_nodata = ColorInterp.alpha in dataset.colorinterp and dataset.nodata is not None
    if method in OF_AREAS and may_be_torn(dataset) and not is_alpha_beside_nodata:
        words.append("pixels at the end of the globe, over its seam or a pole have the value of their middle")
    if method == "nearest" and min(dataset.shape) == 1:
        words.append("some pixels of its line may fall between the pixels of the other grid, and are left out")
    if method not in OF_ORDER and any(band.has_infinity for band in facts.bands):
        words.append(f"what {method} makes of infinities and the pixels around them is infinite or no number")
    return words


def _right_overviews(
    method: str, found: Validity, nodata: float | None, dataset: Any, facts: Facts, *, warped: bool
) -> str:
    """The method of overviews, or in its place one that GDAL computes right."""
    if found == "alpha" and not warped and has_nodata(dataset):
        # It heeds nodata alone then, also one beyond the type, such as -10000 of bytes.
        return "nearest"
    if method == "bilinear" and found == "mask":
        # Beside what the mask hides GDAL makes valid zeros of it, from the second overview on.
        method = "average"
    hidden = exact_nodata(dataset)
    # GDAL computes averages in double precision, which makes another number of a larger one.
    is_exact = not (isinstance(hidden, int) and abs(hidden) > MOST_EXACT)
    return method if is_exact and makes_overviews_right(method, found, dataset.dtypes[0], nodata, facts) else "nearest"


def _placement_of(path: str, dataset: Any, target: CRS, options: ConversionOptions) -> Placement:
    changed = _beyond_mercator(path, dataset, target)
    if is_partly_off_globe(dataset):
        changed.append("pixels that are off the globe are left out")
    if options.web_optimized:
        return Placement(web=_web_grid(path, dataset, options.tile_size), changed=tuple(changed))
    grid, words = _grid_of(dataset, target)
    return Placement(grid=grid, changed=(*changed, *words))


def _grid_of(dataset: Any, target: CRS) -> tuple[TargetGrid | None, list[str]]:
    """The grid of a reprojection where GDAL's own would be wrong, and in words what it lacks."""
    if (own := own_grid(dataset, target)) is not None:
        return own, []
    grid, lacks_some = whole_grid(dataset, target)
    return grid, ["a part of it is left out, where its target_crs has no end"] if lacks_some else []


def _lost_to_lerc(options: ConversionOptions, found: Validity) -> list[str]:
    is_lost = options.compression == "lerc" and found == "alpha"
    return ["values where its alpha is 0 may become 0, as lerc keeps none there"] if is_lost else []


def _of_heights(dataset: Any, *, warped: bool) -> list[str]:
    """In words, what becomes of the heights of its coordinate system."""
    wkt = dataset.crs.to_wkt()
    if (heights := heights_of(wkt)) is None and without_heights(wkt) is None:
        return []
    name, unit = heights or ("ellipsoidal", "")
    if warped:
        return [f"its target_crs does not have the heights of its coordinate system ({name})"]
    # GDAL reads it from the coordinate system in a TIFF, and not from that in a metadata file.
    return (
        [] if heights is None or all(dataset.units) else [f"values that had no unit have that of its heights ({unit})"]
    )


def _why_not_mixed(dataset: Any, facts: Facts) -> str:
    """In words, what would be wrong with values that a warp computes; empty if nothing would."""
    if is_near_limit(dataset.dtypes[0], facts):
        return "sums of them would be beyond their type"
    if may_round_to_nodata(dataset, facts):
        return "what is between them could be rounded to its nodata"
    return ""


def is_warped(dataset: Any, options: ConversionOptions) -> bool:
    target = options.target_crs
    return options.web_optimized or (target is not None and CRS.from_user_input(target) != dataset.crs)


def hidden_after_warp(
    facts: Facts, found: Validity, nodata: float | None
) -> tuple[Validity, float | None, bool, list[str]]:
    """How a reprojected raster says what is valid: as ConversionPlan has it, with `fill_nodata`, and what changes."""
    # A warp makes NaN of each pixel around one that is a value.
    has_nan = any(band.has_nan for band in facts.bands) and not (nodata is not None and math.isnan(nodata))
    if found == "all":
        if has_nan:
            return "nodata", float("nan"), False, ["NaN, which was a value, is its nodata"]
        return "mask", None, False, ["a mask tells what lies outside of the source"]
    if found == "alpha":
        return found, nodata, False, []
    words = []
    if has_nan:
        nodata = float("nan") if nodata is None else nodata
        words.append(f"NaN, which was a value, becomes its nodata {nodata:g}")
    if found == "mask" and nodata is not None:
        words.append("its mask becomes nodata, and pixels that had this value under the mask are not valid any more")
        return "nodata", nodata, True, words
    return found, nodata, has_nan, words


def _beyond_mercator(path: str, dataset: Any, target: CRS) -> list[str]:
    """In words, what lies where the target has ended."""
    if not reaches_beyond(dataset, target):
        return []
    beyond = f"beyond {MERCATOR_ENDS} degrees of latitude"
    if not (lost := lost_rows(dataset, target)):
        return [f"pixels {beyond} are left out, as Mercator ends there"]
    if lost == dataset.height:
        raise UnusableRaster(path, f"it lies {beyond}, where Mercator ends; choose a target_crs of its region")
    return [f"{lost} of its {dataset.height} rows lie {beyond} and are left out, as Mercator ends there"]


def _web_grid(path: str, dataset: Any, tile_size: int) -> WebGrid:
    if is_across_its_seam(dataset, CRS.from_user_input(WEB_MERCATOR)):
        reason = "it lies across 180 degrees and on another datum than web maps, of which GDAL makes a part only"
        raise UnusableRaster(path, f"{reason}; {FIRST_TO_4326}")
    try:
        return web_grid(dataset, tile_size)
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        raise UnusableRaster(path, f"it cannot be put on the grid of web maps: {error}") from error


def kind_of(dataset: Any, facts: Facts, asked: str) -> Kind:
    """Classes are a palette's, or few whole numbers that nobody gave a scale, an offset or a unit."""
    # The numbers of a palette have no order, whatever is asked for, and an alpha band has no depths.
    if dataset.colorinterp[0] in {ColorInterp.palette, ColorInterp.alpha} or asked == "classes":
        return "classes"
    if asked == "continuous":
        return "continuous"
    is_measured = dataset.scales[0] != 1 or dataset.offsets[0] != 0 or bool(dataset.units[0])
    # Of a raster without a valid pixel nothing is known: it takes part as depths do.
    return "classes" if facts.classes and not is_measured else "continuous"


def makes_overviews_right(method: str, validity: Validity, dtype: str, nodata: float | None, facts: Facts) -> bool:
    """Whether GDAL's method leaves out what is not valid.

    Mode counts what a mask hides, and makes zeros of NaN and of a negative nodata of whole numbers. Every method
    mixes in what an alpha band of a type hides that GDAL takes for no mask.
    """
    has_nan = any(band.has_nan for band in facts.bands) or (nodata is not None and math.isnan(nodata))
    is_mixed = method not in {"nearest", "mode"}
    if is_mixed and validity in {"nodata", "mask"} and nodata is not None and is_among(nodata, facts):
        # An average that happens to be nodata would be a hole; GDAL makes another value of it, beside a mask too.
        return False
    if is_mixed and is_near_limit(dtype, facts, is_squared=method == OF_SQUARES):
        return False
    if validity == "alpha" and nodata is not None:
        return False
    if method == "mode" and (validity in {"mask", "alpha"} or has_nan):
        return False
    if method == "mode" and dtype in SIGNED and nodata is not None and nodata < 0:
        return False
    return validity != "alpha" or dtype in ALPHA_TYPES


def is_near_limit(dtype: str, facts: Facts, *, is_squared: bool = False) -> bool:
    """Whether sums of its values, or of their squares, would go beyond its type of floats."""
    if not dtype.startswith("float"):
        return False
    most = float(np.finfo(dtype).max) / 64
    if is_squared:
        # Computed in double precision.
        most = min(most, math.sqrt(float(np.finfo("float64").max) / 64))
    return any(abs(value) > most for band in facts.bands for value in (band.low, band.high) if value is not None)


def is_among(value: float, facts: Facts) -> bool:
    """Whether values, or what is between them, may be equal to it; one that is hidden by it is no value."""
    return any(
        band.low is not None and band.high is not None and band.low <= value <= band.high for band in facts.bands
    )


def check_form(path: str, dataset: Any, options: ConversionOptions) -> None:
    """Refuse what GDAL cannot write so; no pixel is needed to know it."""
    dtype = dataset.dtypes[0]
    if options.compression == "lerc" and dtype in NO_LERC:
        raise UnusableRaster(path, f"lerc cannot hold its type {dtype}; choose the compression deflate or zstd")
    if options.compression == "lerc" and dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS"):
        raise UnusableRaster(path, "lerc cannot hold values of fewer bits; choose the compression deflate or zstd")
    if min(dataset.width, dataset.height) == 1 and max(dataset.width, dataset.height) > options.tile_size:
        size = f"{dataset.width} x {dataset.height}"
        raise UnusableRaster(
            path, f"it is a line of {size} pixels, of which GDAL makes no overviews; put it into a wider raster"
        )
    check_bands(path, dataset, options.tile_size, warped=is_warped(dataset, options))


def with_tiles_that_fit(dataset: Any, options: ConversionOptions) -> ConversionOptions:
    """The options, with smaller tiles where those of all bands do not fit in memory otherwise."""
    if options.tile_size == LEAST_TILE or is_warped(dataset, options) or not _excess(dataset, options.tile_size):
        return options
    return options if _excess(dataset, LEAST_TILE) else replace(options, tile_size=LEAST_TILE)


def check_bands(path: str, dataset: Any, tile_size: int, *, warped: bool) -> None:
    """Refuse more bands than tiles of all of them can be made of within the bound of memory."""
    if warped:
        # Smaller ones take no less: the copy that was warped has these.
        tile_size = max(tile_size, CELL)
    if excess := _excess(dataset, tile_size, warped=warped):
        raise UnusableRaster(path, f"{excess}; divide its bands into several rasters (gdal_translate -b)")


def _excess(dataset: Any, tile_size: int, *, warped: bool = False) -> str:
    """In words, what tiles of all bands take beyond the bound of memory; empty where they fit."""
    tile = tile_size**2 * np.dtype(dataset.dtypes[0]).itemsize * dataset.count
    # A reprojected one may be as long as a diagonal.
    side = math.hypot(dataset.width, dataset.height) if warped else max(dataset.width, dataset.height)
    overviews = max(0, math.ceil(math.log2(side / tile_size)))
    most = MOST_BLOCK_BYTES - (WARP_BYTES if warped else 0)
    if (needed := tile * (TILES_AT_ONCE + overviews * TILES_OF_AN_OVERVIEW)) <= most:
        return ""
    return (
        f"tiles of {tile_size} x {tile_size} pixels of its {dataset.count} bands take {needed / MEGABYTE:.0f} MB "
        f"(overviews: {overviews}), and a conversion has {most // MEGABYTE} MB of memory for them"
    )


def validity_of(dataset: Any) -> Validity:
    flags = dataset.mask_flag_enums[0]
    if ColorInterp.alpha in dataset.colorinterp:
        return "alpha"
    if MaskFlags.per_dataset in flags:
        return "mask"
    return "nodata" if dataset.nodata is not None else "all"


def choose_resampling(wanted: str, kind: Kind) -> tuple[str, str]:
    """Names of the methods for the warp and for the overviews."""
    if kind == "classes":
        return wanted if wanted in OF_CLASSES else "nearest", "nearest" if wanted == "nearest" else "mode"
    if wanted == "auto":
        return "bilinear", "average"
    return wanted, wanted if wanted in OVERVIEW_RESAMPLING else "average"


def check_target(target_crs: str) -> None:
    """Raises ValueError for what is no geographic or projected system; nothing is opened that it may name."""
    if not is_named_crs(target_crs):
        raise ValueError(f"expected target_crs to be {NAMED_CRS}, found {target_crs[:100]!r}")
    try:
        target = CRS.from_user_input(target_crs)
    except CRSError as error:
        raise ValueError(f"expected target_crs such as EPSG:4326, found {target_crs!r}: {error}") from error
    if not (target.is_geographic or target.is_projected):
        raise ValueError(f"expected target_crs to be geographic or projected, found {target_crs!r}")
    if not is_computable(target_crs):
        raise ValueError(f"expected {COMPUTABLE_CRS}, found {target_crs!r}; choose another one")
    if has_heights(target_crs):
        raise ValueError(f"expected target_crs to be {PLANE_CRS}, found {target_crs!r}; give its horizontal part alone")


def check_warp(path: str, dataset: Any) -> None:
    """Refuse what cannot be reprojected as it is meant."""
    if problem := problem_outside(dataset):
        raise UnusableRaster(path, problem)
    if problem := problem_with_turns(dataset):
        raise UnusableRaster(path, problem)
    if ColorInterp.alpha in dataset.colorinterp and dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]:
        reason = "it has an alpha band and a mask; leave target_crs out, or write it with one of them (gdal_translate)"
        raise UnusableRaster(path, reason)
    if all(each is ColorInterp.alpha for each in dataset.colorinterp):
        raise UnusableRaster(path, "it has an alpha band and no other to reproject; leave target_crs out")


def problem_with_turns(dataset: Any) -> str | None:
    """Why a place would have two values: the raster goes around the globe more than once, by half a pixel at least."""
    turn, pixel = around(dataset.crs).turn if dataset.crs.is_geographic else 0.0, abs(dataset.transform.a)
    if not turn or dataset.width * pixel <= turn + pixel / 2:
        return None
    columns = round(turn / pixel)
    return (
        f"it goes around the globe more than once ({dataset.width} columns, a turn has {turn / pixel:.6g}), "
        "so places have two values; cut off what is there twice "
        f"(gdal_translate -srcwin 0 0 {columns} {dataset.height})"
    )


def check_computable(path: str, dataset: Any, facts: Facts, method: str) -> None:
    """Refuse a method that was asked for and whose results the type cannot hold."""
    if method in OF_ORDER:
        return
    # Others are summed in double precision, and an average never leaves its values.
    is_beyond = is_near_limit("float64", facts, is_squared=method == OF_SQUARES)
    if dataset.dtypes[0] == "float64" and method != "average" and is_beyond:
        most = max(abs(value) for band in facts.bands for value in (band.low, band.high) if value is not None)
        reason = f"its values go up to {most:g}, and what {method} computes of them is beyond float64"
        raise UnusableRaster(path, f"{reason}; give them a nodata value, or set resampling to nearest")
    if may_round_to_nodata(dataset, facts):
        reason = (
            f"its nodata {dataset.nodata:g} is among its values, and what {method} makes of others is rounded to it"
        )
        advice = "set resampling to nearest, or give it another nodata (gdal_edit -a_nodata)"
        raise UnusableRaster(path, f"{reason} in floats of few bits; {advice}")


def may_round_to_nodata(dataset: Any, facts: Facts) -> bool:
    """Whether a computed value can become nodata when it is written: floats of fewer bits are rounded only then."""
    has_few_bits = "NBITS" in dataset.tags(1, ns="IMAGE_STRUCTURE") and dataset.dtypes[0].startswith("float")
    # Beside a mask nodata is a value itself, and perhaps far from others.
    if not has_few_bits or dataset.nodata is None or validity_of(dataset) == "mask":
        return False
    return is_among(dataset.nodata, facts)


def most_alpha_of(dataset: Any, facts: Facts) -> float | None:
    """Of the highest value of an alpha band; None without one, or where it hides everything."""
    if ColorInterp.alpha not in dataset.colorinterp:
        return None
    most = facts.bands[dataset.colorinterp.index(ColorInterp.alpha)].high
    return float(most) if most is not None and most > 0 else None


def _faint_pixels(dataset: Any, facts: Facts) -> list[str]:
    """In words, what of an alpha band may be too little for GDAL."""
    most = most_alpha_of(dataset, facts)
    if most is None:
        return []
    values = facts.bands[dataset.colorinterp.index(ColorInterp.alpha)].classes
    is_whole = np.dtype(dataset.dtypes[0]).kind in "iu"
    known = values if values is not None else {1.0 if is_whole else math.ulp(0)}
    if not any(0 < value < most * LEAST_ALPHA for value in known):
        return []
    return [f"pixels whose alpha is less than {most * LEAST_ALPHA:g} (1/10,000 of the highest) may be left out"]


def _grades_of_mask(dataset: Any) -> list[str]:
    """In words, what becomes of a mask that has more than valid and hidden: that of a COG has one bit."""
    if validity_of(dataset) != "mask":
        return []
    low, high = 255, 0
    for window in windows(dataset.width, dataset.height, 1):
        mask = dataset.read_masks(1, window=window)
        if (shown := mask[mask > 0]).size:
            low, high = min(low, int(shown.min())), max(high, int(shown.max()))
    return [f"its mask has grades ({low} to {high}): all but 0 are valid"] if low < high else []


def check_exact(path: str, dataset: Any, facts: Facts) -> None:
    """Whole numbers that double precision cannot hold are not reprojected."""
    dtype = dataset.dtypes[0]
    if dtype not in {"int64", "uint64"}:
        return
    values = [value for band in facts.bands for value in (band.low, band.high) if value is not None]
    # The dataset's own is a double, or None where no double is equal to it.
    if (nodata := exact_nodata(dataset)) is not None:
        values.append(nodata)
    if any(abs(value) > MOST_EXACT for value in values):
        reason = (
            f"its {dtype} values go beyond 2^53, which reprojecting cannot keep; "
            "leave target_crs out, or export it as float64"
        )
        raise UnusableRaster(path, reason)


def check_source(path: str, dataset: Any) -> None:
    """Refuse what no COG can be made of, whatever its pixels are."""
    check_types(path, dataset)
    if (pages := len(dataset.subdatasets)) > 1:
        raise UnusableRaster(
            path, f"it has {pages} pages, and a COG has one; write each to a file (gdal_translate GTIFF_DIR:n:)"
        )
    if (page := page_of_larger_image(dataset.name)) is not None:
        reason = (
            f"its first image ({dataset.width} x {dataset.height}) is a preview of a larger one, which GDAL reads not"
        )
        raise UnusableRaster(path, f"{reason}; write that to a file (gdal_translate GTIFF_DIR:{page}:)")
    if not all(map(math.isfinite, (*dataset.scales, *dataset.offsets))):
        raise UnusableRaster(path, "its scale or offset is no finite number; give it one (gdal_edit -scale -offset)")
    if not all(dataset.scales):
        raise UnusableRaster(path, "its scale is 0, by which all values are the same; correct it (gdal_edit -scale)")
    if dataset.count > 1 and dataset.colorinterp[0] is ColorInterp.alpha:
        reason = "its first band, in which depths are measured, is an alpha band; put it last (gdal_translate -b)"
        raise UnusableRaster(path, reason)
    nodata = {repr(each) for each in dataset.nodatavals}
    if len(nodata) > 1:
        found = ", ".join(sorted(nodata))
        raise UnusableRaster(
            path, f"its bands have different nodata values ({found}), a GeoTIFF has one; give them one"
        )
    if problem := problem_with_nodata(dataset) or problem_with_palette(dataset):
        raise UnusableRaster(path, problem)
    check_grid(path, dataset)
    check_place(path, dataset)


def problem_with_palette(dataset: Any) -> str | None:
    """Why a GeoTIFF cannot hold the palette of an open raster, in words: that of a metadata file may be such."""
    if dataset.colorinterp[0] is not ColorInterp.palette:
        return None
    if (dtype := dataset.dtypes[0]) not in PALETTE_TYPES:
        types = " and ".join(sorted(PALETTE_TYPES))
        return (
            f"its palette is of values of the type {dtype}, and a GeoTIFF has palettes of {types} alone; convert it "
            f"(gdal_translate -ot UInt16), or remove ColorTable and ColorInterp from its {AUX}"
        )
    try:
        table = dataset.colormap(1)
    except ValueError:
        # rasterio's, of a band that is called a palette and has none: it stays so.
        return None
    for value, (*_, opacity) in table.items():
        if opacity != OPAQUE and value != dataset.nodata:
            return (
                f"its palette has a transparent colour (value {value}), and a palette in a GeoTIFF has none; set c4 to "
                f"{OPAQUE} in its {AUX}, or make the value its nodata (gdal_edit -a_nodata {value})"
            )
    return None


def check_masks(path: str, dataset: Any) -> None:
    """Refuse masks of single bands inside of the raster, which a COG cannot hold."""
    for number, flags in enumerate(dataset.mask_flag_enums, start=1):
        if not flags:
            raise UnusableRaster(path, _mask_of_one_band(number))


def _mask_of_one_band(number: int) -> str:
    return (
        f"band {number} has a mask of its own (per-band masks), and a GeoTIFF has one for all bands; "
        "give it one (gdal_translate -mask mask,1)"
    )


def check_mask_file(path: str, dataset: Any) -> None:
    """Refuse a mask beside the raster that has another size, or is no mask of all bands for GDAL."""
    beside = f"{dataset.name}{MASK}"
    # GDAL takes one inside of the raster first.
    if not Path(beside).is_file() or len(full_size_directories(dataset.name)) > 1:
        return
    with open_raster(beside, sidecars=False) as mask:
        tags = mask.tags()
        if mask.shape != dataset.shape:
            found, expected = (f"{each.width} x {each.height}" for each in (mask, dataset))
            raise UnusableRaster(
                path, f"its mask ({MASK}) has {found} pixels, and it has {expected}; remove the mask or make it anew"
            )
    for number in dataset.indexes:
        text = tags.get(tag := f"INTERNAL_MASK_FLAGS_{number}")
        # As GDAL reads a number.
        flags = _BEGIN.match(text or "")
        if flags and int(flags[0]) == PER_DATASET:
            continue
        if text is not None and (not flags or int(flags[0]) == 0):
            raise UnusableRaster(path, _mask_of_one_band(number))
        found = f"no {tag}" if text is None else f"{tag}={text[:20]}"
        reason = f"its mask file ({MASK}) has {found}, so that GDAL does not take it for a mask of all bands"
        raise UnusableRaster(path, f"{reason}; set {tag}=2 in it (gdal_edit -mo), or remove the file")


def check_types(path: str, dataset: Any) -> None:
    """Refuse bands of which nothing can be computed, not even their bytes: numpy has no complex integers."""
    if not dataset.count:
        raise UnusableRaster(path, "it has no bands; if it is a container, export one of its subdatasets")
    if len(set(dataset.dtypes)) > 1:
        raise UnusableRaster(path, f"its bands have different types ({', '.join(dataset.dtypes)}); give them one")
    if dataset.dtypes[0].startswith("complex"):
        raise UnusableRaster(path, "its values are complex numbers, which are no depths; export the real part")


def check_grid(path: str, dataset: Any) -> None:
    transform = dataset.transform
    if not all(map(math.isfinite, (transform.c, transform.f))):
        reason = f"its corner ({transform.c:g}, {transform.f:g}) is no place; assign one (gdal_edit -a_ullr)"
        raise UnusableRaster(path, reason)
    if not all(map(math.isfinite, transform)) or not (transform.is_identity or transform.determinant):
        size = f"{transform.a:g} x {transform.e:g}"
        raise UnusableRaster(
            path, f"its pixels have no size ({size}), so its place is unknown; assign one (gdal_edit -a_ullr)"
        )
    across, down = abs(transform.b) * dataset.height, abs(transform.d) * dataset.width
    if across > MOST_SKEW * abs(transform.a) or down > MOST_SKEW * abs(transform.e):
        reason = "its grid is rotated or skewed, not aligned north up; warp it to a regular grid first (gdalwarp)"
        raise UnusableRaster(path, reason)
    if dataset.rpcs is not None and (dataset.crs is None or transform.is_identity):
        reason = "it has a camera's model (RPC) and no grid; warp it to a regular grid first (gdalwarp -rpc)"
        raise UnusableRaster(path, reason)
    if dataset.crs is not None and transform.is_identity and (found := _world_file_beside(dataset)):
        reason = f"no position can be read from its world file ({found}); correct it: six numbers, one in each line"
        raise UnusableRaster(path, reason)
    if dataset.crs is not None and transform.is_identity:
        reason = "it has no position; bring its world file (.tfw), or assign one first (gdal_edit -a_ullr)"
        raise UnusableRaster(path, reason)
    if dataset.crs is None and dataset.gcps[0]:
        reason = "it has ground control points and no grid; warp it to a regular grid first (gdalwarp)"
        beside = Path(f"{dataset.name}{AUX}")
        if beside.is_file() and b"<GCPList" in beside.read_bytes():
            reason = f"its {AUX} has ground control points, which hide its own grid; remove GCPList or warp it"
        raise UnusableRaster(path, reason)
    if dataset.crs is None:
        advice = _system_to_assign(path)
        raise UnusableRaster(path, f"it has no coordinate reference system, so its place is unknown; {advice}")


def _system_to_assign(path: str) -> str:
    prj = Path(path).with_suffix(".prj")
    if is_remote(path) or not prj.is_file():
        return "assign one first (gdal_edit -a_srs)"
    return f"assign that of its {prj.suffix}, which GDAL does not read (gdal_edit -a_srs {prj.name})"


def _world_file_beside(dataset: Any) -> str:
    """The ending of a local raster's world file; empty without one."""
    return next((each for each in WORLD_FILES if Path(dataset.name).with_suffix(each).is_file()), "")


def check_place(path: str, dataset: Any) -> None:
    """A raster that cannot be found on the globe would fail the catalog, and with it all the others."""
    crs = crs_text(dataset.crs)
    if not (dataset.crs.is_geographic or dataset.crs.is_projected):
        reason = f"its coordinate system {crs} is neither geographic nor projected; assign one that is"
        raise UnusableRaster(path, reason)
    if dataset.crs.is_geographic and not _is_in_degrees(dataset):
        bounds = ", ".join(f"{value:g}" for value in dataset.bounds)
        reason = f"its bounds ({bounds}) lie outside of its coordinate system {crs}; assign the right one"
        raise UnusableRaster(path, reason)
    try:
        footprint_of(dataset)
    except NoFootprint as error:
        if "celestial body" in str(error):
            reason = f"its coordinate system {crs} is not of the Earth, on which results have their place; leave it out"
            raise UnusableRaster(path, reason) from error
        bounds = ", ".join(f"{value:g}" for value in dataset.bounds)
        raise UnusableRaster(
            path, f"its bounds ({bounds}) lie outside of its coordinate system {crs}: {error}"
        ) from error


def _is_in_degrees(dataset: Any) -> bool:
    """Grids from 0 to 360 degrees exist, and such whose outermost pixel centres lie on the poles."""
    unit = math.degrees(dataset.crs.units_factor[1])
    bounds, pixel = [value * unit for value in dataset.bounds], abs(dataset.transform.e) * unit
    most_lon, most_lat = max(map(abs, bounds[0::2])), max(map(abs, bounds[1::2]))
    # False for NaN too.
    return bool(most_lon <= 540 and most_lat <= 90 + pixel)  # noqa: PLR2004
