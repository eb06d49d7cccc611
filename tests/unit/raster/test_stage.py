"""Nothing that a raster or a file beside it says makes GDAL open another file."""

import pytest

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.stage import FINGERPRINT_TAG, names_a_file, stage_raster
from tests.unit.raster.made import pixels_of, write_raster

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
