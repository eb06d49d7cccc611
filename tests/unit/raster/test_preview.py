"""The preview of a job through the API: which files it reads, and what it says when it cannot."""

import io
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from jobs.flood_risk_cog import preview
from jobs.flood_risk_cog.preview import Kept, Turns, shown_of
from jobs.flood_risk_cog.target import text_of
from jobs.views import ViewAnswer, ViewBusy, ViewFailed, ViewNotInstalled, ViewRequest, load_view, view_problems
from tests.unit.raster.previews import PREVIEW, PreviewServices, make_results
from tests.unit.raster.test_tiles import tile_of
from tests.unit.triggers.fakes import JOB_ID, Api
from triggers.ui.outline_map import draw_map


@pytest.fixture(scope="module")
def output(flood_samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("preview")
    result = make_results(flood_samples, folder / "out", "A <b>valley</b>")
    return folder / "out", result


@pytest.fixture
def api(output, monkeypatch):
    preview._read_shown.cache_clear()
    monkeypatch.setattr(preview, "_TILES", Kept(10, 1 << 20))
    return Api(PreviewServices(output[1]))


def middle_tile(page, zoom=12):
    west, south, east, north = page["footprints"][0]["box"]
    return zoom, *tile_of((west + east) / 2, (south + north) / 2, zoom)


def test_the_page_loads_nothing_but_its_own_parts(api):
    answer = api.get(f"{PREVIEW}?code=a%26b")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in answer.text
    assert 'src="preview/map.js?code=a%26b"' in answer.text
    for name in ("style.css", "map.js"):
        part = api.get(f"{PREVIEW}/{name}")
        assert part.status_code == 200
        assert "://" not in part.text


def test_figure_has_the_quicklook_and_the_outlines_by_return_period(api, output):
    request = ViewRequest(JOB_ID, 1, "completed", output[1])
    figure = preview.draw_figure(request)
    assert (figure.title, figure.picture) == ("A <b>valley</b>", "quicklook.png")
    assert {outline.group for outline in figure.outlines} == {"10 years", "50 years", "100 years", "500 years"}
    assert len(figure.outlines) == 4
    assert draw_map(figure.outlines) is not None
    picture = api.get(f"{PREVIEW}/quicklook.png")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(picture.content)).width > 100


def test_picture_outside_of_the_jobs_folder_is_not_read(api, output, tmp_path):
    elsewhere = tmp_path / "quicklook.png"
    elsewhere.write_bytes(b"somebody's")
    for path in (str(elsewhere), str(output[0] / "gone.png")):
        answer = Api(PreviewServices(output[1] | {"quicklook": path})).get(f"{PREVIEW}/quicklook.png")
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_show")


def test_layers_are_those_of_the_summary(api):
    page = api.get(f"{PREVIEW}/layers.json").json()
    assert page["title"] == "A <b>valley</b>"
    assert [layer["name"] for layer in page["layers"]] == ["10 years", "50 years", "100 years", "500 years"]
    assert {footprint["layer"] for footprint in page["footprints"]} == {0, 1, 2, 3}
    assert page["deepest"] == max(layer["max_depth"] for layer in page["layers"])


def test_a_tile_is_drawn_in_a_child_and_kept(api, monkeypatch):
    page = api.get(f"{PREVIEW}/layers.json").json()
    zoom, column, row = middle_tile(page)
    path = f"{PREVIEW}/tile-3-{zoom}-{column}-{row}.png"
    answer = api.get(path)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["content-type"], answer.headers["x-left-out"]) == ("image/png", "0")
    assert np.asarray(Image.open(io.BytesIO(answer.content))).any()

    def refuse(_work):
        raise AssertionError("asked again")

    monkeypatch.setattr(preview, "in_child", refuse)
    assert api.get(path).content == answer.content
    # Where nothing is, nobody is asked either.
    assert api.get(f"{PREVIEW}/tile-0-5-0-0.png").status_code == 200


def test_a_value_is_that_of_the_raster(api):
    import rasterio

    page = api.get(f"{PREVIEW}/layers.json").json()
    west, south, east, north = page["footprints"][-1]["box"]
    longitude, latitude = (west + east) / 2, (south + north) / 2
    answer = api.get(f"{PREVIEW}/values-{longitude:.7f},{latitude:.7f}.json")
    found = {value["layer"]: value["value"] for value in answer.json()["values"]}
    assert set(found) == {0, 1, 2, 3}
    path = f"{api.services.result['summary'].removesuffix('summary.json')}cogs/{page['footprints'][-1]['name']}.tif"
    with rasterio.open(path) as dataset:
        (x,), (y,) = rasterio.warp.transform("EPSG:4326", dataset.crs, [longitude], [latitude])
        (expected,) = next(dataset.sample([(x, y)], masked=True))
    assert found[3] == (None if expected is np.ma.masked else pytest.approx(float(expected)))


@pytest.mark.parametrize(
    "part",
    ["tile-9-1-0-0.png", "tile-0-99-0-0.png", "tile-0-2-4-0.png", "nothing", "..%2Fsummary.json", "values-181,0.json"],
)
def test_a_part_that_is_not_there_is_404(api, part):
    answer = api.get(f"{PREVIEW}/{part}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_job_without_a_catalog_is_409_and_one_of_another_type_404(output):
    answer = Api(PreviewServices(None)).get(PREVIEW)
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_show")
    answer = Api(PreviewServices(output[1], job_type="hello_world")).get(PREVIEW)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_preview")
    answer = Api(PreviewServices(output[1], job_type="of_another_app")).get(PREVIEW)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_preview")
    answer = Api(PreviewServices(output[1])).get(PREVIEW.replace("ab", "cd"))
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


def test_a_summary_that_is_gone_is_said(output):
    result = {"summary": str(output[0] / "elsewhere" / "summary.json")}
    answer = Api(PreviewServices(result, run=7)).get(f"{PREVIEW}/layers.json")
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_show")
    assert "run the job again" in answer.json()["detail"]


def test_a_remote_summary_is_read_by_a_child(output, monkeypatch):
    """A store that does not answer would hold a thread of the API."""
    asked = []

    def answer(work):
        asked.append(work)
        return {"bytes": 1, "text": (output[0] / "summary.json").read_text()}

    monkeypatch.setattr(preview, "in_child", answer)
    preview._read_shown.cache_clear()
    page = Api(PreviewServices({"summary": "s3://floods/out/summary.json"})).get(f"{PREVIEW}/layers.json")
    assert page.status_code == 200
    assert [(work["work"], work["path"]) for work in asked] == [("text", "s3://floods/out/summary.json")]
    shown = preview._read_shown(JOB_ID, 1, "s3://floods/out/summary.json")
    assert shown.layers[0].cogs[0].path.startswith("s3://floods/out/cogs/")
    assert text_of(str(output[0] / "summary.json"), 10)["text"] is None


def test_an_app_without_the_raster_libraries_says_so(api, monkeypatch):
    monkeypatch.setattr(preview, "NEEDED", ("no_such_library",))
    for path in (PREVIEW, f"{PREVIEW}/layers.json"):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (501, "preview_not_installed")
        assert "coremachine[raster]" in answer.json()["detail"]


def test_places_that_are_not_allowed_are_not_read(output, monkeypatch, tmp_path):
    monkeypatch.setenv("COREMACHINE_RASTER_ROOTS", str(tmp_path))
    preview._read_shown.cache_clear()
    answer = Api(PreviewServices(output[1])).get(f"{PREVIEW}/layers.json")
    assert answer.status_code == 409
    assert "COREMACHINE_RASTER_ROOTS" in answer.json()["detail"]


def test_only_files_inside_of_the_output_are_shown(output, tmp_path):
    """Somebody who may write to the folder has changed its summary, or a COG for a link."""
    summary = json.loads((output[0] / "summary.json").read_text())
    cogs = tmp_path / "cogs"
    cogs.mkdir()
    (tmp_path / "outside.tif").write_bytes(b"")
    names = ["../../etc/passwd.tif", "/etc/x.tif", "link.tif", "fine.tif"]
    elsewhere = output[0] / "cogs" / summary["rasters"][0]["name"]
    (cogs / "link.tif").symlink_to(elsewhere)
    changed = [{**summary["rasters"][0], "name": name} for name in names]
    shown = shown_of({**summary, "rasters": changed}, str(tmp_path))
    assert [cog.name for layer in shown.layers for cog in layer.cogs] == ["fine.tif"]
    assert "3 results are outside" in shown.page.decode()


def test_no_more_than_a_few_wait():
    turns = Turns(1, 1)
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with turns.taken():
            entered.set()
            leave.wait(30)

    first = threading.Thread(target=hold)
    first.start()
    assert entered.wait(30)
    turns._places.acquire()
    with pytest.raises(ViewBusy), turns.taken():
        pass
    turns._places.release()
    leave.set()
    first.join()
    with turns.taken():
        pass


def test_what_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(preview, "MOST_SECONDS", 0.0)

    class Slow:
        def convert(self, work, report, look):
            look("")

    monkeypatch.setattr(preview, "_CHILDREN", Slow())
    monkeypatch.setattr(preview, "_TURNS", Turns(1, 1))
    with pytest.raises(ViewFailed, match="longer than 0 s"):
        preview.in_child({"work": "tile"})


def test_kept_tiles_are_bounded():
    kept = Kept(3, 100)
    for number in range(5):
        kept.keep((number,), ViewAnswer(b"x" * 10, "image/png"))
    assert [kept.find((number,)) is not None for number in range(5)] == [False, False, True, True, True]
    kept.keep((9,), ViewAnswer(b"x" * 90, "image/png"))
    assert kept._bytes <= 100


def test_a_view_is_named_and_not_imported():
    assert view_problems("package.module:function") == view_problems(None) == []
    assert "expected 'package.module:function'" in view_problems("no function")[0]
    script = "import sys, jobs.views, jobs.all_jobs; jobs.views.load_view('jobs.flood_risk_cog.preview:show')\n"
    script += "print(sorted({'rasterio', 'numpy', 'pyproj', 'PIL'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
    with pytest.raises(ViewNotInstalled, match="no_such_module"):
        load_view("no_such_module:show")
