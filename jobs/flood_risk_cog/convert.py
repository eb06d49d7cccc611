"""One raster to one Cloud Optimized GeoTIFF: refused with a reason, or written whole, validated and verified."""

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import rasterio
from pyproj.exceptions import ProjError
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, WktVersion
from rasterio.errors import RasterioError, RasterioIOError

from jobs.flood_risk_cog.facts import DamagedRaster, Facts, cause, read_facts
from jobs.flood_risk_cog.footprint import Footprint, NoFootprint, between_latitudes, footprint_of
from jobs.flood_risk_cog.gdal_errors import failure_of
from jobs.flood_risk_cog.ground import around, places
from jobs.flood_risk_cog.header_check import check_header
from jobs.flood_risk_cog.intact import BlockCheck, check_blocks, check_every_block, nothing_made_up
from jobs.flood_risk_cog.inventory import describe, has_code
from jobs.flood_risk_cog.layout import find_layout_problems
from jobs.flood_risk_cog.memory import (
    LEAST_CACHE,
    cache_bytes,
    give_back_memory,
    is_kept_whole,
    is_too_wide,
    problem_with_blocks,
    rows_of_small_tiles,
)
from jobs.flood_risk_cog.nodata import nodata_as_json
from jobs.flood_risk_cog.places import check_place, without_heights
from jobs.flood_risk_cog.plan import (
    ConversionOptions,
    ConversionPlan,
    UnusableRaster,
    check_form,
    check_mask_file,
    check_masks,
    check_source,
    check_types,
    make_plan,
    with_tiles_that_fit,
)
from jobs.flood_risk_cog.remote import is_remote, without_file_scheme
from jobs.flood_risk_cog.scratch import ScratchOwner, scratch_folder
from jobs.flood_risk_cog.source import entity_tag_of, fetch_raster, open_raster, version_of
from jobs.flood_risk_cog.stac import datetime_of
from jobs.flood_risk_cog.stage import (
    MASK,
    UnreadableSidecar,
    by_name_without_case,
    files_beside,
    not_taken_among,
    replace_crs,
    stage_raster,
)
from jobs.flood_risk_cog.statistics import FloodMeter
from jobs.flood_risk_cog.target import (
    blocked_in_words,
    check_file_place,
    join,
    open_file,
    put_file,
    read_text,
    remove_beside,
    short_name,
    size_of,
)
from jobs.flood_risk_cog.tiff import what_it_is
from jobs.flood_risk_cog.verification import verify_cog
from jobs.flood_risk_cog.web_grid import WEB_MERCATOR
from jobs.flood_risk_cog.write import write_cog, write_tiled, write_warped
from jobs.flood_risk_cog.written import ValueChecksums

Compression = Literal["deflate", "zstd", "lerc"]
Report = Callable[[str, float], None]


# Of classes, whose numbers are none.
NO_DEPTHS = dict.fromkeys(
    ("flooded_pixels", "min_depth", "mean_depth", "max_depth", "unit", "flooded_area_km2", "area_method")
)
# Enters the fingerprint: results of a release that makes other files of the same source are made anew.
RELEASE = 10
GDAL_OPTIONS = {"GDAL_TIFF_INTERNAL_MASK": True, "GDAL_CACHEMAX": LEAST_CACHE}


class DifferentOutput(ValueError):
    """The file that was written says something else than its source, as it would again; it was removed."""


class InvalidOutput(RuntimeError):
    """The file that was written does not validate as a COG; it was removed."""


class SourceChanged(OSError):
    """The raster is another one than when the conversion began; another attempt reads that one."""


def convert_raster(
    path: str,
    output: str,
    *,
    target_crs: str | None = None,
    tile_size: int = 512,
    compression: Compression = "deflate",
    resampling: str = "auto",
    kind: str = "auto",
    web_optimized: bool = False,
    name: str | None = None,
    sidecars: Sequence[str] | None = None,
    report: Report | None = None,
    owner: ScratchOwner | None = None,
) -> dict[str, Any]:
    """Write `<stem>.tif` into the folder `output`, with a proof of what it holds beside it, and measure its flood.

    The same source version with the same options gives the same bytes (with lerc the same pixels: its encoder leaves
    a few padding bytes undefined), and a result that is already there, as its proof says, is returned with `reused`
    true. The final name only ever holds a verified COG; files beside it that GDAL would read in its place (.aux.xml,
    .msk, .ovr) are removed. A remote source is copied to local scratch first, a remote
    result written there and uploaded: room for both, and once more the result, is needed; a reprojected one needs a
    copy more.

    Args:
        path: A local path or fsspec URL.
        output: A local folder, made when it is missing, or an fsspec URL.
        target_crs: Reproject to it, when the raster has another one.
        tile_size: 256 or 512.
        compression: Each is lossless.
        resampling: A name of GDAL's, or "auto": nearest and mode for classes, bilinear and average for quantities.
        kind: "continuous", "classes" or "auto": classes are a palette's, or at most 32 whole numbers without unit.
        web_optimized: Reproject to Web Mercator, on the tiles of web maps, at the zoom that is nearest.
        name: Of the COG without its suffix; the raster's own when left out.
        sidecars: Names of the files beside a remote raster that belong to it; looked for when left out.
        report: Called with a step and how much of it is done (0 to 1); what it raises ends the conversion.
        owner: Whose attempt this is; what its earlier attempts left behind is removed.

    Raises:
        UnusableRaster: The raster itself is at fault; trying again is no use.
        SourceNotFound: There is no such file.
        SourceChanged: It changed meanwhile.
        InvalidOutput: The written file is not a valid COG.
        DifferentOutput: It is not one of this source.
        OutputBlocked: Something in the output is in its way.
        ValueError: An option is not one of the above.
        OSError: A place could not be read or written; stores raise types of their own as well.
    """
    options = ConversionOptions(target_crs, tile_size, compression, resampling, kind, web_optimized)
    check_place(path, listed=True)
    check_place(output, writes=True)
    report = report or (lambda _step, _share: None)
    path, output = without_file_scheme(path), without_file_scheme(output)
    file_name = f"{name or PurePosixPath(path).stem}.tif"
    final = join(output, file_name)
    # `Path.resolve` raises where links lead in a circle.
    if final == path or (
        not is_remote(path) and not is_remote(final) and os.path.realpath(final) == os.path.realpath(path)
    ):
        raise ValueError(f"expected an output folder other than the source's, found {output!r}; choose another one")
    version = version_of(path, sidecars)
    identity = [RELEASE, PurePosixPath(path).name, version, options.as_json]
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    # Around every read as well: outside it GDAL's cache grows to a share of the machine's memory.
    with rasterio.Env(**GDAL_OPTIONS), ExitStack() as stack:
        with blocked_in_words():
            check_file_place(final)
            check_file_place(proof_name(final))
            if (proof := find_proof(final, fingerprint)) is not None:
                report("reuse", 0)
                remove_beside(final)
                return {**proof, "path": final, "source": path, "reused": True}
            scratch = stack.enter_context(scratch_folder(scratch_parent(output), owner))
        staging = stack.enter_context(scratch_folder(Path(tempfile.gettempdir()), owner))
        # GDAL appends to names.
        temporary = scratch / f"{short_name(PurePosixPath(file_name).stem)}.tif"
        result = _make_cog(path, sidecars, temporary, staging, options, fingerprint, report)
        if version_of(path, sidecars) != version:
            raise SourceChanged(f"{PurePosixPath(path).name}: it changed while it was read; it is read again")
        report("store", 0)
        with blocked_in_words():
            remove_beside(final)
            put_file(temporary, final)
            proof = {**result, "name": file_name, "fingerprint": fingerprint, "entity_tag": entity_tag_of(final)}
            text = json.dumps(proof, indent=2, sort_keys=True, allow_nan=False)
            written = scratch / "proof.json"
            written.write_text(f"{text}\n")
            put_file(written, proof_name(final))
        # As a rerun finds it.
        return {**json.loads(text), "path": final, "source": path, "reused": False}


def scratch_parent(output: str) -> Path:
    """Where conversions into this output keep their scratch: beside a local result, so that its replace is atomic."""
    output = without_file_scheme(output)
    return Path(tempfile.gettempdir() if is_remote(output) else output)


def proof_name(cog: str) -> str:
    """Of the file beside a COG that says what it was made of, what was verified, and its checksum."""
    folder, name = cog[: -len(PurePosixPath(cog).name)], PurePosixPath(cog).name
    return f"{folder}{short_name(PurePosixPath(name).stem)}.proof.json"


def find_proof(final: str, fingerprint: str) -> dict[str, Any] | None:
    """What the proof of a COG says, if that file is there, whole, and made of this source with these options.

    One whose store has an entity tag is not read for that: the tag is the one that it got when it was stored.
    """
    text = read_text(proof_name(final))
    if text is None:
        return None
    try:
        proof = json.loads(text)
        is_it = proof["fingerprint"] == fingerprint and _is_as_stored(final, proof)
    except (ValueError, KeyError, TypeError):
        # Whatever stands there is not ours: it is written again.
        return None
    return proof if is_it else None


def _is_as_stored(final: str, proof: dict[str, Any]) -> bool:
    tag = proof.get("entity_tag")
    if tag is not None and tag == entity_tag_of(final):
        return True
    return bool(proof["checksum"] == checksum_of(final))


def _make_cog(
    path: str,
    sidecars: Sequence[str] | None,
    temporary: Path,
    staging: Path,
    options: ConversionOptions,
    fingerprint: str,
    report: Report,
) -> dict[str, Any]:
    """Fetch, read, write and verify one COG in its scratch folder; what there is to say of it."""
    if is_remote(path):
        report("download", 0)
    fetched = staging / "fetched"
    staged = staging / "staged"
    fetched.mkdir()
    staged.mkdir()
    try:
        source = str(stage_raster(fetch_raster(path, fetched, sidecars), staged, fingerprint))
    except UnreadableSidecar as error:
        raise UnusableRaster(path, str(error)) from error
    result = _make_cog_of(path, source, temporary, options, report)
    result["verification"]["lost"] += [f"file {each}" for each in _not_taken(path, sidecars)]
    return result


def _not_taken(path: str, sidecars: Sequence[str] | None) -> list[str]:
    """Files beside a raster that describe it; of a remote one, those that its inventory found."""
    there = by_name_without_case(sidecars or ()) if is_remote(path) else files_beside(Path(path))
    return not_taken_among(PurePosixPath(path).name, there)


@contextmanager
def _opened(path: str, source: str, tile_size: int) -> Iterator[Any]:
    """The source, with as much of GDAL's cache as it needs."""
    with ExitStack() as stack:
        try:
            dataset = stack.enter_context(open_raster(source))
            check_types(path, dataset)
            check_mask_file(path, dataset)
            if problem := problem_with_blocks(dataset):
                raise UnusableRaster(path, problem)
            if not is_kept_whole(dataset, tile_size):
                give_back_memory()
            cache = cache_bytes(dataset, tile_size)
        except RasterioError as error:
            raise _not_opened(path, source, error) from error
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=cache))
        yield dataset


def _not_opened(path: str, source: str, error: BaseException) -> UnusableRaster:
    if (found := what_it_is(source)) is not None:
        return UnusableRaster(path, f"it is no GeoTIFF but {found}")
    # By its own name, not by that of the copy or link that was opened.
    text = cause(error).replace(source, PurePosixPath(path).name)
    return UnusableRaster(path, f"it cannot be opened as a GeoTIFF ({text}); export it again")


def _make_cog_of(path: str, source: str, temporary: Path, options: ConversionOptions, report: Report) -> dict[str, Any]:
    """As below; what libraries raise about a raster, as they would again, is a reason with its name."""
    try:
        return _write_and_verify(path, source, temporary, options, report)
    except (DamagedRaster, NoFootprint) as error:
        raise UnusableRaster(path, str(error)) from error
    except (RasterioError, CPLE_BaseError) as error:
        raise failure_of(path, error, WEB_MERCATOR if options.web_optimized else options.target_crs) from error
    except (ProjError, ArithmeticError) as error:
        reason = f"its place, time or values are beyond what can be computed ({error}); correct them or its target_crs"
        raise UnusableRaster(path, reason) from error


def _write_and_verify(
    path: str, source: str, temporary: Path, options: ConversionOptions, report: Report
) -> dict[str, Any]:
    with ExitStack() as stack:
        dataset = stack.enter_context(_opened(path, source, options.tile_size))
        changed = []
        is_projected = dataset.crs is not None and dataset.crs.is_projected
        if is_projected and (plane := without_heights(dataset.crs.to_wkt())) is not None:
            stack.close()
            replace_crs(source, plane)
            dataset = stack.enter_context(_opened(path, source, options.tile_size))
            changed.append(
                "its projected system has ellipsoidal heights, which GDAL writes into no GeoTIFF: it is without"
            )
        wanted, options = options, with_tiles_that_fit(dataset, options)
        if options != wanted:
            side = f"{options.tile_size} pixels along a side"
            changed.append(f"its tiles have {side}, as larger ones of all bands do not fit")
        plan, facts, meter = _read_source(path, source, dataset, options, temporary.parent, report)
        plan = replace(plan, changed=(*changed, *plan.changed))
        footprint = footprint_of(dataset) if plan.warped else None
        copied, made = _write_copy(path, dataset, temporary, plan, report)
        if copied is not None or not is_kept_whole(dataset, options.tile_size):
            # What is left of it in GDAL's cache is of no use to the write, which needs the memory.
            stack.close()
            dataset = stack.enter_context(_opened(path, str(copied or source), options.tile_size))
        write_cog(dataset, temporary, plan)
    report("validate", 0)
    check_alone(temporary)
    if problems := find_layout_problems(str(temporary)):
        raise InvalidOutput(f"{temporary.name}: expected a valid COG, found: {'; '.join(problems)}")
    verification = _verify(path, source, facts, temporary, plan, made, report)
    if verification["problems"]:
        found = "; ".join(verification["problems"])
        raise DifferentOutput(f"{temporary.name}: {found}; nothing was put in place{_advice(found, plan)}")
    return {
        **describe_cog(str(temporary), footprint),
        **_decided(plan),
        "changed": verification["allowed"],
        "statistics": meter.result() | (NO_DEPTHS if plan.kind == "classes" else {}),
        "verification": {**verification, "validator": {"valid": True, "warnings": []}},
        "checksum": checksum_of(str(temporary)),
    }


def _advice(found: str, plan: ConversionPlan) -> str:
    """What to do about a result that differs from its source, where that is known."""
    if found.startswith("overview") and plan.overview_resampling != "nearest":
        return "; set resampling to nearest"
    if plan.compression == "lerc" and "expected the values" in found:
        return (
            "; lerc may be why, as it does not keep the sign of a zero (-0.0): choose the compression deflate or zstd"
        )
    return ""


def _verify(
    path: str,
    source: str,
    facts: Facts,
    temporary: Path,
    plan: ConversionPlan,
    made: ValueChecksums | None,
    report: Report,
) -> dict[str, Any]:
    """The source was read before: what cannot be read now is what was written.

    Of tiles that reach below the raster GDAL does not read the end. Damage there changes no value, and is not looked
    for in an ordinary result: that would take a twenty-fifth of the conversion's time.
    """
    try:
        verification = verify_cog(source, facts, str(temporary), plan, lambda share: report("verify", share), made=made)
        if verification["problems"]:
            # Damage that GDAL reads over is no other result each time.
            check_every_block(str(temporary))
    except (DamagedRaster, RasterioIOError) as error:
        failure = failure_of(path, error, None)
        if isinstance(failure, UnusableRaster):
            found = f"found damage in what was written ({cause(error)})"
            failure = InvalidOutput(f"{temporary.name}: expected a COG that can be read, {found}; it is written anew")
        raise failure from error
    return verification


def _write_copy(
    path: str, dataset: Any, temporary: Path, plan: ConversionPlan, report: Report
) -> tuple[Path | None, ValueChecksums | None]:
    """What the COG is made of where that is not the source: one that is reprojected, or in tiles and not in strips."""
    # No result has this ending.
    copied, made = temporary.with_name("copy.tiff"), None
    if plan.warped:
        made = write_warped(path, dataset, copied, plan, lambda share: report("warp", share))
    report("write", 0)
    if not plan.warped and is_too_wide(dataset, plan.tile_size):
        write_tiled(dataset, copied, rows_of_small_tiles(dataset, plan.tile_size))
    return copied if copied.exists() else None, made


def check_alone(cog: Path) -> None:
    """What GDAL put into a file beside the COG would be missing from it: only the COG is put in place."""
    if beside := sorted(each.name for each in cog.parent.glob(f"{glob.escape(cog.name)}.*")):
        raise InvalidOutput(f"{cog.name}: expected all of it in one file, found {', '.join(beside)} beside it")


def _read_source(
    path: str, source: str, dataset: Any, options: ConversionOptions, folder: Path, report: Report
) -> tuple[ConversionPlan, Facts, FloodMeter]:
    try:
        check_source(path, dataset)
        check_form(path, dataset, options)
        check_masks(path, dataset)
        placement = check_header(path, dataset, options, folder)
        meter = FloodMeter(dataset, PurePosixPath(path).name)
        check_blocks(f"{source}{MASK}")
        blocks = BlockCheck(dataset, source)
        with nothing_made_up():
            facts = read_facts(
                dataset, seen=meter.see, seen_bands=blocks.see, report=lambda share: report("read", share)
            )
        blocks.finish()
        return make_plan(path, dataset, facts, options, placement), facts, meter
    except RasterioError as error:
        raise _not_opened(path, source, error) from error
    except UnicodeError as error:
        reason = f"its metadata is no UTF-8 ({error}); write it anew (gdal_edit -units, -a_srs, -mo)"
        raise UnusableRaster(path, reason) from error


def describe_cog(cog: str, of_source: Footprint | None = None) -> dict[str, Any]:
    """What a COG is and where it lies, as JSON values.

    Args:
        of_source: Where a reprojected one has its data: beside them its grid has corners, or whole tiles, with none.
    """
    with open_raster(cog, sidecars=False) as dataset:
        footprint = footprint_of(dataset)
        if of_source is not None:
            footprint = between_latitudes(of_source, *_latitudes_of(dataset, of_source, footprint))
        return {
            "name": PurePosixPath(cog).name,
            **describe(dataset),
            "nodata": nodata_as_json(dataset),
            "wkt": None if has_code(dataset.crs) else dataset.crs.to_wkt(version=WktVersion.WKT2_2019),
            "transform": list(dataset.transform)[:6],
            "geometry": footprint.geometry,
            "bbox": footprint.bbox,
            "datetime": datetime_of(dataset.tags()),
            "sampling": "point" if dataset.tags().get("AREA_OR_POINT") == "Point" else "area",
            "validity": validity_of(dataset),
            "descriptions": list(dataset.descriptions),
            "units": [unit or None for unit in dataset.units],
            "scales": list(dataset.scales),
            "offsets": list(dataset.offsets),
            "compression": dataset.compression.value.lower(),
            "tile_size": dataset.block_shapes[0][0],
            "overviews": dataset.overviews(1),
            "bytes": size_of(cog),
        }


def _latitudes_of(dataset: Any, of_source: Footprint, of_grid: Footprint) -> list[float]:
    """South and north of a reprojected raster: its source's, where the grid ends within a pixel of that.

    Near a pole a thousandth of a pixel may be a tenth of a degree.
    """
    south, north = of_grid.bbox[1], of_grid.bbox[3]
    if not (system := around(dataset.crs)).turn or not system.has_poles:
        return [south, north]
    ends = [of_source.bbox[1], of_source.bbox[3]]
    _, y = places(CRS.from_user_input("OGC:CRS84"), dataset.crs, [0.0, 0.0], ends)
    rows = (y - dataset.transform.f) / dataset.transform.e
    is_there = (rows >= -1) & (rows <= dataset.height + 1)
    return [end if there else limit for end, there, limit in zip(ends, is_there, (south, north), strict=True)]


def validity_of(dataset: Any) -> str:
    """What hides pixels for GDAL: all, mask, alpha or nodata; a mask goes before nodata.

    `other alpha`: an alpha band hides some that GDAL shows. It takes a last band of uint8 or uint16
    without nodata for a mask.
    """
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.alpha in flags:
        return "alpha"
    if ColorInterp.alpha in dataset.colorinterp:
        return "other alpha"
    if MaskFlags.per_dataset in flags:
        return "mask"
    return "nodata" if MaskFlags.nodata in flags else "all"


def _decided(plan: ConversionPlan) -> dict[str, Any]:
    return {
        "kind": plan.kind,
        "resampling": {"warp": plan.warp_resampling if plan.warped else None, "overviews": plan.overview_resampling},
        "web_zoom": plan.web.zoom if plan.web is not None else None,
    }


def checksum_of(path: str) -> str | None:
    """SHA-256 of a file as a multihash in hexadecimal, as STAC's file extension wants; None when there is none."""
    digest = hashlib.sha256()
    try:
        with open_file(path) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except FileNotFoundError:
        return None
    return f"1220{digest.hexdigest()}"
