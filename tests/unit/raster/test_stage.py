"""Nothing that a raster or a file beside it says makes GDAL open another file."""

import os

import fsspec
import numpy as np
import pytest
import rasterio

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.inventory import list_rasters
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.source import open_raster, remote_sidecars, version_of
from jobs.flood_risk_cog.stage import FINGERPRINT_TAG, UnreadableSidecar, names_a_file, stage_raster
from tests.unit.raster.made import PLACE, hidden, pixels_of, write_raster

GRIDS = "+proj=utm +zone=14 +ellps=clrk66 +nadgrids={grid} +type=crs"


def test_a_grid_file_that_the_metadata_names_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    path.with_name("a.tif.aux.xml").write_text(
        f"<PAMDataset><SRS>{GRIDS.format(grid=tmp_path / 'x.gsb')}</SRS></PAMDataset>"
    )
    with pytest.raises(UnusableRaster, match="its coordinate system names a file"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_one_that_the_raster_names_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), crs=GRIDS.format(grid="x.gsb"))
    with pytest.raises(UnusableRaster, match="names a file"):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+proj=utm +nadgrids=@x.gsb", True),
        ("+proj=utm +nadgrids=@null,/x.gsb", True),
        ("+proj=longlat +geoidgrids=x.gtx", True),
        ('VERT_DATUM["x",2005,EXTENSION["PROJ4_GRIDS","x.gtx"]]', True),
        ('PARAMETERFILE["Latitude and longitude difference file","x.gsb"]', True),
        ("+init=/x:1", True),
        ('EXTENSION["PROJ4","+proj=merc +a=6378137 +nadgrids=@null +wktext +no_defs"]', False),
        ("EPSG:3857", False),
    ],
)
def test_what_names_a_file(text, expected):
    assert names_a_file(text) == expected


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('<PAMDataset><Metadata domain="xml:X" format="xml"><g:MD xmlns:g="urn:g"/></Metadata></PAMDataset>', "<g:MD "),
        ('<PAMDataset><Metadata><MDI key="A">1</MDI></Metadata></PAMDataset>', '<MDI key="A">1</MDI>'),
        ("<PAMDataset/>", "<PAMDataset>"),
        ("<PAMDataset></PAMDataset><!-- </PAMDataset> -->", "<PAMDataset>"),
    ],
)
def test_metadata_is_kept_as_it_was_written(tmp_path, text, kept):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    path.with_name("a.tif.aux.xml").write_text(text)
    folder = tmp_path / "staged"
    folder.mkdir()
    staged = stage_raster(str(path), folder, "f00d")
    assert kept in staged.with_name("source.tif.aux.xml").read_text()
    with open_raster(str(staged)) as dataset:
        assert dataset.tags()[FINGERPRINT_TAG] == "f00d"
        assert dataset.tags().get("A") == ("1" if '"A"' in text else None)


@pytest.mark.parametrize("spelt", ["a.tif.MSK", "a.tif.mSk", "A.TIF.msk"])
def test_a_mask_is_found_whatever_the_case_of_its_name(tmp_path, spelt):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), "msk")
    mask = path.with_name("a.tif.msk").rename(path.with_name(spelt))
    before = version_of(str(path))
    os.utime(mask, (1, 1))
    assert version_of(str(path)) != before
    assert [each["sidecars"] for each in list_rasters(str(tmp_path)).rasters] == [[spelt]]
    cog = convert_raster(str(path), str(tmp_path / "out"))["path"]
    with rasterio.open(cog) as dataset:
        assert np.array_equal(dataset.read_masks(1) == 0, hidden())


def test_a_world_file_is_found_whatever_the_case_of_its_name(tmp_path):
    path = tmp_path / "a.tif"
    path.touch()
    path.with_name("a.tfW").touch()
    folder = tmp_path / "staged"
    folder.mkdir()
    stage_raster(str(path), folder, "f00d")
    assert (folder / "source.tfw").readlink() == path.with_name("a.tfW")


def test_masks_that_differ_in_case_only_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    for name in ("a.tif", "a.tif.msk", "a.tif.MSK"):
        path.with_name(name).touch()
    (tmp_path / "staged").mkdir()
    with pytest.raises(UnreadableSidecar, match=r"a.tif.MSK and a.tif.msk: their names differ in case only; remove"):
        stage_raster(str(path), tmp_path / "staged", "f00d")


def test_a_raster_whose_name_differs_in_case_keeps_its_own_mask(tmp_path):
    for name in ("a.tif", "a.tif.msk", "A.tif", "A.tif.msk"):
        (tmp_path / name).touch()
    assert {each["name"]: each["sidecars"] for each in list_rasters(str(tmp_path)).rasters} == {
        "a.tif": ["a.tif.msk"],
        "A.tif": ["A.tif.msk"],
    }


def test_remote_files_are_copied_beside_the_copy_of_the_raster(tmp_path):
    names = ["A.TIF.Msk", "a.TFW", "a.tifw", "a.tif.aux.xml", "b.tfw"]
    found = dict(remote_sidecars("s3://b/f/a.tif?v=1", tmp_path / "x.tif", names))
    assert {url: here.name for url, here in found.items()} == {
        "s3://b/f/A.TIF.Msk?v=1": "x.tif.Msk",
        "s3://b/f/a.TFW?v=1": "x.TFW",
        "s3://b/f/a.tifw?v=1": "x.tifw",
        "s3://b/f/a.tif.aux.xml?v=1": "x.tif.aux.xml",
    }
    assert "s3://b/f/a.tif.MSK?v=1" in dict(remote_sidecars("s3://b/f/a.tif?v=1", tmp_path / "x.tif"))


def test_files_that_describe_a_raster_and_are_not_taken_are_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"))
    for name in ("a.IMD", "a_RPC.TXT", "a.tif.AUX.XML", "a.tif.vat.dbf", "b.IMD", "a.txt"):
        path.with_name(name).touch()
    (found,) = list_rasters(str(tmp_path)).rasters
    names = ["a.IMD", "a.tif.AUX.XML", "a.tif.vat.dbf", "a_RPC.TXT"]
    assert found["sidecars"] == names
    assert "a.IMD" in [each["name"] for each in list_rasters(str(tmp_path)).ignored]
    fsspec.filesystem("memory").pipe("/described/a.tif", path.read_bytes())
    for url in (str(path), "memory://described/a.tif"):
        result = convert_raster(url, str(tmp_path / "out"), sidecars=names)
        assert result["verification"]["lost"] == [f"file {each}" for each in names]


@pytest.mark.parametrize(
    ("number", "found"),
    [
        ("<NoDataValue>none</NoDataValue>", "NoDataValue is the text 'none'"),
        ("<nodatavalue>-nan</nodatavalue>", "nodatavalue is the text '-nan'"),
        ("<NoDataValue>-9999,5</NoDataValue>", "NoDataValue is the text '-9999,5'"),
        ("<Scale>1,5</Scale>", "Scale is the text '1,5'"),
        ("<Offset>abc</Offset>", "Offset is the text 'abc'"),
    ],
)
def test_a_text_in_the_metadata_that_is_no_number_is_refused(tmp_path, number, found):
    """GDAL takes what it begins with, and 0 where that is no digit: another value would be hidden or measured."""
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=20))
    text = f'<PAMDataset><PAMRasterBand band="1">{number}</PAMRasterBand></PAMDataset>'
    path.with_name("a.tif.aux.xml").write_text(text)
    with pytest.raises(UnusableRaster, match=f"a.tif.aux.xml: its {found}, which is no number"):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize("number", ["<NoDataValue/>", "<NoDataValue> -1.5E+3 </NoDataValue>", "<Scale>nan</Scale>"])
def test_a_number_or_none_in_the_metadata_is_gdal_s(tmp_path, number):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=20))
    text = f'<PAMDataset><PAMRasterBand band="1">{number}</PAMRasterBand></PAMDataset>'
    path.with_name("a.tif.aux.xml").write_text(text)
    folder = tmp_path / "staged"
    folder.mkdir()
    with rasterio.open(path) as source, open_raster(str(stage_raster(str(path), folder, "f00d"))) as staged:
        assert repr((source.nodata, source.scales)) == repr((staged.nodata, staged.scales))


def write_aux_of_imagine(path, *, side=20, nodata=7.0, **options):
    profile = {"width": side, "height": side, "count": 1, "dtype": "float32", "crs": "EPSG:32614", "transform": PLACE}
    with rasterio.open(path, "w", driver="HFA", AUX="YES", nodata=nodata, **profile, **options) as dataset:
        dataset.write(pixels_of("float32", side=side))
    return path


def test_nodata_in_a_metadata_file_of_erdas_imagine_hides_what_it_hides_for_gdal(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.arange(400, dtype="float32").reshape(1, 20, 20) % 10)
    aux = write_aux_of_imagine(tmp_path / "a.aux", DEPENDENT_FILE="a.tif")
    with rasterio.open(path) as dataset:
        assert dataset.nodata == 7
        expected = dataset.read_masks(1)
    result = convert_raster(str(path), str(tmp_path / "out"))
    assert result["verification"]["lost"] == ["file a.aux"]
    with rasterio.open(result["path"]) as cog:
        assert cog.nodata == 7
        assert np.array_equal(cog.read_masks(1), expected)
    assert [each["sidecars"] for each in list_rasters(str(tmp_path)).rasters] == [["a.aux"]]
    before = version_of(str(path))
    os.utime(aux, (1, 1))
    assert version_of(str(path)) != before


@pytest.mark.parametrize("other", ["size", "raster", "text", "xml"])
def test_a_metadata_file_of_erdas_imagine_that_gdal_does_not_take_hides_nothing(tmp_path, other):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=20))
    if other == "text":
        (tmp_path / "a.aux").write_text("LaTeX")
    else:
        write_aux_of_imagine(tmp_path / "a.aux", side=21 if other == "size" else 20, DEPENDENT_FILE="a.img")
    if other == "raster":
        (tmp_path / "a.img").touch()
    if other == "xml":
        (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset/>")
    folder = tmp_path / "staged"
    folder.mkdir()
    with open_raster(str(stage_raster(str(path), folder, "f00d"))) as dataset:
        assert dataset.nodata is None
