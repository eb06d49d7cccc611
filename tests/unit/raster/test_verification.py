"""Whatever is changed in a good COG is found: one pixel, one bit of a mask, nodata, an overview, a tag, a place."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.shutil import copy
from rasterio.transform import Affine

from jobs.flood_risk_cog import convert
from jobs.flood_risk_cog.convert import DifferentOutput, convert_raster
from jobs.flood_risk_cog.facts import read_facts
from jobs.flood_risk_cog.plan import ConversionOptions, UnusableRaster, make_plan
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.tiff import directories
from jobs.flood_risk_cog.verification import verify_cog
from tests.unit.raster.made import NODATA, pixels_of, write_raster

SIDE = 1100
# Nine windows of the check of a warp, and four of the one of overviews.
SMALL_SIDE = 540
# Where nothing but the header matters.
LEAST_SIDE = 64
VALIDITIES = ["none", "nodata", "nan", "mask", "msk", "alpha", "nodata and mask"]
# Another target is another geometry, whatever says what is valid: an alpha band alone is a band to compare, too.
CASES = [(each, target) for target in (None, "EPSG:4326") for each in VALIDITIES]
CASES += [(each, "EPSG:32615") for each in ("none", "alpha")]


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A raster of noise and the COG that is made of it, once for all tests that edit a copy."""
    made = {}

    def noise(validity, side, options):
        key = (validity, side, *sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("noise")
            source = write_raster(folder / "source.tif", pixels_of("float32", validity, side=side), validity)
            made[key] = (source, convert_raster(str(source), str(folder / "cogs"), **options)["path"])
        return made[key]

    return noise


@pytest.fixture
def verify(tmp_path, monkeypatch, noise):
    """The verification of a result that was edited after it was made, and not verified before."""
    monkeypatch.setattr(convert, "verify_cog", lambda *_given, **_named: {"problems": [], "lost": [], "allowed": []})

    def verify(validity="none", edit=None, *, side=SIDE, pixels=None, describe=None, overviews="YES", **options):
        if pixels is None and describe is None:
            source, result = noise(validity, side, options)
        else:
            source = tmp_path / "source.tif"
            write_raster(source, pixels_of("float32", validity, side=side) if pixels is None else pixels, validity)
            if describe is not None:
                with rasterio.open(source, "r+") as dataset:
                    describe(dataset)
            result = convert_raster(str(source), str(tmp_path / "cogs"), **options)["path"]
        edited = tmp_path / "edited.tif"
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            copy(result, edited, driver="GTiff", TILED="YES", COPY_SRC_OVERVIEWS=overviews)
            if edit is not None:
                with rasterio.open(edited, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
                    edit(dataset)
        with open_raster(str(source)) as dataset:
            facts = read_facts(dataset)
            plan = make_plan(str(source), dataset, facts, ConversionOptions(**options))
        return verify_cog(str(source), facts, str(edited), plan, lambda _share: None)

    return verify


def set_pixel(value, row=700, column=800):
    def edit(dataset):
        dataset.write(np.full((1, 1), value, dataset.dtypes[0]), 1, window=((row, row + 1), (column, column + 1)))

    return edit


@pytest.mark.parametrize(("validity", "target"), CASES)
def test_a_result_as_it_was_made_has_no_problem(verify, validity, target):
    found = verify(validity, side=SMALL_SIDE, target_crs=target)
    assert found["problems"] == []
    assert found["values"] == ("reprojected" if target else "identical")
    # Between two neighbours of a noise lies something else.
    assert found["agreement"]["histogram_distance"] < (0.5 if target else 1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_an_alpha_band_that_hides_nothing_may_hide_what_lies_outside(verify, dtype):
    """It has one value in the source and 0 outside of it."""

    def show_all(dataset):
        dataset.write(np.full((SMALL_SIDE, SMALL_SIDE), 255, dtype), 2)

    found = verify("alpha", pixels=pixels_of(dtype, side=SMALL_SIDE), describe=show_all, target_crs="EPSG:4326")
    assert found["problems"] == []


def test_one_pixel_that_differs_is_found(verify):
    found = verify(edit=set_pixel(50.5))
    assert found["values"] == "different"
    assert "expected the values of its source" in found["problems"][0]


def test_a_reprojected_pixel_that_nothing_around_it_explains_is_found(verify):
    slope = np.tile(np.linspace(0, 90, SMALL_SIDE, dtype="float32"), (SMALL_SIDE, 1))[None]
    found = verify(pixels=slope, edit=set_pixel(5, 200, 400), target_crs="EPSG:4326")
    assert "found 1 pixels with a value that nothing around it in the original has" in found["problems"][0]


def flip_bit(dataset):
    mask = dataset.dataset_mask()
    mask[700, 800] = 255 - mask[700, 800]
    dataset.write_mask(mask)


def test_another_alpha_of_a_reprojected_raster_is_found(verify):
    def edit(dataset):
        alpha = dataset.read(2)
        dataset.write(np.where(alpha > 100, 100, alpha), 2)

    found = verify("alpha", edit, pixels=pixels_of("uint8"), target_crs="EPSG:32615", resampling="bilinear")
    assert "alpha" in found["problems"][0]


def test_one_bit_of_a_mask_is_found(verify):
    assert verify("mask", edit=flip_bit)["values"] == "different"


def test_a_hole_in_a_reprojected_mask_is_found(verify):
    def clear(dataset):
        mask = dataset.dataset_mask()
        mask[200:210, 400:410] = 0
        dataset.write_mask(mask)

    found = verify("mask", edit=clear, side=SMALL_SIDE, target_crs="EPSG:4326")
    assert "not valid where all of the original is" in found["problems"][0]


def test_masked_pixels_that_came_back_after_a_warp_are_found(verify):
    found = verify("mask", edit=lambda dataset: dataset.write_mask(True), side=SMALL_SIDE, target_crs="EPSG:4326")
    assert "valid where nothing of the original is" in found["problems"][0]


def test_another_nodata_value_is_found_even_where_no_pixel_has_it(verify):
    def rename(dataset):
        dataset.nodata = -1

    found = verify("nodata", pixels=np.ones((1, 300, 300), "float32"), edit=rename)
    assert found["values"] == "identical"
    assert found["problems"] == [f"expected nodata ['{NODATA}.0'], found ['-1.0']"]


def spoil_overviews(row, column):
    """One pixel of the full size is there while the overviews are made, and not afterwards."""

    def edit(dataset):
        here = ((row, row + 1), (column, column + 1))
        good = dataset.read(1, window=here)
        dataset.write(np.full_like(good, 10_000), 1, window=here)
        dataset.build_overviews([2, 4], Resampling.average)
        dataset.write(good, 1, window=here)

    return edit


# Reprojected, its sides are odd: pixels of the overview are narrower than two, and it is in two of them.
@pytest.mark.parametrize(("target", "first"), [(None, 150), ("EPSG:4326", 149)])
def test_one_pixel_of_an_overview_is_found(verify, target, first):
    found = verify(edit=spoil_overviews(200, 300), kind="continuous", target_crs=target)
    assert len(found["problems"]) == 1
    assert found["problems"][0].startswith(f"overview 1 at column {first}, row 100: found ")
    assert found["problems"][0].endswith(" pixels with a value that nothing around it in the original has")


@pytest.mark.parametrize(("row", "column"), [(100, 600), (0, 0), (1099, 1099), (511, 512)])
def test_one_pixel_of_an_overview_is_found_anywhere(verify, row, column):
    found = verify(edit=spoil_overviews(row, column), kind="continuous", target_crs=None)
    (problem,) = found["problems"]
    assert problem.startswith(f"overview 1 at column {column // 2}, row {row // 2}: found 1 pixels with a value")


def test_overviews_that_are_missing_are_found(verify):
    assert verify(overviews="NO")["problems"] == [
        "expected overviews down to one tile of 512, found 1100 x 1100 as the smallest"
    ]


def test_a_tag_that_was_dropped_is_named(verify):
    def describe(dataset):
        dataset.update_tags(AUTHOR="somebody")
        dataset.update_tags(1, QUALITY="good")

    def drop(dataset):
        dataset.update_tags(AUTHOR="")
        dataset.update_tags(1, QUALITY="bad")

    assert verify(describe=describe, side=LEAST_SIDE)["lost"] == []
    found = verify(describe=describe, edit=drop, side=LEAST_SIDE)
    assert found["lost"] == ["metadata:AUTHOR", "band 1 metadata:QUALITY"]
    assert found["problems"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("scales", (0.1,)), ("offsets", (5.0,)), ("units", ("cm",)), ("colorinterp", (ColorInterp.red,))],
)
def test_what_gives_numbers_another_meaning_is_a_problem(verify, name, value):
    found = verify(edit=lambda dataset: setattr(dataset, name, value), side=LEAST_SIDE)
    assert len(found["problems"]) == 1
    assert f"expected {'colours' if name == 'colorinterp' else name}" in found["problems"][0]


def test_another_place_is_found(verify):
    def move(dataset):
        dataset.transform = Affine.translation(1, 0) @ dataset.transform

    assert verify(edit=move, side=LEAST_SIDE)["problems"] == [
        "expected it where its source is, found it 0.1 pixels away"
    ]


def test_statistics_of_the_old_grid_are_not_lost_but_left_out(verify):
    def describe(dataset):
        dataset.update_tags(1, STATISTICS_MAXIMUM="1")

    assert verify(describe=describe, side=LEAST_SIDE, target_crs="EPSG:4326")["lost"] == []


def test_a_result_that_says_something_else_fails_and_the_old_one_stays(tmp_path, monkeypatch):
    source = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    first = convert_raster(str(source), str(tmp_path / "cogs"))
    good = Path(first["path"]).read_bytes()
    write_cog = convert.write_cog

    def write_another(_source, target, plan, *more, **named):
        other = write_raster(tmp_path / "other.tif", pixels_of("float32", seed=1))
        with open_raster(str(other)) as dataset:
            write_cog(dataset, target, plan, *more, **named)

    monkeypatch.setattr(convert, "write_cog", write_another)
    with pytest.raises(DifferentOutput, match="expected the values of its source, found others"):
        convert_raster(str(source), str(tmp_path / "cogs"), compression="zstd")
    assert Path(first["path"]).read_bytes() == good


@pytest.mark.parametrize(
    "crs",
    [
        "+proj=nsper +h=3000000 +lat_0=40 +lon_0=10 +datum=WGS84",
        "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=40 +lon_0=10 +datum=WGS84 +type=crs",
    ],
)
def test_a_system_that_a_geotiff_cannot_hold_is_found_missing(tmp_path, crs):
    path = tmp_path / "a.tif"
    size = 1000 if "nsper" in crs else 0.01
    write_raster(path, pixels_of("float32"), crs=crs, transform=Affine(size, 0, 0, 0, -size, 0))
    with pytest.raises((DifferentOutput, UnusableRaster), match="coordinate system"):
        convert_raster(str(path), str(tmp_path / "out"))
    assert not (tmp_path / "out" / "a.tif").exists()


def test_a_file_that_would_be_left_behind_is_no_valid_output(tmp_path):
    cog = tmp_path / "a.tif"
    cog.touch()
    convert.check_alone(cog)
    (tmp_path / "a.tif.aux.xml").touch()
    with pytest.raises(convert.InvalidOutput, match=r"found a\.tif\.aux\.xml beside it"):
        convert.check_alone(cog)


@pytest.mark.parametrize("image", [0, 1])
def test_damage_of_the_output_is_no_fault_of_the_source(tmp_path, monkeypatch, image):
    write_cog = convert.write_cog

    def write_and_damage(dataset, target, plan):
        write_cog(dataset, target, plan)
        block = directories(str(target))[image]
        with target.open("r+b") as file:
            file.seek(int(block.offsets[0]) + int(block.sizes[0]) // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))

    monkeypatch.setattr(convert, "write_cog", write_and_damage)
    source = write_raster(tmp_path / "a.tif", pixels_of("float32", side=SMALL_SIDE))
    with pytest.raises(convert.InvalidOutput, match="written anew"):
        convert_raster(str(source), str(tmp_path / "cogs"))


def test_a_reprojected_raster_that_changes_before_the_cog_is_made_is_found(tmp_path, monkeypatch):
    write_warped = convert.write_warped

    def write_and_change(path, dataset, target, plan, progress):
        made = write_warped(path, dataset, target, plan, progress)
        with rasterio.open(target, "r+") as copied:
            set_pixel(copied.read(1)[300, 301], 300, 300)(copied)
        return made

    pixels = np.arange(SMALL_SIDE**2, dtype="float32").reshape(1, SMALL_SIDE, SMALL_SIDE)
    source = write_raster(tmp_path / "a.tif", pixels)
    options = {"target_crs": "EPSG:32615", "compression": "lerc"}
    assert convert_raster(str(source), str(tmp_path / "good"), **options)["verification"]["problems"] == []
    monkeypatch.setattr(convert, "write_warped", write_and_change)
    with pytest.raises(DifferentOutput, match=r"at column 0, row 0 of band 1: expected the values that were made"):
        convert_raster(str(source), str(tmp_path / "cogs"), **options)
