"""The flood risk job from parameters to result, in memory: its declarations, handlers and failures."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import numpy as np
import pystac
import pytest
import rasterio
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from rasterio._env import get_gdal_config
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from core.context import TaskContext
from core.errors import PermanentTaskError, TaskCancelled, classify
from core.models import Parallelism, StageDefinition
from jobs.all_jobs import ALL_HANDLERS, ALL_JOBS, build_registry
from jobs.flood_risk_cog import convert as conversion
from jobs.flood_risk_cog import handlers, quicklook
from jobs.flood_risk_cog.convert import InvalidOutput
from jobs.flood_risk_cog.job import FloodRiskCOGJob
from jobs.flood_risk_cog.marker import MARKER
from jobs.flood_risk_cog.memory import MOST_BLOCK_BYTES
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.process import ConversionEnded
from jobs.flood_risk_cog.scratch import ScratchOwner, scratch_folder
from jobs.flood_risk_cog.serve import do_work
from jobs.flood_risk_cog.source import SourceNotFound
from jobs.flood_risk_cog.target import UploadIncomplete
from jobs.parameters import ParameterErrors
from tests.unit.raster.in_process import InThisProcess

REGISTRY = build_registry(["tasks", "raster"])
# Of the rasters of a job: how it runs is no matter of their size.
SMALL_SIDE = 160
STEPS = ["read", "write", "validate", "verify", "store"]
ROTATED = Affine.translation(6e5, 3e6) @ Affine.rotation(20) @ Affine.scale(10, -10)


class Unreliable:
    """What happens to fsspec's memory store: lost connections, and uploads cut in half."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.lost_downloads = self.cut_uploads = 0

    def get_file(self, system, rpath, lpath, **kwargs):
        self.calls["get"] += 1
        if self.calls["get"] <= self.lost_downloads:
            Path(lpath).write_bytes(b"half")
            raise ConnectionResetError("the store went away")
        AbstractFileSystem.get_file(system, rpath, lpath, **kwargs)

    def put_file(self, system, lpath, rpath, **kwargs):
        self.calls["put"] += 1
        AbstractFileSystem.put_file(system, lpath, rpath, **kwargs)
        if self.calls["put"] <= self.cut_uploads:
            system.pipe_file(rpath, b"half")


@pytest.fixture
def unreliable(monkeypatch):
    faults = Unreliable()

    # Functions, unlike bound methods, are handed the store that they are called on.
    def get_file(system, rpath, lpath, **kwargs):
        faults.get_file(system, rpath, lpath, **kwargs)

    def put_file(system, lpath, rpath, **kwargs):
        faults.put_file(system, lpath, rpath, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    return faults


@pytest.fixture
def store(monkeypatch):
    """An empty remote store, `memory://`."""
    monkeypatch.setattr(handlers, "PROCESSES", InThisProcess())
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return fsspec.filesystem("memory")


@pytest.fixture(scope="module")
def small_samples(flood_samples, tmp_path_factory):
    """The middle of three sample rasters: jobs of whole ones are those of `test_catalog` and of the demo."""
    folder = tmp_path_factory.mktemp("small")
    for path in flood_samples[:3]:
        with rasterio.open(path) as whole:
            window = Window(whole.width // 2 - SMALL_SIDE // 2, whole.height // 2, SMALL_SIDE, SMALL_SIDE)
            place = {"width": SMALL_SIDE, "height": SMALL_SIDE, "transform": whole.window_transform(window)}
            with rasterio.open(folder / path.name, "w", **{**whole.profile, **place}) as part:
                part.write(whole.read(window=window))
                part.units, part.descriptions = whole.units, whole.descriptions
                part.update_tags(**whole.tags())
    return folder


@pytest.fixture
def source(small_samples, tmp_path):
    """A folder of the test's own with three good rasters."""
    return shutil.copytree(small_samples, tmp_path / "source")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def add_bad_rasters(source, make_raster):
    (source / "corrupt.tif").write_bytes(b"II*\0 and then nothing of use")
    make_raster("rotated.tif", transform=ROTATED)
    make_raster("placeless.tif", crs=None)
    damaged = Path(make_raster("damaged.tif", tiled=True, blockxsize=256, blockysize=256, compress="deflate"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2 : len(content) * 3 // 4] = b"\xff" * (len(content) * 3 // 4 - len(content) // 2)
    damaged.write_bytes(content)


def files_of(folder: Path) -> dict[str, bytes]:
    """Without the marker, which names the job."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if name != MARKER}


def context(**parameters):
    return TaskContext(
        job_id="0" * 64,
        job_type="flood_risk_cog",
        stage=2,
        task_id="2-a.tif",
        task_index=0,
        attempt=1,
        job_parameters=FloodRiskCOGJob.validate_job_parameters(parameters),
    )


def test_the_stages_say_how_they_run():
    inventory, convert, catalog, account = FloodRiskCOGJob.definition().stages
    kinds = [stage.parallelism for stage in (inventory, convert, catalog)]
    assert kinds == [Parallelism.SINGLE, Parallelism.FAN_OUT, Parallelism.FAN_IN]
    assert (convert.tasks_per_message, convert.lease_seconds, convert.failure.on_failure) == (1, 120, "continue")
    assert (account.parallelism, account.failure.on_failure) == (Parallelism.FAN_OUT, "continue")
    assert {stage.failure.on_failure for stage in (inventory, catalog)} == {"fail_job"}
    assert {REGISTRY.find_handler(stage.task_type).queue for stage in (inventory, convert, catalog)} == {"raster"}


def test_every_resampling_that_may_be_asked_for_is_known_to_the_conversion():
    allowed = FloodRiskCOGJob.parameters_schema["resampling"]["allowed"]
    assert set(allowed) - {"auto"} <= set(Resampling.__members__)


def test_the_app_has_both_jobs_and_a_handler_of_each_task_type():
    assert {job.job_type for job in ALL_JOBS} == {"hello_world", "flood_risk_cog"} == set(REGISTRY.job_types)
    assert len({handler.task_type for handler in ALL_HANDLERS}) == len(ALL_HANDLERS) == 6


def test_starting_the_app_imports_no_raster_library():
    heavy = ["rasterio", "numpy", "fsspec", "pystac", "rio_cogeo", "rio_stac"]
    code = (
        "import sys; from jobs.all_jobs import build_registry; build_registry(['tasks', 'raster']); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_without_the_raster_libraries_says_what_to_install(source, output):
    """A library that is not there, as the import system reports it: None in sys.modules."""
    code = (
        "import sys; sys.modules['rasterio'] = None\n"
        "from core.context import TaskContext\n"
        "from core.errors import classify\n"
        "from jobs.all_jobs import build_registry\n"
        f"parameters = {FloodRiskCOGJob.validate_job_parameters({'source': str(source), 'output': str(output)})!r}\n"
        "handler = build_registry(['tasks', 'raster']).find_handler('flood_risk_inventory')\n"
        "try:\n"
        "    handler.function({}, TaskContext('0' * 64, 'flood_risk_cog', 1, 't', 0, 1, parameters))\n"
        "except Exception as error:\n"
        "    print(classify(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "error_type='RasterExtraMissing'" in done.stdout
    assert "pip install 'coremachine[raster]'" in done.stdout
    assert "retryable=False" in done.stdout


def test_a_source_that_is_missing_or_has_rasters_only_further_down_is_refused_at_submit(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.tif").touch()
    for source in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ParameterErrors, match="source: expected"):
            FloodRiskCOGJob.validate_job_parameters({"source": str(source), "output": str(tmp_path / "out")})


def test_unknown_parameters_and_values_are_refused_at_submit(source, output):
    wrong = {"tile_size": 300, "compression": "jpeg", "resampling": "best", "collection_id": "../up", "tilesize": 256}
    with pytest.raises(ParameterErrors) as refused:
        FloodRiskCOGJob.validate_job_parameters({"source": str(source), "output": str(output), **wrong})
    assert {error.field for error in refused.value.errors} == set(wrong)


def test_good_rasters_become_cogs_with_a_catalog(run_job, source, output):
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output), "title": "Floods"})

    assert run.status == "completed"
    assert (run.summary["converted"], run.summary["failed"], run.summary["reused"]) == (3, 0, 0)
    assert run.summary["failures"] == []
    collection = pystac.Collection.from_file(run.summary["collection"])
    assert (collection.id, collection.title, len(list(collection.get_items()))) == ("flood-risk", "Floods", 3)
    for item in collection.get_items():
        with rasterio.open(item.assets["data"].get_absolute_href()) as dataset:
            assert Path(dataset.name).parent == output / "cogs"
    assert json.loads(Path(run.summary["summary"]).read_text())["totals"] == run.summary["totals"]
    assert run.summary["totals"]["flooded_area_km2"] > 0
    assert Path(run.summary["quicklook"]).stat().st_size > 0


def test_bad_rasters_fail_with_a_reason_and_stop_none_of_the_others(run_job, source, output, make_raster):
    add_bad_rasters(source, make_raster)
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})

    assert run.status == "completed_with_errors"
    assert (run.summary["converted"], run.summary["failed"]) == (3, 4)
    reasons = {failure["name"]: failure["reason"] for failure in run.summary["failures"]}
    for name, words in (
        ("corrupt.tif", "cannot be opened as a GeoTIFF"),
        ("rotated.tif", "its grid is rotated or skewed"),
        ("placeless.tif", "no coordinate reference system"),
        ("damaged.tif", "its data is damaged in rows"),
    ):
        assert reasons[name].startswith("it")
        assert words in reasons[name]
    # A person's fault is not the network's: one attempt each.
    assert {(task.error["attempt"], task.error["retryable"]) for task in run.stages[1].failures} == {(1, False)}
    assert run.stages[0].tasks[0].result["unreadable"] == 1
    assert json.loads(Path(run.summary["summary"]).read_text())["totals"]["failed"] == 4
    assert sorted(path.name for path in (output / "cogs").glob("*.tif")) == sorted(
        path.name for path in source.iterdir() if path.name.startswith("flood_depth")
    )


def test_a_job_result_names_at_most_twenty_failures(run_job, source, output):
    for index in range(25):
        (source / f"bad{index}.tif").write_bytes(b"no raster")
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    assert (run.summary["failed"], len(run.summary["failures"])) == (25, 20)
    assert len(json.loads(Path(run.summary["summary"]).read_text())["failures"]) == 25


def test_the_same_job_again_has_the_same_id_and_reuses_every_result(run_job, source, output):
    parameters = {"source": str(source), "output": str(output)}
    first = run_job(REGISTRY, "flood_risk_cog", parameters)
    written = files_of(output)
    again = run_job(REGISTRY, "flood_risk_cog", {**parameters, "tile_size": 512})

    assert again.job_id == first.job_id
    assert (again.summary["reused"], again.summary["totals"]) == (3, first.summary["totals"])
    assert files_of(output) == written


def test_the_same_job_elsewhere_writes_the_same_bytes(run_job, source, tmp_path):
    outputs = [tmp_path / "one", tmp_path / "two"]
    for output in outputs:
        run_job(REGISTRY, "flood_risk_cog", {"source": f"file://{source}", "output": f"file://{output}"})
    one, two = (files_of(output) for output in outputs)
    assert one == two
    mosaics = [name for name in one if name.startswith("mosaic-")]
    assert len(one) == 3 + 3 + 3 + 4 + len(mosaics) + 1


def test_output_may_be_inside_of_a_source_whose_folders_are_not_read(run_job, source):
    parameters = {"source": str(source), "output": str(source / "floods")}
    assert run_job(REGISTRY, "flood_risk_cog", parameters).summary["converted"] == 3
    assert run_job(REGISTRY, "flood_risk_cog", parameters).summary["reused"] == 3


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"source": "{in}", "output": "{in}"}, "output: expected another folder than the source's"),
        ({"source": "{in}", "output": "file://{in}/"}, "output: expected another folder than the source's"),
        ({"source": "{in}", "output": "{link}"}, "output: expected another folder than the source's"),
        ({"source": "{in}/*.tif", "output": "{in}"}, "output: expected another folder than the source's"),
        ({"source": "{in}/{file}", "output": "{in}"}, "output: expected another folder than the source's"),
        (
            {"source": "{in}", "output": "{in}/out", "recursive": True},
            "output: expected a folder outside of the source",
        ),
        ({"source": "{in}/**/*.tif", "output": "{in}/out"}, "output: expected a folder outside of the source"),
        ({"source": "{in}", "output": "{up}", "name": "cogs"}, "source: expected a folder other than cogs of the out"),
        ({"source": "memory://in/", "output": "memory://in"}, "output: expected another folder than the source's"),
    ],
)
def test_results_are_not_written_among_the_sources(source, tmp_path, given, field):
    given = dict(given)
    if name := given.pop("name", None):
        source = source.rename(tmp_path / name)
    (tmp_path / "link").symlink_to(source)
    names = {"{in}": source, "{up}": tmp_path, "{link}": tmp_path / "link", "{file}": next(source.iterdir()).name}
    for name, text in given.items():
        for mark, place in names.items():
            given[name] = given[name].replace(mark, str(place)) if isinstance(text, str) else text
    with pytest.raises(ParameterErrors) as refused:
        FloodRiskCOGJob.validate_job_parameters(given)
    assert any(error.message.startswith(field) for error in refused.value.errors), str(refused.value)


def test_results_are_small_and_carry_their_statistics(run_job, source, output, make_raster):
    make_raster("custom.tif", crs="+proj=laea +lat_0=30 +lon_0=-96 +datum=WGS84 +units=m")
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    assert len(run.stages[1].tasks) == 4
    assert max(len(json.dumps(task.result)) for task in run.stages[1].tasks) < 8 * 1024
    assert all(task.result["statistics"]["flooded_pixels"] for task in run.stages[1].tasks)


def test_progress_only_grows_and_names_the_step(run_job, source, output, monkeypatch):
    by_task: dict[str, list] = {}

    def progress(context, percent, step=None):
        by_task.setdefault(context.task_id, []).append((percent, step))

    monkeypatch.setattr(TaskContext, "progress", progress)
    run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    assert len(by_task) == 1 + 3 + 1
    for steps in by_task.values():
        assert [percent for percent, _ in steps] == sorted(percent for percent, _ in steps)
    steps = [step for _, step in by_task["s2-flood_depth_tile00_rp10.tif"]]
    assert list(dict.fromkeys(steps)) == STEPS
    assert by_task["s1-inventory"][-1] == (100, "opened 3 of 3")


@pytest.mark.parametrize("step", STEPS)
def test_a_cancelled_conversion_stops_before_its_next_step_and_leaves_nothing(source, output, monkeypatch, step):
    """In a process of its own it does so before the last step; `test_process` has another one."""
    if step != STEPS[-1]:
        monkeypatch.setattr(handlers, "PROCESSES", InThisProcess())
    seen = []
    task = context(source=str(source), output=str(output))
    watched = TaskContext(
        **{name: getattr(task, name) for name in ("job_id", "job_type", "stage", "task_id", "task_index", "attempt")},
        job_parameters=task.job_parameters,
        _report=lambda said: seen.append(said["message"]),
        _stop_requested=lambda: len(set(seen)) >= STEPS.index(step),
    )
    with pytest.raises(TaskCancelled):
        handlers.convert({"path": str(source / "flood_depth_tile00_rp10.tif")}, watched)
    assert step not in seen
    assert list((output / "cogs").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_crs": "EPSG:99999"}, "target_crs: expected a coordinate system that PROJ knows"),
        ({"target_crs": "EPSG:9518"}, "target_crs: expected a system without heights.*give its horizontal part alone"),
        (
            {"target_crs": "EPSG:4326", "web_optimized": True},
            "target_crs: expected EPSG:3857 or nothing beside web_opt",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_at_submission(source, output, options, words):
    with pytest.raises(ParameterErrors, match=words):
        FloodRiskCOGJob.validate_job_parameters({"source": str(source), "output": str(output), **options})


def test_options_that_cannot_work_take_no_output_folder(source, output):
    """An app without the raster libraries takes submissions unseen."""
    task = context(source=str(source), output=str(output))
    wanted = {**task.job_parameters, "target_crs": "EPSG:99999"}
    asked = TaskContext(task.job_id, task.job_type, 1, "1-inventory", 0, 1, wanted)
    with pytest.raises(ValueError, match="expected target_crs such as EPSG:4326"):
        handlers.inventory({}, asked)
    assert not output.exists()


@pytest.mark.parametrize(
    ("crs", "profile", "words"),
    [
        ('LOCAL_CS["site",UNIT["metre",1]]', {}, "neither geographic nor projected"),
        ("IAU_2015:30100", {"transform": Affine(0.01, 0, 10, 0, -0.01, 10)}, "IAU_2015:30100 is not of the Earth"),
        ("EPSG:32614", {"transform": Affine(10, 0, 1e9, 0, -10, 1e9)}, "lie outside of its coordinate system"),
        ("EPSG:4326", {"transform": Affine(0.01, 0, 10, 0, -0.01, 400)}, "lie outside of its coordinate system"),
    ],
)
def test_a_raster_that_the_catalog_could_not_place_fails_alone(
    run_job, source, output, make_raster, crs, profile, words
):
    make_raster("astray.tif", crs=crs, **profile)
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    assert run.status == "completed_with_errors"
    assert run.summary["converted"] == 3
    assert words in run.summary["failures"][0]["reason"]


def test_errors_of_the_raster_are_permanent_those_of_the_outside_are_not():
    for error in (UnusableRaster("a.tif", "it is bad"), SourceNotFound("a.tif"), PermanentTaskError("no")):
        assert not classify(error).retryable
    for error in (
        ConnectionResetError(),
        UploadIncomplete("x", 2, 1),
        rasterio.errors.RasterioIOError("read"),
        InvalidOutput("x"),
        OSError(28, "No space left on device"),
    ):
        assert classify(error).retryable


def upload(store, source):
    for path in source.iterdir():
        store.pipe_file(f"/in/{path.name}", path.read_bytes())


def test_a_remote_source_and_output_work_and_are_reused(run_job, store, unreliable, source, make_raster):
    add_bad_rasters(source, make_raster)
    upload(store, source)
    parameters = {"source": "memory://in", "output": "memory://out/run"}
    run = run_job(REGISTRY, "flood_risk_cog", parameters)

    assert (run.summary["converted"], run.summary["failed"], run.summary["reused"]) == (3, 4, 0)
    # Damage in a remote raster is told from a lost connection: its bytes arrived, so it is not tried again.
    assert {task.error["attempt"] for task in run.stages[1].failures} == {1}
    assert unreliable.calls["get"] == 7
    names = sorted(name.removeprefix("/out/run/") for name in store.find("/out"))
    assert {name for name in names if "/" not in name and not name.startswith("mosaic-")} == {
        MARKER,
        "collection.json",
        "items.parquet",
        "quicklook.png",
        "summary.json",
        "verification.json",
    }
    assert len([name for name in names if name.startswith("cogs/")]) == 2 * 3
    stem = next(name for name in names if name.startswith("items/")).split("/")[1]
    item = json.loads(store.cat(f"/out/run/items/{stem}/{stem}.json"))
    assert item["assets"]["data"]["href"] == f"../../cogs/{stem}.tif"
    assert run_job(REGISTRY, "flood_risk_cog", parameters).summary["reused"] == 3


def test_local_and_remote_outputs_are_the_same_bytes(run_job, store, source, output):
    run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": "memory://out"})
    remote = {name.removeprefix("/out/"): store.cat(name) for name in store.find("/out") if not name.endswith(MARKER)}
    assert remote == files_of(output)


def test_a_lost_connection_is_tried_again_and_leaves_no_half_raster(run_job, store, unreliable, source, output):
    unreliable.lost_downloads = 4
    upload(store, source)
    run = run_job(REGISTRY, "flood_risk_cog", {"source": "memory://in", "output": str(output)})
    assert run.status == "completed"
    assert unreliable.calls["get"] == 4 + 3
    assert all(not path.name.startswith(".") for path in (output / "cogs").iterdir())


def test_a_store_that_stays_away_fails_the_task_after_its_attempts(run_job, store, unreliable, source, output):
    unreliable.lost_downloads = 1000
    upload(store, source)
    run = run_job(REGISTRY, "flood_risk_cog", {"source": "memory://in", "output": str(output)})
    assert run.status == "completed_with_errors"
    errors = [task.error for task in run.stages[1].failures]
    assert {(error["attempt"], error["type"]) for error in errors} == {(5, "ConnectionResetError")}
    assert run.summary["failures"][0]["reason"] == "the store went away"


def test_half_an_upload_is_noticed_and_sent_again(run_job, store, unreliable, source):
    """Files were half written, or overwritten by an older attempt (lesson D22)."""
    unreliable.cut_uploads = 1
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": "memory://out"})
    assert (run.status, run.summary["reused"]) == ("completed", 0)
    sizes = {store.info(name)["size"] for name in store.find("/out/cogs")}
    assert min(sizes) > len(b"half")


def test_scratch_of_a_killed_attempt_is_swept_by_the_next(source, output):
    task = context(source=str(source), output=str(output))
    with scratch_folder(output / "cogs", ScratchOwner(task.job_id, task.task_id, 1)) as folder:
        left = folder.rename(folder.with_name("aside"))
        folder.mkdir()
    left = left.rename(folder)
    second = TaskContext(task.job_id, task.job_type, 2, task.task_id, 0, 2, task.job_parameters)
    handlers.convert({"path": str(source / "flood_depth_tile00_rp10.tif")}, second)
    name = "flood_depth_tile00_rp10.tif"
    assert {path.name for path in (output / "cogs").iterdir()} == {name, "flood_depth_tile00_rp10.proof.json"}


def test_gdal_keeps_its_cache_small_in_every_step(source, output):
    """The bound holds for reads of the statistics too: outside an Env GDAL takes a share of the machine's memory
    (lesson D41)."""
    found = {}
    path = str(source / "flood_depth_tile00_rp10.tif")
    conversion.convert_raster(
        path, str(output), report=lambda step, _share: found.update({step: get_gdal_config("GDAL_CACHEMAX")})
    )
    assert set(found) == set(STEPS)
    assert max(found.values()) <= MOST_BLOCK_BYTES


def test_a_message_asks_for_one_raster():
    """So that those at work at once are no more than the messages that the host hands to a process (lesson D41)."""
    (stage,) = [stage for stage in FloodRiskCOGJob.stages if stage["task_type"] == "flood_risk_convert"]
    assert StageDefinition.model_validate(stage).tasks_per_message == 1


def test_a_source_of_one_file_is_one_raster(run_job, source, output):
    path = source / "flood_depth_tile00_rp10.tif"
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(path), "output": str(output)})
    assert [task.name for task in run.stages[1].tasks] == [path.name]


def test_pixels_survive_the_whole_job(run_job, source, output):
    run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    for path in source.iterdir():
        with rasterio.open(path) as before, rasterio.open(output / "cogs" / path.name) as after:
            assert np.array_equal(before.read(), after.read())


def test_a_raster_that_the_catalog_lacks_ends_the_job_with_errors_and_its_catalog(run_job, source, output, monkeypatch):
    real = quicklook.add_depths

    def fails_once(depths, frame, path, box):
        if "rp50" in path:
            raise ValueError("no place on this map")
        return real(depths, frame, path, box)

    monkeypatch.setattr(handlers, "PROCESSES", InThisProcess())
    monkeypatch.setattr(quicklook, "add_depths", fails_once)
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    assert (run.status, run.summary["converted"], run.summary["failed"]) == ("completed_with_errors", 3, 0)
    (failure,) = run.stages[3].failures
    assert failure.name == "flood_depth_tile00_rp50.tif"
    assert "no place on this map" in failure.error["message"]
    assert (output / "quicklook.png").exists()
    assert (output / "collection.json").exists()


def test_a_result_whose_source_is_gone_is_reported_and_left(run_job, source, output):
    parameters = {"source": str(source), "output": str(output)}
    run_job(REGISTRY, "flood_risk_cog", parameters)
    (source / "flood_depth_tile00_rp10.tif").unlink()
    (output / "cogs" / "mine.tif").write_bytes(b"not a result: it has no proof")
    run = run_job(REGISTRY, "flood_risk_cog", parameters)
    assert (run.summary["stale"], run.summary["stale_names"]) == (1, ["cogs/flood_depth_tile00_rp10.tif"])
    summary = json.loads((output / "summary.json").read_text())
    name = "flood_depth_tile00_rp10"
    items = [f"items/{name}/{name}.json"]
    assert summary["stale_results"] == {"action": "keep", "names": [f"cogs/{name}.tif"], "items": items}
    assert (output / items[0]).exists()
    assert summary["kept_results"] == []
    assert (output / "cogs" / "flood_depth_tile00_rp10.tif").exists()
    assert len(pystac.Collection.from_file(str(output / "collection.json")).get_item_links()) == 2


@pytest.mark.parametrize("place", ["local", "remote"])
def test_an_earlier_result_of_a_raster_that_fails_now_is_named(run_job, store, source, output, place):
    parameters = {"source": str(source), "output": "memory://floods" if place == "remote" else str(output)}
    first = run_job(REGISTRY, "flood_risk_cog", parameters)
    assert (first.summary["kept"], first.summary["kept_names"]) == (0, [])
    (source / "flood_depth_tile00_rp50.tif").write_bytes(b"damaged")
    before = datetime.now(UTC)
    (source / "never.tif").write_bytes(b"damaged, and never converted")
    run = run_job(REGISTRY, "flood_risk_cog", parameters)
    assert (run.summary["kept"], run.summary["kept_names"]) == (1, ["cogs/flood_depth_tile00_rp50.tif"])
    assert (run.summary["stale"], run.summary["failed"]) == (0, 2)

    def read(path):
        return store.cat(f"/floods/{path}") if place == "remote" else (output / path).read_bytes()

    (kept,) = json.loads(read("summary.json"))["kept_results"]
    name = "flood_depth_tile00_rp50"
    assert (kept["cog"], kept["item"]) == (f"cogs/{name}.tif", f"items/{name}/{name}.json")
    assert 0 <= (before - datetime.fromisoformat(kept["written_at"])).total_seconds() < 600
    assert read(kept["cog"])
    assert read(kept["item"])
    assert name.encode() not in read("collection.json")


@pytest.mark.parametrize("action", ["move", "remove"])
def test_a_result_whose_source_is_gone_is_moved_or_removed_when_asked_for(run_job, source, output, action):
    parameters = {"source": str(source), "output": str(output)}
    run_job(REGISTRY, "flood_risk_cog", parameters)
    (source / "flood_depth_tile00_rp10.tif").unlink()
    # A raster that fails now has a source: its older result stays.
    (source / "flood_depth_tile00_rp50.tif").write_bytes(b"damaged")
    run = run_job(REGISTRY, "flood_risk_cog", {**parameters, "stale_results": action})
    assert (run.status, run.summary["stale"]) == ("completed_with_errors", 1)
    assert sorted(path.name for path in (output / "cogs").glob("*.tif")) == [
        "flood_depth_tile00_rp100.tif",
        "flood_depth_tile00_rp50.tif",
    ]
    assert not (output / "items" / "flood_depth_tile00_rp10").exists()
    moved = {path.relative_to(output / "stale").as_posix() for path in (output / "stale").rglob("*") if path.is_file()}
    name = "flood_depth_tile00_rp10"
    expected = {f"cogs/{name}.tif", f"cogs/{name}.proof.json", f"items/{name}/{name}.json"}
    assert moved == (expected if action == "move" else set())
    again = run_job(REGISTRY, "flood_risk_cog", {**parameters, "stale_results": action})
    assert again.summary["stale"] == 0


@pytest.mark.parametrize("action", ["move", "remove"])
def test_stale_results_of_a_remote_output(run_job, store, source, action):
    parameters = {"source": str(source), "output": "memory://floods"}
    run_job(REGISTRY, "flood_risk_cog", parameters)
    (source / "flood_depth_tile00_rp10.tif").unlink()
    run = run_job(REGISTRY, "flood_risk_cog", {**parameters, "stale_results": action})
    assert run.summary["stale_names"] == ["cogs/flood_depth_tile00_rp10.tif"]
    assert not store.exists("/floods/cogs/flood_depth_tile00_rp10.tif")
    assert store.exists("/floods/stale/cogs/flood_depth_tile00_rp10.tif") is (action == "move")


def test_what_is_done_with_stale_results_is_no_other_job(source, output):
    ids = set()
    for action in ("keep", "move", "remove"):
        parameters = {"source": str(source), "output": str(output), "stale_results": action}
        ids.add(FloodRiskCOGJob.generate_job_id(FloodRiskCOGJob.validate_job_parameters(parameters)))
    assert len(ids) == 1


def test_ignored_files_are_in_the_jobs_result(run_job, source, output):
    for name in ("._a.tif", "notes.txt"):
        (source / name).write_bytes(b"1")
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    assert run.summary["ignored"] == 2
    assert [each["name"] for each in run.summary["ignored_names"]] == ["._a.tif", "notes.txt"]
    assert run.summary["preview"].endswith("/preview")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"source": "rasters", "output": "/cogs"}, "source: expected an absolute path or a URL"),
        ({"source": "./rasters/*.tif", "output": "/cogs"}, "source: expected an absolute path or a URL"),
        ({"source": "/data/*.tif", "output": "/cogs", "recursive": True}, "recursive: expected false where"),
        ({"source": "/data", "output": "cogs"}, "output: expected an absolute path or a URL"),
    ],
)
def test_places_that_could_be_misunderstood_are_refused(parameters, words):
    with pytest.raises(ParameterErrors) as refused:
        FloodRiskCOGJob.validate_job_parameters(parameters)
    assert any(error.message.startswith(words) for error in refused.value.errors), str(refused.value)


def test_a_relative_path_is_answered_with_the_folder_that_it_would_be_in():
    with pytest.raises(ParameterErrors, match=str(Path("rasters").absolute())):
        FloodRiskCOGJob.validate_job_parameters({"source": "rasters", "output": "/cogs"})


def test_a_raster_that_ends_the_process_that_opens_it_costs_no_other(source, output, monkeypatch):
    """A file that makes GDAL crash ended the worker, with all of its tasks."""

    class Crashing:
        def __init__(self):
            self.asked = []

        def convert(self, request, report, look):
            self.asked.append(len(request["paths"]))
            if any("rp50" in path for path in request["paths"]):
                raise ConversionEnded(-11, "")
            return do_work(**request)

    children = Crashing()
    monkeypatch.setattr(handlers, "PROCESSES", children)
    result = handlers.inventory({}, context(source=str(source), output=str(output)))
    assert children.asked == [3, 1, 1, 1]
    assert (len(result["rasters"]), result["unreadable"]) == (3, 1)
    assert result["problems"][0]["name"] == "flood_depth_tile00_rp50.tif"
    assert "ended the process" in result["problems"][0]["reason"]


def test_the_worker_itself_opens_no_raster(source, output, run_job, monkeypatch):
    from jobs.flood_risk_cog import source as opening

    def refuse(*_args, **_options):
        raise AssertionError("opened in the worker")

    monkeypatch.setattr(opening.rasterio, "open", refuse)
    run = run_job(REGISTRY, "flood_risk_cog", {"source": str(source), "output": str(output)})
    assert (run.status, run.summary["converted"]) == ("completed", 3)
