"""What the header of a raster shows is refused before a pixel is read, and not after its COG was written."""

import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, WktVersion
from rasterio.transform import Affine

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.plan import UnusableRaster
from tests.unit.raster.made import pixels_of, write_raster

FROM_SPACE = "+proj=nsper +h=3000000 +lat_0=40 +lon_0=10 +datum=WGS84"
SIDEWAYS = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=40 +lon_0=10 +datum=WGS84 +type=crs"


@pytest.fixture(autouse=True)
def _no_pixel_is_read(monkeypatch):
    monkeypatch.delattr("jobs.flood_risk_cog.convert.read_facts")


@pytest.fixture
def refuse(tmp_path):
    """The reason of a raster that is refused by its header."""

    def refuse(*, bands=1, dtype="uint8", edit=None, options=None, **profile):
        path = write_raster(tmp_path / "a.tif", pixels_of(dtype, bands=bands, side=40), **profile)
        if edit is not None:
            with rasterio.open(path, "r+") as dataset:
                edit(dataset)
        with pytest.raises(UnusableRaster) as refused:
            convert_raster(str(path), str(tmp_path / "out"), **(options or {}))
        assert list((tmp_path / "out").iterdir()) == []
        return refused.value.reason

    return refuse


def set_table(dataset):
    dataset.write_colormap(1, {value: (value, 0, 0, 255) for value in range(90)})


def test_a_palette_with_a_second_band_is_refused_with_what_to_do(refuse):
    """GDAL makes an alpha band of it; both tables begin with the same colours, and are left out of the reason."""
    reason = refuse(bands=2, edit=set_table, photometric="PALETTE")
    assert "expected colours [{}, 'gray'], found [{}, 'alpha']" in reason
    assert "rasters of their own (gdal_translate -b), or expand its palette (gdal_translate -expand rgb)" in reason


def test_grey_bands_of_a_file_of_colours_that_are_reprojected(tmp_path):
    """The metadata beside it calls them so; in the copy that is warped GDAL makes an alpha band of the fourth."""
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", bands=4, side=20))
    bands = "".join(f'<PAMRasterBand band="{n}"><ColorInterp>Gray</ColorInterp></PAMRasterBand>' for n in range(1, 5))
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    with pytest.raises(UnusableRaster, match=r"expected colours .*'gray'\], found .*'alpha'\]; a COG cannot tell"):
        convert_raster(str(path), str(tmp_path / "out"), target_crs="EPSG:4326")


@pytest.mark.parametrize(("crs", "size"), [(FROM_SPACE, 1000), (SIDEWAYS, 0.01)])
def test_a_system_that_a_geotiff_cannot_hold(refuse, crs, size):
    assert "coordinate system" in refuse(crs=crs, transform=Affine(size, 0, 0, 0, -size, 0))


def test_a_target_that_a_geotiff_cannot_hold(refuse):
    target = CRS.from_user_input(FROM_SPACE).to_wkt(version=WktVersion.WKT2_2019)
    assert "a GeoTIFF cannot hold it" in refuse(crs="EPSG:32632", options={"target_crs": target})


def one_alpha_band(dataset):
    dataset.colorinterp = [ColorInterp.alpha]


@pytest.mark.parametrize(
    ("profile", "options", "reason"),
    [
        ({"edit": one_alpha_band}, {"target_crs": "EPSG:4326"}, "an alpha band and no other to reproject"),
        ({"nodata": 1.5}, {"target_crs": "EPSG:4326"}, "its nodata 1.5 is no value of its type"),
        (
            {"crs": "EPSG:4326", "transform": Affine(0.001, 0, 0, 0, -0.001, 89)},
            {"target_crs": "EPSG:3857"},
            "beyond 85.06 degrees of latitude, where Mercator ends",
        ),
        (
            {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 179.8, 0, -0.01, 10)},
            {"web_optimized": True},
            "it lies across the antimeridian, where web maps end",
        ),
        (
            {"transform": Affine(9000, 0, 5e5, 0, -0.01, 3.3e6)},
            {"target_crs": "EPSG:4326"},
            "its pixels are no squares",
        ),
    ],
)
def test_what_cannot_be_reprojected(refuse, profile, options, reason):
    assert reason in refuse(options=options, **profile)


def test_a_description_that_is_no_text(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=20))
    with rasterio.open(path, "r+") as dataset:
        dataset.set_band_description(1, "K_ln")
    path.write_bytes(path.read_bytes().replace(b"K_ln", b"K\xf6ln"))
    with pytest.raises(UnusableRaster, match="its metadata is no UTF-8"):
        convert_raster(str(path), str(tmp_path / "out"))
