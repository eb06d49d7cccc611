"""Conversions in processes of their own: what a crash, a cancel and a lack of memory cost."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio._env import get_gdal_config

from core.context import TaskContext
from core.errors import AuthorError, TaskCancelled, classify
from jobs.flood_risk_cog import convert as conversion
from jobs.flood_risk_cog import handlers, memory, process
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.memory import TooLittleMemory, cache_bytes, is_out_of_memory, problem_with_blocks
from jobs.flood_risk_cog.process import ConversionEnded, ConversionProcess, ConversionProcesses

NOBODY = "import sys; sys.stdin.readline()\n"


def ignore(*_said):
    """Nothing is said, and nobody wants it to end."""


@pytest.fixture
def processes():
    made = ConversionProcesses()
    yield made
    made.end()


@pytest.fixture(scope="module")
def waiting():
    """Children that tests have left: their start takes longer than most conversions here."""
    children = []
    yield children
    for child in children:
        child.end()


@pytest.fixture
def warm(waiting):
    """Processes of which one may have been started by another test."""
    made = ConversionProcesses()
    made._idle = [waiting.pop()] if waiting else []
    yield made
    waiting += made._idle


@pytest.fixture
def scripted(monkeypatch):
    """A child that runs this code in place of conversions."""

    def script(code):
        monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", code))

    return script


@pytest.fixture
def request_for(make_raster, tmp_path):
    return lambda name="a.tif", **options: {
        "path": make_raster(name, **options),
        "output": str(tmp_path / "output"),
    }


def task(make_raster, tmp_path, **callbacks):
    parameters = {
        "source": str(tmp_path),
        "output": str(tmp_path / "output"),
        "target_crs": None,
        "tile_size": 512,
        "compression": "deflate",
        "resampling": "auto",
    }
    context = TaskContext("0" * 64, "flood_risk_cog", 2, "2-a.tif", 0, 1, parameters, **callbacks)
    return {"path": make_raster()}, context


def test_a_process_is_kept_for_the_next_raster_and_not_for_ever(warm, request_for, monkeypatch):
    kept = []
    for name in ("a.tif", "b.tif"):
        assert Path(warm.convert(request_for(name), ignore, ignore)["path"]).name == name
        kept += warm._idle
    assert kept[1] is kept[0]
    monkeypatch.setattr(process, "MOST_CONVERSIONS", kept[0].conversions + 1)
    warm.convert(request_for("c.tif"), ignore, ignore)
    assert (warm._idle, kept[0].is_alive) == ([], False)


def test_an_error_comes_through_as_what_it_was(warm, request_for):
    with pytest.raises(AuthorError) as failed:
        warm.convert(request_for(crs=None), ignore, ignore)
    failure = classify(failed.value)
    assert (failure.error_type, failure.retryable) == ("UnusableRaster", False)
    assert failure.message.startswith("a.tif: it has no coordinate reference system")
    # The raster is at fault, not its process.
    assert len(warm._idle) == 1


def test_a_crash_costs_an_attempt_and_says_where_it_was(warm, request_for):
    def crash(step):
        if step == "read":
            (child,) = children
            os.kill(child.pid, signal.SIGSEGV)

    children = []
    borrow = warm._borrow
    warm._borrow = lambda: children.append(borrow()) or children[-1]
    with pytest.raises(ConversionEnded) as ended:
        warm.convert(request_for(), ignore, crash)
    assert "signal SIGSEGV in the step 'read'" in str(ended.value)
    assert classify(ended.value).retryable
    assert warm._idle == []
    assert Path(warm.convert(request_for(), ignore, ignore)["path"]).is_file()


def test_a_kept_process_that_is_gone_costs_nothing(warm, request_for):
    warm.convert(request_for("a.tif"), ignore, ignore)
    (kept,) = warm._idle
    os.kill(kept.pid, signal.SIGKILL)
    assert Path(warm.convert(request_for("b.tif"), ignore, ignore)["path"]).is_file()


def test_a_new_process_that_ends_at_once_is_an_error_and_not_tried_for_ever(processes, scripted):
    scripted("raise SystemExit(3)")
    with pytest.raises(ConversionEnded, match="exit status 3"):
        processes.convert({}, ignore, ignore)


def test_a_cancel_ends_a_process_that_does_not_answer(processes, scripted):
    """As in GDAL's own code, which nothing interrupts."""
    scripted("import time; time.sleep(3600)")
    asked = threading.Event()

    def cancel(_step):
        asked.set()
        raise TaskCancelled("enough")

    children = []
    borrow = processes._borrow
    processes._borrow = lambda: children.append(borrow()) or children[-1]
    with pytest.raises(TaskCancelled):
        processes.convert({}, ignore, cancel)
    assert asked.is_set()
    assert not children[0].is_alive


def test_a_cancel_within_gdals_write_leaves_no_output_and_no_scratch(warm, make_raster, tmp_path, monkeypatch):
    """The worker decides before each step begins, so nothing is put in place after it."""
    steps = []
    params, context = task(
        make_raster,
        tmp_path,
        _report=lambda said: steps.append(said["message"]),
        _stop_requested=lambda: "write" in steps,
    )
    monkeypatch.setattr(handlers, "PROCESSES", warm)
    with pytest.raises(TaskCancelled):
        handlers.convert(params, context)
    assert list((tmp_path / "output" / "cogs").iterdir()) == []
    assert warm._idle == []


def test_a_crash_leaves_no_scratch(make_raster, tmp_path, monkeypatch, scripted):
    params, context = task(make_raster, tmp_path)
    monkeypatch.setattr(handlers, "PROCESSES", ConversionProcesses())
    from jobs.flood_risk_cog.scratch import ScratchOwner, scratch_folder

    owner = ScratchOwner(context.job_id, context.task_id, context.attempt)
    with scratch_folder(tmp_path / "output" / "cogs", owner) as folder:
        aside = folder.rename(folder.with_name("aside"))
        folder.mkdir()
    aside.rename(folder)
    scripted("import os; os.abort()")
    with pytest.raises(ConversionEnded, match="SIGABRT"):
        handlers.convert(params, context)
    assert list((tmp_path / "output" / "cogs").iterdir()) == []


def test_progress_within_the_write_grows_with_the_files_and_never_falls():
    said = []
    sizes = iter([5 << 20, 60 << 20, 200 << 20, 90 << 20, 4000 << 20])
    context = TaskContext(
        "0" * 64, "flood_risk_cog", 2, "t", 0, 1, {}, _report=lambda each: said.append(each["percent"])
    )
    watch = handlers.Watch(context, lambda: next(sizes))
    watch.report("write", 0)
    for _ in range(5):
        watch.look("write")
    begin, width = handlers.CONVERT_STEPS["write"]
    assert said == sorted(said)
    assert said[0] == begin
    assert begin + width / 2 < said[-1] <= begin + width
    assert len(set(said)) == 4


def test_a_step_that_works_for_long_is_looked_at_meanwhile(processes, scripted, monkeypatch):
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.01)
    scripted(
        "import sys\n"
        "sys.stdin.readline()\n"
        'print(\'{"step": "write", "share": 0, "waits": true}\', flush=True)\n'
        "sys.stdin.readline()\n"
        "sys.stdin.readline()\n"
    )
    looks = []

    def look(step):
        looks.append(step)
        if looks.count("write") == 3:
            raise TaskCancelled("enough")

    with pytest.raises(TaskCancelled):
        processes.convert({}, ignore, look)


def test_what_a_library_prints_is_no_answer(monkeypatch, request_for):
    code = (
        "import os; from jobs.flood_risk_cog import convert, serve\n"
        "real = convert.convert_raster\n"
        "def loud(path, output, **options):\n"
        "    os.write(1, b'libtiff: warning\\n'); print('and more', flush=True)\n"
        "    return real(path, output, **options)\n"
        "convert.convert_raster = loud\n"
        "serve.main()\n"
    )
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", code))
    child = ConversionProcess()
    try:
        assert child.convert(request_for(), ignore, ignore)["name"] == "a.tif"
    finally:
        child.end()


def test_a_process_ends_with_the_worker_also_within_a_conversion(request_for):
    """A worker that is killed leaves nothing at work that writes for nobody."""
    child = ConversionProcess()
    waits = threading.Event()

    def stop(_step):
        child._process.stdin.close()
        waits.set()

    with pytest.raises(ConversionEnded):
        child.convert(request_for(), ignore, stop)
    assert waits.is_set()
    assert child._process.wait(timeout=60) == 0


def test_a_process_without_work_ends_well():
    """The interpreter aborted at its end, since a thread was still reading."""
    code = "from jobs.flood_risk_cog import serve; serve.IDLE_SECONDS = serve.REST_SECONDS = 0.1; serve.main()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.wait(timeout=60) == 0
    finally:
        child.kill()
        child.communicate()


def test_a_raster_beyond_the_bound_says_what_to_do(processes, request_for, monkeypatch):
    code = (
        "from jobs.flood_risk_cog import convert, serve\n"
        "def greedy(path, output, **options):\n"
        "    return {'path': str(len(bytearray(2 << 30)))}\n"
        "convert.convert_raster = greedy\n"
        "serve.main()\n"
    )
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", code))
    with pytest.raises(AuthorError) as failed:
        processes.convert(request_for(), ignore, ignore)
    failure = classify(failed.value)
    assert (failure.error_type, failure.retryable) == (TooLittleMemory.__name__, False)
    assert "at most 512 MB of memory" in failure.message
    assert "gdal_translate -co TILED=YES" in failure.message
    assert is_out_of_memory(ValueError("x")) is False


def test_blocks_that_cannot_fit_are_refused_before_they_are_read(warm, tmp_path):
    """One strip of 12000 x 12000 depths is 576 MB, and none of it can be read without all of it."""
    path = tmp_path / "strip.tif"
    profile = {"width": 12000, "height": 12000, "count": 1, "dtype": "float32", "crs": "EPSG:32614"}
    place = rasterio.transform.from_origin(6e5, 3e6, 1, 1)
    profile |= {"compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", blockysize=12000, transform=place, sparse_ok=True, **profile):
        pass
    with pytest.raises(AuthorError) as failed:
        warm.convert({"path": str(path), "output": str(tmp_path / "out")}, ignore, ignore)
    failure = classify(failed.value)
    assert (failure.error_type, failure.retryable) == ("UnusableRaster", False)
    assert "its blocks of 12000 x 12000 pixels need 550 MB" in failure.message
    assert "TILED=YES" in failure.message


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"tiled": True, "blockxsize": 256, "blockysize": 256}, 32),
        ({"blockysize": 1}, 32),
        ({"blockysize": 600}, 52),
        # Small enough to be kept whole.
        ({"width": 3000, "height": 3000, "blockysize": 1}, 47),
        ({"width": 300, "height": 300, "blockysize": 300}, 32),
    ],
)
def test_the_cache_holds_a_small_raster_or_a_row_of_what_is_read(tmp_path, profile, expected):
    path = tmp_path / "a.tif"
    shape = {"width": 8000, "height": 8000, "count": 1, "dtype": "float32", "sparse_ok": True, "crs": "EPSG:32614"}
    place = rasterio.transform.from_origin(6e5, 3e6, 1, 1)
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", transform=place, **{**shape, **profile}):
        pass
    with rasterio.open(path) as dataset:
        assert problem_with_blocks(dataset) is None
        assert cache_bytes(dataset, 512) >> 20 == expected


def check_many_bands(make_raster, tmp_path, convert, bands, width, **profile):
    one = (np.arange(520 * width, dtype="int32") // 50 % 1000).reshape(520, width)
    pixels = one + np.arange(bands, dtype="int32")[:, None, None]
    # However they are compressed, they are as many.
    path = make_raster(pixels=pixels, compress="zstd", zstd_level=1, nodata=-1, **profile)
    result = convert({"path": path, "output": str(tmp_path / "output"), "compression": "zstd"})
    with rasterio.open(result["path"]) as cog:
        assert np.array_equal(cog.read(), pixels)
    assert list((tmp_path / "output").glob(".core*")) == []


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_many_bands_in_wide_strips_become_the_same_cog(make_raster, tmp_path, monkeypatch, interleave):
    """As if a process had a fiftieth of its memory."""
    for name in ("USUAL_CACHE", "SMALL_ROW_BYTES", "MOST_WHOLE"):
        monkeypatch.setattr(memory, name, getattr(memory, name) // 50)
    copies = []
    write = conversion.write_tiled
    monkeypatch.setattr(
        conversion, "write_tiled", lambda *given, **named: copies.append(given) or write(*given, **named)
    )
    check_many_bands(make_raster, tmp_path, lambda given: convert_raster(**given), 6, 300, interleave=interleave)
    assert len(copies) == 1


@pytest.mark.long
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_60_bands_in_wide_strips_become_the_same_cog_in_the_memory_of_a_process(
    processes, make_raster, tmp_path, interleave
):
    """112 MB of them."""
    check_many_bands(
        make_raster, tmp_path, lambda given: processes.convert(given, ignore, ignore), 60, 900, interleave=interleave
    )


def test_no_option_of_gdals_is_left_in_the_worker(warm, request_for):
    before = get_gdal_config("GDAL_CACHEMAX")
    warm.convert(request_for(), ignore, ignore)
    assert get_gdal_config("GDAL_CACHEMAX") == before


def test_a_raster_whose_table_of_blocks_alone_is_too_large_is_refused_before_it_is_read():
    shape = {"width": 2_000_000, "height": 800_000, "count": 1, "block_shapes": [(256, 256)], "dtypes": ["uint8"]}
    dataset = SimpleNamespace(**shape, tags=lambda **_domain: {})
    assert "the table of its 24415625 blocks alone needs 745 MB" in (problem_with_blocks(dataset) or "")
