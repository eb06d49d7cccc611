"""Refuses a raster for what its header shows, before a pixel is read.

Whether a COG can hold its colours and its coordinate system is tried: an empty raster with the same header is made one.
"""

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.shutil import copy
from rasterio.transform import Affine

from jobs.flood_risk_cog.facts import BandFacts, Facts
from jobs.flood_risk_cog.plan import ConversionOptions, ConversionPlan, Placement, UnusableRaster, make_plan
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.verification import find_changed_colours_and_place
from jobs.flood_risk_cog.write import check_target_grid, copy_descriptions, plain_profile, write_cog

# Pixels along a side, and the smallest tile of GDAL's driver.
SIDE, TILE = 16, 128
_OF_COLOURS = (
    "a COG cannot tell what its bands are; write its bands to rasters of their own (gdal_translate -b), "
    "or expand its palette (gdal_translate -expand rgb)"
)


def check_header(path: str, dataset: Any, options: ConversionOptions, folder: Path) -> Placement:
    """Refuse an open source for what its header shows; where it is put.

    Args:
        folder: For files that are removed again.

    Raises:
        UnusableRaster: It would be refused after it was read, or its COG after it was written.
    """
    # Raises where they are no UTF-8; the proof would compare them at the end.
    _ = dataset.descriptions
    nothing_known = Facts([BandFacts() for _ in range(dataset.count)], checksum="")
    plan = make_plan(path, dataset, nothing_known, options)
    if plan.warped:
        check_target_grid(path, dataset, plan)
    if not _is_plain(dataset, plan) and (problems := list(_changed(dataset, plan, folder / "header"))):
        advice = f"; {_OF_COLOURS}" if any(each.startswith("expected colours") for each in problems) else ""
        raise UnusableRaster(path, f"its COG would not have the same meaning: {'; '.join(problems)}{advice}")
    return plan.placement


def _is_plain(dataset: Any, plan: ConversionPlan) -> bool:
    """Whether it is as most are, and nothing is to be tried."""
    names = [each.name for each in dataset.colorinterp if each is not ColorInterp.alpha]
    is_grey = set(names) <= {"gray", "undefined"}
    # GDAL makes colours of three or four bands of bytes.
    is_coloured = dataset.dtypes[0] == "uint8" and dataset.count in {3, 4}
    is_usual = names in (["palette"], ["red", "green", "blue"]) or (is_grey and not is_coloured)
    is_last = ColorInterp.alpha not in dataset.colorinterp[:-1]
    crs = CRS.from_user_input(plan.target_crs) if plan.warped else dataset.crs
    return is_usual and is_last and crs.to_epsg() is not None


def _changed(dataset: Any, plan: ConversionPlan, folder: Path) -> Iterator[str]:
    folder.mkdir()
    cog = folder / "cog.tif"
    try:
        with _empty(dataset, plan, folder) as empty:
            write_cog(empty, cog, replace(plan, tile_size=TILE))
        with open_raster(str(cog), sidecars=False) as after:
            yield from find_changed_colours_and_place(dataset, after, plan)
    except (RasterioError, CPLE_BaseError, ET.ParseError):
        # What cannot be tried is found by the verification.
        return
    finally:
        shutil.rmtree(folder)


@contextmanager
def _empty(dataset: Any, plan: ConversionPlan, folder: Path) -> Iterator[Any]:
    """A small raster that has all of an open one but its pixels."""
    if plan.warped:
        place = {
            "width": SIDE,
            "height": SIDE,
            "crs": CRS.from_user_input(plan.target_crs),
            "transform": Affine(0.5, 0, 1, 0, -0.5, 1),
        }
        blocks = {"blockxsize": SIDE, "blockysize": SIDE}
        with rasterio.open(folder / "empty.tif", "w", **plain_profile(dataset, plan) | place | blocks) as written:
            copy_descriptions(dataset, written)
        with open_raster(str(folder / "empty.tif")) as empty:
            yield empty
        return
    virtual = folder / "empty.vrt"
    copy(dataset, virtual, driver="VRT")
    document = ET.parse(virtual)  # noqa: S314 - GDAL's own
    root = document.getroot()
    root.set("rasterXSize", str(SIDE))
    root.set("rasterYSize", str(SIDE))
    for band in root.iter("VRTRasterBand"):
        for source in [each for each in band if each.tag.endswith("Source")]:
            band.remove(source)
    document.write(virtual, encoding="utf-8")
    with rasterio.open(virtual, driver="VRT") as empty:
        yield empty
