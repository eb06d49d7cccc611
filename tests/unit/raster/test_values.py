"""A COG says the same as its source: compared by numpy and rasterio, not by the project's own code."""

import struct
from xml.sax.saxutils import escape

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.plan import UnusableRaster, check_target
from jobs.flood_risk_cog.tiff import directories
from tests.unit.raster.made import FLOATS, NODATA, TYPES, VALIDITIES, hidden, pixels_of, write_raster, write_tag

PAIRS = [(dtype, validity) for dtype in TYPES for validity in VALIDITIES if validity != "nan" or dtype in FLOATS]


def is_usual(dtype, validity):
    """All validities of two types, and of each other type another third of them; the other pairs take longer."""
    return dtype in {"uint8", "float32"} or TYPES.index(dtype) % 3 == VALIDITIES.index(validity) % 3


CASES = [pytest.param(*pair, marks=[] if is_usual(*pair) else pytest.mark.long) for pair in PAIRS]
# Enough for holes and edges; each kind of value is converted with each kind of validity.
SMALL = 100


@pytest.fixture
def convert(tmp_path):
    def convert(pixels, validity="none", profile=None, *, name="a.tif", edit=None, **options):
        (tmp_path / "source").mkdir(exist_ok=True)
        path = write_raster(tmp_path / "source" / name, pixels, validity, **(profile or {}))
        if edit is not None:
            with rasterio.open(path, "r+") as dataset:
                edit(dataset)
        return str(path), convert_raster(str(path), str(tmp_path / "cogs"), **options)

    return convert


@pytest.mark.parametrize(("dtype", "validity"), CASES)
def test_on_the_same_grid_every_value_and_every_mask_is_the_sources(convert, dtype, validity):
    path, result = convert(pixels_of(dtype, validity, bands=2, side=SMALL), validity)
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        assert np.array_equal(cog.read(), source.read(), equal_nan=dtype in FLOATS)
        assert np.array_equal(cog.read_masks(), source.read_masks())
        assert cog.dtypes == source.dtypes
        assert repr(cog.nodatavals) == repr(source.nodatavals)
        assert cog.mask_flag_enums == source.mask_flag_enums
    assert result["verification"]["values"] == "identical"


def centres_in_source(cog, source):
    """Row and column in the source of each pixel of the COG, as the nearest neighbour takes them; -1 outside."""
    columns, rows = np.meshgrid(np.arange(cog.width), np.arange(cog.height))
    xs, ys = cog.transform @ (columns + 0.5, rows + 0.5)
    x, y = rasterio.warp.transform(cog.crs, source.crs, xs.ravel(), ys.ravel())
    column, row = ~source.transform @ (np.array(x), np.array(y))
    return np.floor(row).astype(int).reshape(rows.shape), np.floor(column).astype(int).reshape(rows.shape)


@pytest.mark.parametrize(("dtype", "validity"), CASES)
def test_reprojected_by_nearest_each_pixel_is_the_one_below_it_or_invalid(convert, dtype, validity):
    path, result = convert(
        pixels_of(dtype, validity, side=SMALL),
        validity,
        target_crs="EPSG:4326",
        resampling="nearest",
        kind="continuous",
    )
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        values, found = source.read(1), cog.read(1)
        valid = np.ones(values.shape, bool)
        if "nodata" in validity:
            valid &= values != NODATA
        if validity == "nan":
            valid &= ~np.isnan(values)
        if validity in {"mask", "msk", "alpha", "nodata and mask"}:
            valid &= ~hidden(values.shape[0])
        row, column = centres_in_source(cog, source)
        inside = (row >= 0) & (row < source.height) & (column >= 0) & (column < source.width)
        expected = np.where(inside, valid[row.clip(0, source.height - 1), column.clip(0, source.width - 1)], False)
        is_valid = cog.read(cog.count) > 0 if validity == "alpha" else cog.read_masks(1) > 0
        # The warp interpolates positions: a pixel whose centre falls on an edge may take either neighbour.
        assert np.mean(is_valid == expected) > 0.995
        both = is_valid & expected
        below = values[row.clip(0, source.height - 1), column.clip(0, source.width - 1)]
        assert np.mean(found[both] == below[both]) > 0.97
        assert (found[both] == 0).sum() > 0.2 * both.sum()  # the dry ones stay dry, whatever the type
    assert result["verification"]["values"] == "reprojected"


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("validity", ["none", "nodata", "mask", "nodata and mask"])
def test_bilinear_never_mixes_in_what_is_not_valid(convert, dtype, validity):
    pixels = np.full((1, SMALL, SMALL), 50, dtype)
    pixels[0, hidden(SMALL)] = 60000
    if "nodata" in validity:
        pixels[0, 50:70, 30:70] = NODATA
    _, result = convert(pixels, validity, target_crs="EPSG:4326", resampling="bilinear")
    with rasterio.open(result["path"]) as cog:
        valid = cog.read(1)[cog.read_masks(1) > 0]
    if "mask" in validity:
        assert set(np.unique(valid)) == {50}
    else:
        assert valid.min() >= 50


def test_nan_without_nodata_spoils_no_neighbour(convert):
    pixels = pixels_of("float32")
    pixels[0, 10:20, 10:20] = np.nan
    path, result = convert(pixels, target_crs="EPSG:4326")
    with rasterio.open(path) as source, WarpedVRT(source, crs="EPSG:4326", src_nodata=np.nan, nodata=np.nan) as vrt:
        expected = int(np.isfinite(vrt.read(1)).sum())
    with rasterio.open(result["path"]) as cog:
        assert abs(int(np.isfinite(cog.read(1)).sum()) - expected) < expected * 0.005
    assert result["changed"] == ["NaN, which was a value, is its nodata"]


def test_a_raster_of_single_bits_may_have_nodata(convert):
    """GDAL makes a table of black and white, in which nodata is transparent in the COG alone."""
    pixels = pixels_of("uint8", side=64) % 2
    _, result = convert(pixels, profile={"nbits": 1, "nodata": 0})
    with rasterio.open(result["path"]) as cog:
        assert np.array_equal(cog.read(1, masked=True).filled(0), pixels[0])
        assert np.array_equal(cog.read_masks(1) > 0, pixels[0] == 1)


def test_a_table_beside_a_raster_may_be_shorter_than_a_tiffs(convert, tmp_path):
    pixels = pixels_of("uint8", side=64) % 2
    aux = tmp_path / "source" / "a.tif.aux.xml"
    aux.parent.mkdir()
    entries = '<Entry c1="1" c2="2" c3="3" c4="255"/><Entry c1="9" c2="8" c3="7" c4="255"/>'
    aux.write_text(
        f'<PAMDataset><PAMRasterBand band="1"><ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable>'
        "</PAMRasterBand></PAMDataset>"
    )
    _, result = convert(pixels)
    with rasterio.open(result["path"]) as cog:
        assert [cog.colormap(1)[value] for value in range(3)] == [(1, 2, 3, 255), (9, 8, 7, 255), (0, 0, 0, 255)]
        assert np.array_equal(cog.read(), pixels)


def test_a_band_that_is_called_a_palette_and_has_none_is_kept(convert):
    def call_it_so(dataset):
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.palette]

    path, result = convert(pixels_of("uint8", bands=2, side=20), edit=call_it_so)
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        assert cog.colorinterp == source.colorinterp
        assert np.array_equal(cog.read(), source.read())


def test_a_raster_that_is_called_a_palette_and_has_none_is_reprojected(convert):
    def call_it_so(dataset):
        dataset.colorinterp = [ColorInterp.palette]

    _, result = convert(pixels_of("uint8", side=20), edit=call_it_so, target_crs="EPSG:4326")
    with rasterio.open(result["path"]) as cog:
        assert cog.colorinterp == (ColorInterp.palette,)


def test_a_palette_is_kept_and_reprojected_by_nearest(convert):
    colours = {index: (index * 10, 5, 255 - index, 255) for index in range(16)}
    pixels = np.random.default_rng(0).integers(1, 16, (1, 700, 700)).astype("uint8")
    _, result = convert(pixels, edit=lambda dataset: dataset.write_colormap(1, colours), target_crs="EPSG:4326")
    with rasterio.open(result["path"]) as cog:
        assert cog.colorinterp == (ColorInterp.palette,)
        assert {index: cog.colormap(1)[index] for index in colours} == colours
        assert set(np.unique(cog.read(1)[cog.dataset_mask() > 0])) <= set(range(1, 16))
        assert MaskFlags.per_dataset in cog.mask_flag_enums[0]
        small = cog.read(1, out_shape=(cog.height // 4, cog.width // 4))
        assert set(np.unique(small)) <= set(range(16))
    assert result["kind"] == "classes"


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64"])
def test_few_whole_numbers_are_classes_and_never_averaged(convert, dtype):
    pixels = np.random.default_rng(0).choice(np.array([1, 9], dtype), (1, 264, 264))
    _, result = convert(pixels, target_crs="EPSG:3857", tile_size=256)
    assert result["kind"] == "classes"
    with rasterio.open(result["path"], overview_level=0) as overview:
        assert set(np.unique(overview.read(1)[overview.dataset_mask() > 0])) <= {1, 9}


def test_whole_numbers_with_a_scale_or_a_unit_are_measurements(convert):
    pixels = np.random.default_rng(0).integers(0, 9, (1, 300, 300)).astype("int16")

    def in_centimetres(dataset):
        dataset.units = ("cm",)

    assert convert(pixels, edit=in_centimetres)[1]["kind"] == "continuous"
    assert convert(pixels, name="b.tif", kind="continuous")[1]["kind"] == "continuous"
    assert convert(pixels.astype("float32"), name="c.tif", kind="classes")[1]["kind"] == "classes"


def test_what_describes_the_values_is_kept_on_both_grids(convert):
    def describe(dataset):
        dataset.scales, dataset.offsets, dataset.units = (0.01,), (5.0,), ("cm",)
        dataset.set_band_description(1, "depth")
        dataset.update_tags(AUTHOR="somebody")

    for name, target in (("a.tif", None), ("b.tif", "EPSG:4326")):
        _, result = convert(pixels_of("int16"), name=name, edit=describe, target_crs=target)
        with rasterio.open(result["path"]) as cog:
            assert (cog.scales, cog.offsets, cog.units, cog.descriptions) == ((0.01,), (5.0,), ("cm",), ("depth",))
            assert cog.tags()["AUTHOR"] == "somebody"
        assert result["verification"]["lost"] == []


@pytest.mark.parametrize("place", ["tiff", "aux.xml"])
def test_heights_of_a_coordinate_system_are_named(convert, tmp_path, place):
    """GDAL takes their unit for that of values without one, where the coordinate system is in a TIFF."""
    crs, pixels = "EPSG:6344+6360", pixels_of("float32", side=30)
    if place == "aux.xml":
        text = escape(CRS.from_user_input(crs).to_wkt())
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "a.tif.aux.xml").write_text(f"<PAMDataset><SRS>{text}</SRS></PAMDataset>")
        crs = None
    path, result = convert(pixels, profile={"crs": crs})
    added = ["values that had no unit have that of its heights (US survey foot)"]
    assert result["changed"] == (added if place == "aux.xml" else [])
    with rasterio.open(result["path"]) as cog:
        assert cog.units == ("US survey foot",)
    changed = convert_raster(path, str(tmp_path / "warped"), target_crs="EPSG:4326")["changed"]
    assert "its target_crs does not have the heights of its coordinate system (NAVD88 height (ftUS))" in changed


def test_ellipsoidal_heights_of_a_projected_system_are_left_out(tmp_path):
    """GDAL reads them from a GeoTIFF (VerticalGeoKey 5030), and writes them into a metadata file alone."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=30))
    keys = [
        1,
        1,
        0,
        5,
        *(1024, 0, 1, 1),
        *(1025, 0, 1, 1),
        *(3072, 0, 1, 32614),
        *(4096, 0, 1, 5030),
        *(4099, 0, 1, 9001),
    ]
    write_tag(path, 34735, 3, len(keys), struct.pack(f"<{len(keys)}H", *keys))
    result = convert_raster(str(path), str(tmp_path / "cogs"))
    assert result["changed"] == [
        "its projected system has ellipsoidal heights, which GDAL writes into no GeoTIFF: it is without"
    ]
    assert result["crs"] == "EPSG:32614"


def test_ellipsoidal_heights_are_kept_and_named_where_a_reprojection_has_none(tmp_path):
    path = write_raster(
        tmp_path / "a.tif", pixels_of("uint8", side=30), crs="EPSG:4979", transform=Affine(0.1, 0, 9, 0, -0.1, 50)
    )
    result = convert_raster(str(path), str(tmp_path / "cogs"))
    assert (result["crs"], result["changed"]) == ("EPSG:4979", [])
    result = convert_raster(str(path), str(tmp_path / "others"), target_crs="EPSG:3857")
    assert "its target_crs does not have the heights of its coordinate system (ellipsoidal)" in result["changed"]


def test_all_else_of_its_metadata_file_stays_where_heights_are_left_out(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=30))
    wkt = pyproj.CRS.from_epsg(32614).to_3d().to_wkt()
    own = '<a:x xmlns:a="urn:a" xmlns:b="urn:b" b:k="v" />'
    (tmp_path / "a.tif.aux.xml").write_text(
        f'<PAMDataset><SRS dataAxisToSRSAxisMapping="1,2,3" coordinateEpoch="2021.3">{escape(wkt)}</SRS>'
        f'<Metadata domain="xml:MINE" format="xml">{own}</Metadata></PAMDataset>'
    )
    result = convert_raster(str(path), str(tmp_path / "cogs"))
    assert result["crs"] == "EPSG:32614"
    with rasterio.open(result["path"]) as cog:
        assert "urn:b" in cog.tags(ns="xml:MINE")["xml:MINE"]
        assert cog.tags(ns="xml:MINE")["xml:MINE"].strip() == own
    assert directories(result["path"])[0].has_epoch
    warped = convert_raster(str(path), str(tmp_path / "warped"), target_crs="EPSG:3857")
    assert "the epoch of its coordinates" in warped["verification"]["lost"]


@pytest.mark.parametrize("target", ["EPSG:4979", "EPSG:4937", pyproj.CRS.from_epsg(32614).to_3d().to_wkt()])
def test_a_target_with_ellipsoidal_heights_is_refused(target):
    with pytest.raises(ValueError, match="a system without heights"):
        check_target(target)


def test_a_packed_raster_stays_packed(convert):
    pixels = np.random.default_rng(0).integers(0, 15, (1, 300, 300)).astype("uint8")
    for name, target in (("a.tif", None), ("b.tif", "EPSG:4326")):
        _, result = convert(pixels, profile={"nbits": 4}, name=name, target_crs=target)
        with rasterio.open(result["path"]) as cog:
            assert cog.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "4"


def test_metadata_that_a_cog_cannot_hold_is_named(convert):
    def describe(dataset):
        dataset.update_tags(1, QUALITY="good")
        dataset.update_tags(ns="SURVEY", SHIP="Rhine")

    _, result = convert(pixels_of("float32"), edit=describe)
    with rasterio.open(result["path"]) as cog:
        is_there = cog.tags(ns="SURVEY").get("SHIP") == "Rhine"
        assert cog.tags(1)["QUALITY"] == "good"
    assert ("SURVEY:SHIP" in result["verification"]["lost"]) is not is_there


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_tags_of_the_tiff_that_gdal_does_not_pass_on_are_named(tmp_path, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=40))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_SOFTWARE="a program", TIFFTAG_XRESOLUTION="300")
    write_tag(path, 271, 2, 6, b"Canon\0")
    write_tag(path, 274, 3, 1, struct.pack("<HH", 6, 0))
    write_tag(path, 65000, 12, 1, struct.pack("<d", 1.5))
    result = convert_raster(str(path), str(tmp_path / "cogs"), target_crs=target)
    assert result["verification"]["lost"] == ["tag 271 (Make)", "tag 274 (Orientation)", "tag 65000"]
    write_tag(path, 274, 3, 1, struct.pack("<HH", 1, 0))
    result = convert_raster(str(path), str(tmp_path / "others"), target_crs=target)
    assert result["verification"]["lost"] == ["tag 271 (Make)", "tag 65000"]


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_colours_that_are_multiplied_by_alpha_are_named(tmp_path, target):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", bands=3, side=40), "alpha", photometric="RGB")
    for kind, lost in ((1, ["that its colours are multiplied by its alpha"]), (2, [])):
        write_tag(path, 338, 3, 1, struct.pack("<HH", kind, 0))
        result = convert_raster(str(path), str(tmp_path / f"cogs{kind}"), target_crs=target)
        assert result["verification"]["lost"] == lost


@pytest.mark.parametrize(("target", "lost"), [(None, []), ("EPSG:3857", ["the epoch of its coordinates"])])
def test_an_epoch_of_coordinates_is_kept_or_named(tmp_path, target, lost):
    path = write_raster(
        tmp_path / "a.tif", pixels_of("uint8", side=40), crs="EPSG:4326", transform=Affine(0.1, 0, 9, 0, -0.1, 50)
    )
    keys = [1, 1, 1, 4, *(1024, 0, 1, 2), *(1025, 0, 1, 1), *(2048, 0, 1, 4326), *(5120, 34736, 1, 0)]
    write_tag(path, 34735, 3, len(keys), struct.pack(f"<{len(keys)}H", *keys))
    write_tag(path, 34736, 12, 1, struct.pack("<d", 2021.5))
    result = convert_raster(str(path), str(tmp_path / "cogs"), target_crs=target)
    assert result["verification"]["lost"] == lost


def test_a_domain_of_xml_is_kept_as_it_was_written_on_both_grids(convert):
    text = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a b="c=d"/></x:xmpmeta>'
    name, _, rest = text.partition("=")
    for file, target in (("a.tif", None), ("b.tif", "EPSG:4326")):
        _, result = convert(
            pixels_of("uint8", side=40),
            name=file,
            edit=lambda dataset: dataset.update_tags(ns="xml:XMP", **{name: rest}),
            target_crs=target,
        )
        with rasterio.open(result["path"]) as cog:
            assert cog.tags(ns="xml:XMP") == {"xml:XMP": text}


def test_a_domain_of_its_own_is_kept_where_it_can_be(convert):
    _, result = convert(pixels_of("float32"), edit=lambda dataset: dataset.update_tags(ns="SURVEY", SHIP="Rhine"))
    with rasterio.open(result["path"]) as cog:
        assert cog.tags(ns="SURVEY")["SHIP"] == "Rhine"
    assert result["verification"]["lost"] == []


@pytest.mark.parametrize("validity", ["none", "mask", "alpha"])
@pytest.mark.parametrize(("side", "factors"), [(600, [2]), (512, []), (100, [])])
def test_foreign_overviews_are_not_taken_over(convert, side, factors, validity):
    """Of a raster that needs none, too: its own may be of any size, and of other values."""

    def add_wrong_overviews(dataset):
        dataset.build_overviews([2, 4], Resampling.nearest)

    pixels = np.tile(np.array([[0, 2], [2, 4]], "uint8"), (side // 2, side // 2))[None]
    _, result = convert(pixels, validity, kind="continuous", edit=add_wrong_overviews)
    assert result["overviews"] == factors
    if factors and validity == "none":
        with rasterio.open(result["path"], overview_level=0) as overview:
            assert set(np.unique(overview.read(1))) == {2}


@pytest.mark.parametrize(("dtype", "value"), [("int64", 2**53 + 1), ("uint64", 2**63 + 1)])
def test_whole_numbers_beyond_double_precision_are_kept_or_refused(convert, dtype, value):
    pixels = np.full((1, 300, 300), value, dtype)
    path, result = convert(pixels)
    with rasterio.open(result["path"]) as cog:
        assert set(np.unique(cog.read(1)).tolist()) == {value}
    with pytest.raises(UnusableRaster, match="beyond 2\\^53"):
        convert_raster(path, result["path"] + "-warped", target_crs="EPSG:4326")


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_lerc_says_which_types_it_cannot_hold(convert, dtype):
    with pytest.raises(UnusableRaster, match=f"lerc cannot hold its type {dtype}; choose"):
        convert(pixels_of(dtype), compression="lerc")


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (2, 700)])
@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_a_line_or_a_point_of_pixels_is_a_raster_too(convert, shape, target):
    _, result = convert(np.ones((1, *shape), "float32"), name=f"{shape[0]}.tif", target_crs=target)
    with rasterio.open(result["path"]) as cog:
        assert cog.read_masks(1).any()


@pytest.mark.parametrize(("shape", "is_line"), [((1, 90), True), ((90, 1), True), ((2, 90), False)])
def test_pixels_of_a_line_that_may_have_no_place_are_named(convert, shape, is_line):
    _, result = convert(np.ones((1, *shape), "uint8"), target_crs="EPSG:4326")
    assert ("its line may fall between" in str(result["changed"])) is is_line


def test_a_grid_is_reprojected_as_gdal_would(convert):
    path, result = convert(pixels_of("float32"), target_crs="EPSG:3857")
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        transform, width, height = calculate_default_transform(
            source.crs, CRS.from_epsg(3857), source.width, source.height, *source.bounds
        )
        # GDAL rounds the size of its grid, by which up to half a pixel of the source would lie outside.
        assert cog.width in {width, width + 1}
        assert cog.height in {height, height + 1}
        assert np.allclose(cog.transform[:6], transform[:6], rtol=0, atol=0.01 * transform.a)
        assert cog.res == (transform.a, transform.a)


@pytest.mark.parametrize(("shape", "tile_size"), [((1000, 512), 512), ((700, 256), 256), ((1000, 513), 512)])
def test_a_raster_as_wide_as_a_tile_is_a_cog_like_others(convert, shape, tile_size):
    """rio-cogeo takes the one tile of a row for a strip."""
    _, result = convert(np.random.default_rng(0).random((1, *shape)).astype("float32"), tile_size=tile_size)
    assert result["verification"]["problems"] == []


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
@pytest.mark.parametrize("resampling", ["cubic", "bilinear", "average"])
def test_classes_are_not_mixed_whatever_is_asked_for(convert, target, resampling):
    colours = {1: (255, 0, 0, 255), 5: (0, 255, 0, 255), 9: (0, 0, 255, 255)}
    pixels = np.random.default_rng(0).choice(np.array([1, 5, 9], "uint8"), (1, 264, 264))
    for name, edit, kind in (("a.tif", None, "auto"), ("b.tif", lambda d: d.write_colormap(1, colours), "continuous")):
        _, result = convert(
            pixels, name=name, edit=edit, kind=kind, target_crs=target, resampling=resampling, tile_size=256
        )
        for level in (None, 0):
            with rasterio.open(result["path"], **({} if level is None else {"overview_level": level})) as cog:
                assert set(np.unique(cog.read(1)[cog.dataset_mask() > 0])) <= {1, 5, 9}
        assert "its classes are not mixed" in result["changed"][0]
        assert result["statistics"]["max_depth"] is None


def test_a_nearly_constant_surface_with_a_ragged_mask_is_not_refused(convert):
    """The weights of GDAL's bilinear do not add up to one exactly."""
    random = np.random.default_rng(0)
    pixels = np.ones((1, 300, 300), "float32")
    pixels[0][random.random((300, 300)) < 0.2] = NODATA
    assert convert(pixels, "nodata", target_crs="EPSG:4326", resampling="bilinear")[1]["verification"]["problems"] == []


@pytest.mark.parametrize("resampling", ["auto", "average", "bilinear"])
def test_averages_that_happen_to_be_nodata_make_no_holes(convert, resampling):
    pixels = np.random.default_rng(0).integers(60, 140, (1, 700, 700)).astype("int16")
    _, result = convert(pixels, "nodata", resampling=resampling, kind="continuous")
    with rasterio.open(result["path"]) as cog, rasterio.open(result["path"], overview_level=0) as overview:
        valid = cog.read_masks(1) > 0
        assert (overview.read_masks(1) > 0).mean() == pytest.approx(valid.mean(), abs=0.01)


def test_bands_with_different_holes_are_each_reprojected_by_their_own(convert):
    pixels = np.full((2, 300, 300), 50, "int16")
    pixels[0, 100:140, 100:140] = NODATA
    pixels[1, 180:220, 180:220] = NODATA
    _, result = convert(pixels, "nodata", target_crs="EPSG:4326", resampling="bilinear", kind="continuous")
    with rasterio.open(result["path"]) as cog:
        for number in (1, 2):
            assert set(np.unique(cog.read(number)[cog.read_masks(number) > 0])) == {50}


def test_crs84_is_a_target_too(convert):
    _, result = convert(pixels_of("float32"), target_crs="OGC:CRS84")
    assert result["verification"]["problems"] == []


def test_a_raster_from_south_to_north_keeps_its_place(convert):
    turned = rasterio.transform.Affine(0.002, 0, 10, 0, 0.002, 50)
    for name, crs in (("a.tif", "EPSG:4326"), ("b.tif", "EPSG:4269")):
        _, result = convert(pixels_of("float32"), profile={"crs": crs, "transform": turned}, name=name)
        assert result["bbox"] == pytest.approx([10, 50, 10.3, 50.3], abs=1e-4)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_without_a_position_is_refused(convert):
    with pytest.raises(UnusableRaster, match="it has no position; bring its world file"):
        convert(pixels_of("float32"), profile={"transform": rasterio.transform.Affine.identity()})


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_broken_world_file_is_named(convert, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.tfw").write_text("10\nx\n")
    with pytest.raises(UnusableRaster, match=r"no position can be read from its world file \(.tfw\); correct it: six"):
        convert(pixels_of("float32"), profile={"transform": rasterio.transform.Affine.identity()})


def test_a_scale_that_is_no_number_and_16_bit_floats_with_lerc_are_refused(convert):
    def strange(dataset):
        dataset.scales = (float("inf"),)

    with pytest.raises(UnusableRaster, match="scale or offset is no finite number"):
        convert(pixels_of("float32"), edit=strange)
    with pytest.raises(UnusableRaster, match="lerc cannot hold values of fewer bits"):
        convert(pixels_of("float32"), profile={"nbits": 16}, name="b.tif", compression="lerc")


def test_a_long_line_of_pixels_is_refused_in_words(convert):
    with pytest.raises(UnusableRaster, match="a line of 1 x 2000 pixels"):
        convert(np.ones((1, 2000, 1), "float32"))


def test_a_file_of_several_pages_is_refused(convert, tmp_path):
    path, _ = convert(pixels_of("uint8"))
    with rasterio.open(path) as first:
        profile = first.profile | {"APPEND_SUBDATASET": "YES"}
        pixels = first.read()
    with rasterio.open(path, "w", **profile) as second:
        second.write(pixels)
    with pytest.raises(UnusableRaster, match="it has 2 pages, and a COG has one"):
        convert_raster(path, str(tmp_path / "other"))


def test_a_preview_before_the_image_is_not_taken_for_it(tmp_path):
    """GDAL opens the first image, and does not count one that is marked as smaller (NewSubfileType 1) as a page."""
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=20))
    with rasterio.open(path) as first:
        profile = first.profile | {"APPEND_SUBDATASET": "YES", "width": 40, "height": 40}
    with rasterio.open(path, "w", **profile) as second:
        second.write(pixels_of("uint8", side=40))
    write_tag(path, 254, 4, 1, struct.pack("<I", 1))
    with pytest.raises(UnusableRaster, match=r"preview of a larger one.*GTIFF_DIR:2:"):
        convert_raster(str(path), str(tmp_path / "other"))


def test_names_and_tables_that_no_cog_holds_are_named(convert, tmp_path):
    path, _ = convert(pixels_of("uint8"))
    band = "<CategoryNames><Category>dry</Category></CategoryNames><GDALRasterAttributeTable/>"
    (tmp_path / "source" / "a.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{band}</PAMRasterBand></PAMDataset>'
    )
    lost = convert_raster(path, str(tmp_path / "other"))["verification"]["lost"]
    assert lost == ["names of its categories", "its attribute table"]


def test_signed_bytes_that_a_method_makes_too_large_are_the_largest(convert):
    pixels = np.where(np.arange(300) % 8 < 4, -128, 127).astype("int8") * np.ones((1, 300, 1), "int8")
    _, result = convert(pixels, target_crs="EPSG:32615", resampling="cubic", kind="continuous")
    with rasterio.open(result["path"]) as cog:
        values = cog.read(1)[cog.read_masks(1) > 0]
    assert np.mean(values == 127) > 0.1
    # One that went round would be next to the largest, and there would be more of the smallest.
    assert np.mean(values < 0) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("levels", "words"), [((0, 128, 255), ["128 to 255"]), ((0, 1), []), ((0, 255), [])])
@pytest.mark.parametrize("target_crs", [None, "EPSG:4326"])
def test_grades_of_a_mask_are_named(tmp_path, levels, words, target_crs):
    """A mask in a COG has one bit: what was half transparent is valid whole."""
    path = write_raster(tmp_path / "soft.tif", pixels_of("uint8", side=SMALL))
    mask = np.array(levels, "uint8")[np.arange(SMALL) * len(levels) // SMALL]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.tile(mask, (SMALL, 1)))
    result = convert_raster(str(path), str(tmp_path / "out"), target_crs=target_crs)
    named = [each for each in result["changed"] if "grades" in each]
    assert named == [f"its mask has grades ({each}): all but 0 are valid" for each in words]
    if target_crs is None:
        with rasterio.open(result["path"]) as cog:
            assert np.array_equal(cog.read_masks(1)[0] > 0, mask > 0)
