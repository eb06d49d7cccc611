"""The host as a package of its own: its modules as they are built, below another name."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

from coremachine.local.host.__main__ import main

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "packages" / "functions"
APP = """
import sys

import azure.functions as func

app = func.FunctionApp()
OURS = {name.partition(".")[0] for name in sys.modules} & {"core", "coremachine", "coremachine_functions", "psycopg"}

@app.route(route="modules", auth_level=func.AuthLevel.FUNCTION)
def modules(req: func.HttpRequest) -> str:
    return " ".join(sorted(OURS))
"""


@pytest.fixture(scope="module")
def backend():
    spec = importlib.util.spec_from_file_location("functions_build_backend", FOLDER / "build_backend.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def staged(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    backend.stage(folder)
    return folder


def test_the_package_has_all_its_modules_and_the_dependencies_of_the_checkout(staged):
    described = tomllib.loads((staged / "pyproject.toml").read_text())
    packages = {".".join(path.parent.relative_to(staged).parts) for path in staged.rglob("__init__.py")}
    assert set(described["tool"]["setuptools"]["packages"]) == packages
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)}
    mine = described["project"]
    assert {*mine["dependencies"], *mine["optional-dependencies"]["storage"]} <= known


def test_a_module_that_does_not_come_with_the_package_stops_the_build(backend, tmp_path):
    for source in ("from coremachine.cli import up\n", "from core import machine\n", "from . import up\n"):
        (tmp_path / "module.py").write_text(f"import os\n{source}")
        with pytest.raises(backend.CannotBuild, match=r"module\.py:2: expected imports of coremachine\.local, found"):
            backend.rename_all(tmp_path, backend.RENAMES)
    package = tmp_path / backend.PACKAGE
    package.mkdir()
    (package / "module.py").write_text("from coremachine.local.stack import LocalStack\n")
    with pytest.raises(
        backend.CannotBuild, match=r"module\.py:1: expected .*\.local\.stack in the package, found none"
    ):
        backend.rename_all(package, backend.RENAMES)


def test_its_command_runs_an_app_with_nothing_of_the_checkout(staged, tmp_path):
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    (tmp_path / "function_app.py").write_text(APP)
    command = [sys.executable, "-m", "coremachine_functions.local.host", "--port", "0", "--enable-auth"]
    environment = {**os.environ, "PYTHONPATH": str(staged)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as host:
        try:
            shown = ""
            while "Ctrl-C ends it" not in shown:
                line = host.stdout.readline()
                assert line, shown
                shown += line
            url = re.search(r"modules: \[all methods\] (http://127\.0\.0\.1:\d+/api/modules)", shown)[1]
            key = re.search(r"host key +(\S+)", shown)[1]
            assert httpx.get(url, timeout=30).status_code == 401
            assert httpx.get(url, headers={"x-functions-key": key}, timeout=30).text == "coremachine_functions"
        finally:
            host.terminate()
    assert host.returncode == 0


def test_help_shows_examples_and_a_folder_without_an_app_is_refused(staged, tmp_path):
    command = [sys.executable, "-m", "coremachine_functions.local.host"]
    environment = {**os.environ, "PYTHONPATH": str(staged)}
    run = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True, check=True)
    assert "\n  python -m coremachine_functions.local.host --reload --port 7072\n" in run.stdout
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "found no host.json: go to the app's folder, or name it with --app-dir" in refused.stderr


@pytest.mark.parametrize("options", [["--port", "70000"], ["--port", "-1"], ["--workers", "0"], ["--workers", "two"]])
def test_a_wrong_number_is_refused_by_its_name(options, capsys):
    with pytest.raises(SystemExit):
        main(options)
    assert f"{options[0]}: expected a number of " in capsys.readouterr().err.replace("/-p", "")
