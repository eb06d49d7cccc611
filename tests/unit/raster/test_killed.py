"""A conversion that is killed in any of its steps puts nothing in place, and the next attempt removes what it left."""

import json
import os
import signal
import subprocess
import sys

from jobs.flood_risk_cog.scratch import PREFIX
from tests.unit.raster.made import pixels_of, write_raster

# Steps, and whether they have begun to report their share; "gdal" is within the write of GDAL.
STEPS = [
    ("read", True),
    ("warp", True),
    ("write", False),
    ("gdal", True),
    ("validate", False),
    ("verify", True),
    ("store", False),
    ("proof", True),
]
# The libraries are imported once; each attempt is a process of its own, which ends itself.
ATTEMPTS = """
import json, os, signal, sys, tempfile
from pathlib import Path
from jobs.flood_risk_cog import convert, write
from jobs.flood_risk_cog.scratch import ScratchOwner, remove_scratch

path, output, steps = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
places = [output, Path(tempfile.gettempdir())]


def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


def half_copy(_dataset, target, **_options):
    for ending in ("", ".ovr.tmp", ".msk.ovr.tmp"):
        Path(f"{target}{ending}").write_bytes(b"half")
    die()


def attempt(number, step="", is_within=False):
    def report(found, share):
        if found == step and (share > 0) == is_within:
            die()

    if step == "gdal":
        write.copy = half_copy
    if step == "proof":
        convert.entity_tag_of = die
    owner = ScratchOwner("job", "task", number)
    return convert.convert_raster(path, str(output), target_crs="EPSG:4326", report=report, owner=owner)


def names():
    return [sorted(each.name for each in place.iterdir()) for place in places]


for number, (step, is_within) in enumerate(steps, start=1):
    child = os.fork()
    if not child:
        attempt(number, step, is_within)
        os._exit(1)
    signalled = os.WTERMSIG(os.waitpid(child, 0)[1])
    left = names()
    if number % 2:
        # As the worker does for a conversion that it has cancelled, or whose process is gone.
        remove_scratch(places, ScratchOwner("job", "task", number))
    print(json.dumps([step, signalled, left, names()]))
attempt(len(steps) + 1)
print(json.dumps(names()))
"""


def test_each_step_that_is_killed_leaves_scratch_alone_which_goes(tmp_path):
    source = write_raster(tmp_path / "a.tif", pixels_of("float32", side=60))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(source), str(tmp_path / "out"), json.dumps(STEPS)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    *attempts, last = map(json.loads, done.stdout.splitlines())
    assert [(step, signalled) for step, signalled, *_ in attempts] == [(step, signal.SIGKILL) for step, _ in STEPS]
    for step, _, left, after in attempts:
        # One that is there without a proof was verified, and is made anew.
        in_place = ["a.tif"] if step == "proof" else []
        scratch_of = [[name for name in names if name.startswith(PREFIX)] for names in left]
        assert [len(names) for names in scratch_of] == [1, 1], step
        assert [name for names in left for name in names if not name.startswith(PREFIX)] == in_place
        assert after in (left, [in_place, []])
    assert last == [["a.proof.json", "a.tif"], []]
