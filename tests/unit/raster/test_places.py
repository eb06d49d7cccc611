"""Nothing untrusted decides what is opened, and nothing foreign is overwritten."""

import json
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.crs import CRS

from core.context import TaskContext
from jobs.flood_risk_cog import handlers
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.job import FloodRiskCOGJob
from jobs.flood_risk_cog.marker import ForeignOutput, check_output, mark_output
from jobs.flood_risk_cog.places import PlaceRefused, Policy, check_place, is_computable, read_policy
from jobs.flood_risk_cog.plan import ConversionOptions, UnusableRaster
from jobs.flood_risk_cog.source import SourceNotFound
from jobs.parameters import ParameterErrors
from tests.unit.raster.made import pixels_of, write_raster

VRT = """<VRTDataset rasterXSize="10" rasterYSize="10"><SRS>EPSG:4326</SRS>
<GeoTransform>0,1,0,0,0,-1</GeoTransform><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativeToVRT="0">{path}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>
<LineOffset>10</LineOffset></VRTRasterBand></VRTDataset>"""
WMS = '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}</ServerUrl></Service></GDAL_WMS>'


@pytest.mark.parametrize("text", [VRT, WMS, "/vsicurl/http://127.0.0.1:9/a.tif", '{"type": "gdal_streamed_alg"}'])
def test_a_text_that_is_called_tif_opens_nothing(tmp_path, text):
    (tmp_path / "secret").write_bytes(b"secret" * 100)
    (tmp_path / "a.tif").write_text(text.replace("{path}", str(tmp_path / "secret")))
    with pytest.raises(UnusableRaster, match="cannot be opened as a GeoTIFF"):
        convert_raster(str(tmp_path / "a.tif"), str(tmp_path / "out"))


def test_a_mask_file_that_is_another_drivers_text_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret" * 100)
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"))
    (tmp_path / "a.tif.msk").write_text(VRT.replace("{path}", str(tmp_path / "secret")))
    with pytest.raises(UnusableRaster, match=r"a\.tif\.msk: expected a mask as TIFF"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_a_mask_or_metadata_linked_from_elsewhere_is_not_read(tmp_path, monkeypatch):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    path = write_raster(inside / "a.tif", pixels_of("uint8"))
    (outside / "x").write_text('<PAMDataset><Metadata><MDI key="SECRET">s</MDI></Metadata></PAMDataset>')
    (inside / "a.tif.aux.xml").symlink_to(outside / "x")
    monkeypatch.setenv("COREMACHINE_RASTER_ROOTS", f"{inside},{tmp_path / 'out'}")
    with pytest.raises(UnusableRaster, match=r"a\.tif\.aux\.xml: a link out of the allowed places"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_metadata_beside_it_that_gdal_does_not_read_changes_nothing(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"))
    (tmp_path / "a.aux.xml").write_text("<PAMDataset><SRS>EPSG:32632</SRS></PAMDataset>")
    assert convert_raster(str(path), str(tmp_path / "out"))["crs"] == "EPSG:32614"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("suffix", [".tfw", ".TFW", ".Wld", ".WLD"])
def test_a_world_file_is_taken_however_it_is_spelt(tmp_path, suffix):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"), transform=None)
    (tmp_path / f"a{suffix}").write_text("10\n0\n0\n-10\n500005\n3299995\n")
    result = convert_raster(str(path), str(tmp_path / "out"))
    assert result["transform"] == [10, 0, 500000, 0, -10, 3300000]


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_metadata_that_names_another_file_as_overviews_is_refused(tmp_path, where):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"))
    if where == "inside":
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(ns="OVERVIEWS", overview_file="/etc/passwd")
    else:
        item = '<Metadata domain="OVERVIEWS"><MDI key="overview_file">/etc/passwd</MDI></Metadata>'
        (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{item}</PAMDataset>")
    with pytest.raises(UnusableRaster, match="OVERVIEW_FILE"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_files_beside_a_raster_that_are_not_its_own_change_nothing(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    # GDAL would take overviews and a projection from these.
    for name in ("a.tif.ovr", "a.ovr", "a.prj"):
        (tmp_path / name).write_bytes(b"no such thing")
    result = convert_raster(str(path), str(tmp_path / "out"))
    with rasterio.open(result["path"]) as cog:
        assert np.array_equal(cog.read(), pixels_of("float32"))


@pytest.mark.parametrize(
    "place",
    [
        "zip://a.zip",
        "simplecache::https://x.example/a.tif",
        "reference://x",
        "/data/a::b",
        "github://a:b@/c",
        "FILE:///data",
        "file://localhost/data",
        "//host/share",
        "\\\\host\\share",
        "C:\\data",
        "~/data",
        "/data/../etc",
        "s3://bucket/../other",
        "https://x.example/%2e%2e/a",
        "/data/\0",
        "/data\n",
        "",
    ],
)
def test_a_place_that_is_not_what_it_seems_is_refused(place):
    with pytest.raises(PlaceRefused, match="expected"):
        check_place(place, policy=Policy())


@pytest.mark.parametrize(
    "place", ["/data", "data/in", "file:///data", "s3://bucket/a", "abfs://c@a.dfs.core.windows.net/x"]
)
def test_a_machine_of_ones_own_may_use_any_place(place):
    check_place(place, writes=True, policy=Policy())


def test_results_are_not_written_to_a_web_server():
    check_place("https://x.example/a.tif", policy=Policy())
    with pytest.raises(PlaceRefused, match="https"):
        check_place("https://x.example/a.tif", writes=True, policy=Policy())


def test_roots_bound_both_and_say_which_they_are(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    policy = read_policy({"COREMACHINE_RASTER_ROOTS": f"{tmp_path}, abfs://floods@account.dfs.core.windows.net/"})
    for place in (
        str(tmp_path),
        f"{tmp_path}/in",
        f"file://{tmp_path}/in",
        "abfs://floods@account.dfs.core.windows.net/x",
    ):
        check_place(place, policy=policy)
    for place in (
        "/etc",
        f"{tmp_path}-other",
        f"{tmp_path}/link/passwd",
        "abfs://floods@account.dfs.core.windows.net.evil.example/x",
        "abfs://other@account.dfs.core.windows.net/x",
        "s3://bucket/x",
    ):
        with pytest.raises(PlaceRefused, match="COREMACHINE_RASTER_ROOTS"):
            check_place(place, policy=policy)


def test_an_app_in_azure_allows_nothing_until_it_is_told():
    policy = read_policy({"WEBSITE_INSTANCE_ID": "x"})
    with pytest.raises(PlaceRefused, match="set COREMACHINE_RASTER_ROOTS"):
        check_place("/home/site/wwwroot", policy=policy)


@pytest.fixture
def parameters(tmp_path):
    (tmp_path / "in").mkdir()
    write_raster(tmp_path / "in" / "a.tif", pixels_of("float32"))
    return {"source": str(tmp_path / "in"), "output": str(tmp_path / "out")}


@pytest.mark.parametrize(
    "crs",
    [
        "http://127.0.0.1:9/crs",
        "/etc/passwd",
        "+proj=longlat +nadgrids=/etc/passwd",
        "+proj=utm +zone=14",
        "epsg.wkt",
        'BOUNDCRS[SOURCECRS[],PARAMETERFILE["/etc/passwd"]]',
        'GEOGCS["x",EXTENSION["PROJ4","+proj=longlat +nadgrids=@null"]]',
        "IGNF:LAMB93@2020",
    ],
)
def test_a_coordinate_system_that_names_something_else_is_refused_at_submission(parameters, crs):
    with pytest.raises(ParameterErrors, match="target_crs: expected an authority's code"):
        FloodRiskCOGJob.validate_job_parameters({**parameters, "target_crs": crs})


@pytest.mark.parametrize("crs", ["http://127.0.0.1:9/crs", "/etc/passwd", "+proj=longlat +nadgrids=/etc/passwd"])
def test_the_conversion_opens_nothing_for_a_coordinate_system_either(crs):
    with pytest.raises(ValueError, match="expected target_crs to be an authority's code"):
        ConversionOptions(target_crs=crs)


def test_the_inventory_looks_at_the_output_before_it_writes_there(parameters, monkeypatch, tmp_path):
    """A submission whose checks came to no end is accepted."""
    wanted = FloodRiskCOGJob.validate_job_parameters(parameters)
    monkeypatch.setenv("COREMACHINE_RASTER_ROOTS", str(tmp_path / "in"))
    context = TaskContext("0" * 64, "flood_risk_cog", 1, "1-inventory", 0, 1, wanted)
    with pytest.raises(PlaceRefused, match="COREMACHINE_RASTER_ROOTS"):
        handlers.inventory({}, context)
    assert not (tmp_path / "out").exists()


def test_a_code_and_a_whole_definition_are_taken(parameters):
    for crs in ("EPSG:4326", "OGC:CRS84", "ESRI:54009", CRS.from_epsg(32614).to_wkt()):
        assert FloodRiskCOGJob.validate_job_parameters({**parameters, "target_crs": crs})["target_crs"] == crs


def test_a_refused_place_is_not_looked_at(parameters):
    with pytest.raises(ParameterErrors) as caught:
        FloodRiskCOGJob.validate_job_parameters({**parameters, "source": "simplecache::http://127.0.0.1:9/a.tif"})
    (error,) = caught.value.errors
    assert (error.field, error.found) == ("source", "a chain of them (::)")


def test_an_output_belongs_to_the_parameters_that_it_was_made_with(parameters):
    mine = FloodRiskCOGJob.validate_job_parameters(parameters)
    mark_output(mine["output"], mine, "a" * 64)
    (Path(mine["output"]) / "cogs").mkdir()
    (Path(mine["output"]) / "cogs" / "a.tif").write_bytes(b"a result")
    mark_output(mine["output"], mine, "b" * 64)  # a rerun, or another job of the same parameters
    assert FloodRiskCOGJob.validate_job_parameters(parameters) == mine
    with pytest.raises(ParameterErrors, match="output: expected a folder of this job's own, found the results of"):
        FloodRiskCOGJob.validate_job_parameters({**parameters, "tile_size": 256})
    with pytest.raises(ForeignOutput, match="other parameters"):
        mark_output(mine["output"], {**mine, "tile_size": 256}, "c" * 64)


def test_a_marker_without_results_holds_nobody_up(parameters):
    mine = FloodRiskCOGJob.validate_job_parameters(parameters)
    mark_output(mine["output"], mine, "a" * 64)
    other = FloodRiskCOGJob.validate_job_parameters({**parameters, "tile_size": 256})
    mark_output(mine["output"], other, "b" * 64)
    assert check_output(mine["output"], other)


def test_foreign_files_are_not_overwritten(parameters):
    output = Path(parameters["output"])
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    assert check_output(str(output), parameters) is False
    (output / "summary.json").write_text('{"my": "work"}')
    with pytest.raises(ParameterErrors, match=r"files that this job did not write: summary\.json"):
        FloodRiskCOGJob.validate_job_parameters(parameters)


@pytest.mark.parametrize("name", ["a.tif", "a.tif.aux.xml", "a.tif.msk", "a.tif.ovr"])
def test_foreign_cogs_and_what_belongs_to_them_are_not_overwritten(parameters, name):
    cogs = Path(parameters["output"]) / "cogs"
    cogs.mkdir(parents=True)
    (cogs / name).write_bytes(b"somebody's")
    with pytest.raises(ParameterErrors, match=f"files that this job did not write: cogs/{re.escape(name)}"):
        FloodRiskCOGJob.validate_job_parameters(parameters)


def test_the_results_of_the_release_before_are_taken_over(parameters):
    output = Path(parameters["output"])
    output.mkdir()
    (output / "summary.json").write_text(json.dumps({"collection": "x", "totals": {}, "by_return_period": []}))
    mark_output(str(output), parameters, "a" * 64)


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(handler) -> str:
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.mark.usefixtures("closed_stores")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_raster_of_a_web_server_is_read_with_its_mask(tmp_path, serve, monkeypatch):
    (tmp_path / "www").mkdir()
    path = write_raster(tmp_path / "www" / "a.tif", pixels_of("float32"), "msk")
    assert (tmp_path / "www" / "a.tif.msk").exists()
    url = serve(partial(Quiet, directory=str(tmp_path / "www")))
    # Its copy and that of its mask lie in the temporary folder, which is no root.
    monkeypatch.setenv("COREMACHINE_RASTER_ROOTS", f"{url},{tmp_path / 'out'}")
    result = convert_raster(f"{url}/a.tif", str(tmp_path / "out"))
    with rasterio.open(path) as source, rasterio.open(result["path"]) as cog:
        assert np.array_equal(cog.read_masks(1), source.read_masks(1))
    with pytest.raises(SourceNotFound):
        convert_raster(f"{url}/b.tif", str(tmp_path / "out"))


@pytest.mark.usefixtures("closed_stores")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_redirect_to_another_host_is_not_followed(tmp_path, serve):
    (tmp_path / "www").mkdir()
    write_raster(tmp_path / "www" / "a.tif", pixels_of("float32"))
    there = serve(partial(Quiet, directory=str(tmp_path / "www")))

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"{there}{self.path}")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def log_message(self, *args):
            pass

    with pytest.raises(OSError, match="redirect to another host"):
        convert_raster(f"{serve(Elsewhere)}/a.tif", str(tmp_path / "out"))


@pytest.mark.parametrize("suffix", [".msk", ".aux.xml"])
def test_a_changed_sidecar_makes_a_new_result(tmp_path, suffix):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), "msk")
    first = convert_raster(str(path), str(tmp_path / "out"))
    assert convert_raster(str(path), str(tmp_path / "out"))["reused"] is True
    if suffix == ".msk":
        (tmp_path / "a.tif.msk").unlink()
    else:
        (tmp_path / "a.tif.aux.xml").write_text(
            '<PAMDataset><Metadata><MDI key="AUTHOR">me</MDI></Metadata></PAMDataset>'
        )
    again = convert_raster(str(path), str(tmp_path / "out"))
    assert again["reused"] is False
    with rasterio.open(again["path"]) as cog:
        if suffix == ".msk":
            assert cog.read_masks(1).min() == 255
            assert again["verification"]["valid_pixels"] != first["verification"]["valid_pixels"]
        else:
            assert cog.tags()["AUTHOR"] == "me"


def test_a_sidecar_that_is_no_metadata_is_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"))
    (tmp_path / "a.tif.aux.xml").write_text("<html>")
    with pytest.raises(UnusableRaster, match=r"a\.tif\.aux\.xml: expected GDAL's metadata as XML"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_a_coordinate_system_is_tried_once(monkeypatch):
    """Every raster of a job has the same target_crs: finding a way to it takes as long as some conversions."""
    tried = []
    from_crs = pyproj.Transformer.from_crs

    def counted(*ends, **options):
        tried.append(ends)
        return from_crs(*ends, **options)

    monkeypatch.setattr(pyproj.Transformer, "from_crs", counted)
    is_computable.cache_clear()
    systems = ("EPSG:3035", "ESRI:54099") * 2
    assert [is_computable(each) for each in systems] == [True, False, True, False]
    assert len(tried) == 2
