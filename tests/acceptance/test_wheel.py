"""The wheel away from the checkout: what it holds, that it runs, and that a user's own folders do not meet ours."""

import importlib.util
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from core.basics.version import VERSION
from tests.acceptance.installed import install
from tests.acceptance.steps import PROJECT_ROOT

pytestmark = pytest.mark.acceptance

# Names that the checkout has at its top or below `coremachine`, and that many a repository has, too.
FOLDERS = (
    "bench",
    "cli",
    "core",
    "infrastructure",
    "jobs",
    "local",
    "reference",
    "sql",
    "tests",
    "testing",
    "triggers",
)
JOB = '''
"""The words of a text, and how long each is."""

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar

from coremachine import (
    CompletedTask,
    Handler,
    JobBase,
    JobBaseMixin,
    JobExecutionContext,
    Registry,
    Task,
    TaskContext,
    load_fan_in_results,
)
from core import length_of


class WordsJob(JobBaseMixin, JobBase):
    job_type = "words"
    stages: ClassVar = [
        {"number": 1, "name": "measure", "task_type": "measure", "parallelism": "single"},
        {"number": 2, "name": "sum", "task_type": "sum", "parallelism": "fan_in"},
    ]
    parameters_schema: ClassVar = {"text": {"type": "str", "required": True}}

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: Mapping[str, Any], job_id: str, previous_results: Iterable[CompletedTask]
    ) -> Iterator[Task]:
        for word in job_params["text"].split():
            yield Task(name=word, parameters={"word": word})

    @staticmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        (summed,) = context.results(2)
        return summed.result


def measure(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return {"length": length_of(params["word"])}


def total(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return {"total": sum(task.result["length"] for task in load_fan_in_results(params).results())}


def build_registry(queues: Iterable[str]) -> Registry:
    for name in ("cli", "infrastructure", "local", "reference", "sql", "testing", "triggers"):
        assert import_module(name).MINE
    handlers = [Handler("measure", measure, queue="tasks"), Handler("sum", total, queue="tasks")]
    return Registry([WordsJob], handlers, queues)
'''
IMPORT_ALL = """
import importlib, json, pkgutil, coremachine
names = [found.name for found in pkgutil.walk_packages(coremachine.__path__, "coremachine.")]
names = [name for name in names if not name.endswith("__main__") and name != "coremachine.default_app.function_app"]
# What the extra `telemetry` is for; the settings that use it name the extra.
names = [name for name in names if not name.startswith("coremachine.infrastructure.telemetry.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([coremachine.__file__, len(names)]))
"""
TYPED = """
from coremachine import JobBase, Nothing
reveal_type(JobBase.definition)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's, in which each name of ours is a package of theirs."""
    folder = tmp_path / "repository"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("MINE = True\n")
    (folder / "core" / "__init__.py").write_text("def length_of(word: str) -> int:\n    return len(word)\n")
    (folder / "jobs" / "words.py").write_text(JOB.lstrip())
    shutil.copy(PROJECT_ROOT / "host.json", folder / "host.json")
    (folder / "function_app.py").write_text('"""The app."""\nfrom coremachine.app import app\n')
    return folder


def test_wheel_has_one_name_at_its_top(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(f"coremachine-{VERSION}.dist-info/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"coremachine", f"coremachine-{VERSION}.dist-info"}
    assert "coremachine = coremachine.__main__:main" in entry_points


def test_wheel_has_every_file_that_the_app_reads(wheel):
    """SQL, migrations, the pages and what they load, the broker's queues, the marker of types."""
    read = [PROJECT_ROOT / "coremachine" / name for name in ("py.typed", "default_app/host.json")]
    read += PROJECT_ROOT.glob("sql/**/*.sql")
    read += PROJECT_ROOT.glob("coremachine/local/**/*.json")
    read += [*PROJECT_ROOT.glob("triggers/swagger/*"), *PROJECT_ROOT.glob("jobs/*/preview_page/*")]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = [path.relative_to(PROJECT_ROOT).as_posix() for path in read]
    assert len(expected) > 60
    assert {f"coremachine/{name.removeprefix('coremachine/')}" for name in expected} <= names


def test_every_module_can_be_imported(installed, tmp_path):
    done = installed.run("python", "-W", "error::SyntaxWarning", "-c", IMPORT_ALL, cwd=tmp_path)
    place, count = json.loads(done.stdout)
    assert Path(place).is_relative_to(installed.folder)
    assert count > 200


def test_without_packages_a_command_names_the_extra(wheel, tmp_path):
    """`pip install coremachine` alone has no command line but this answer."""
    bare = install(wheel, tmp_path / "bare", packages=False)
    assert bare.run("coremachine", "--version", cwd=tmp_path).stdout == f"coremachine {VERSION}\n"
    done = bare.run("coremachine", "up", cwd=tmp_path, code=2)
    assert done.stderr == (
        "expected the module 'typer', found none: install the extra `local` with pip install 'coremachine[local]'\n"
    )


def test_a_repository_with_the_same_names_runs(installed, repository):
    """Folders called core, jobs, local, cli, infrastructure, triggers and sql at a user's met ours."""
    with installed.up(repository, COREMACHINE_JOBS="jobs.words:build_registry") as (_, info):
        assert Path(info.app_dir) == repository
        done = installed.run("coremachine", "submit", "words", "-p", "text=one three", "--wait", cwd=repository)
        assert json.loads(done.stdout)["result"] == {"total": 8}
        assert json.loads(installed.run("coremachine", "db", "verify", "-o", "json", cwd=repository).stdout)["checked"]
        # The job types that come with the package are another app's.
        assert installed.run("coremachine", "submit", "hello_world", cwd=repository, code=3).stderr


def test_types_reach_the_author(installed, repository):
    """mypy --strict on a job of a user's, and on a name that is not there."""
    (repository / "typed.py").write_text(TYPED)
    options = ["--strict", "--no-incremental", "jobs/words.py", "typed.py"]
    found = installed.run_tool("mypy", *options, cwd=repository, code=1).stdout
    assert 'Module "coremachine" has no attribute "Nothing"' in found
    assert "coremachine.core.models.definition.JobDefinition" in found
    assert "Found 1 error in 1 file" in found


def test_an_empty_folder_gets_the_job_types_that_come_with_the_package(installed, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    with installed.up(folder):
        done = installed.run("coremachine", "submit", "hello_world", "-p", "n=2", "--wait", cwd=folder)
    assert json.loads(done.stdout)["result"] == {"greetings": 2, "replies": 2}


# No test of them reads a file of the checkout.
CHECKS = (
    "tests/unit/test_fan_in.py",
    "tests/unit/test_job_contract.py",
    "tests/unit/test_parameters.py",
    "tests/unit/test_registry.py",
    "tests/unit/test_retry.py",
    "tests/integration/engine/test_machine.py",
)

SHARED = ("tests/*.py", "tests/unit/conftest.py", "tests/integration/conftest.py", "tests/integration/engine/*.py")


@pytest.mark.skipif(os.environ.get("COREMACHINE_TEST_INSTALL") != "real", reason="long: make test-package")
def test_tests_of_the_engine_pass_on_the_wheel(installed, tmp_path):
    """The project's own, with the imports that a user's tests have."""
    spec = importlib.util.spec_from_file_location("one_package", PROJECT_ROOT / ".ci" / "wheel" / "one_package.py")
    one_package = importlib.util.module_from_spec(spec)
    sys.modules["one_package"] = one_package
    spec.loader.exec_module(one_package)
    modules = one_package.find_modules(PROJECT_ROOT)
    needed = [PROJECT_ROOT / name for name in CHECKS]
    needed += [path for pattern in SHARED for path in PROJECT_ROOT.glob(pattern) if "test_" not in path.name]
    for path in needed:
        target = tmp_path / path.relative_to(PROJECT_ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(one_package.rewrite_source(path.read_text(), modules, str(path)))
    shutil.copy(PROJECT_ROOT / "pyproject.toml", tmp_path)
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", "not broker and not emulator"]
    done = installed.run("python", "-m", "pytest", *options, *CHECKS, cwd=tmp_path)
    assert " passed" in done.stdout
