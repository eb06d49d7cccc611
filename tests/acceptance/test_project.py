"""A project of a user's own, from `coremachine init` to a running job, with the installed package."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pathspec
import pytest

from tests.acceptance.installed import Installed
from tests.acceptance.steps import wait_until

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
FILES = [
    ".dockerignore",
    ".funcignore",
    ".github/workflows/ci.yml",
    ".gitignore",
    "README.md",
    "function_app.py",
    "host.json",
    "local.settings.example.json",
    "my_pipelines/__init__.py",
    "my_pipelines/word_count.py",
    "pyproject.toml",
    "tests/test_word_count.py",
]
DEPLOYED = [
    "function_app.py",
    "host.json",
    "my_pipelines/__init__.py",
    "my_pipelines/word_count.py",
    "pyproject.toml",
    "requirements.txt",
]
LOADS = """
import json, os
import function_app
from coremachine.triggers.services import load_registry
names = [function.get_function_name() for function in function_app.app.get_functions()]
print(json.dumps([names, load_registry(os.environ["COREMACHINE_JOBS"], ["tasks"]).job_types]))
"""


@pytest.fixture
def project(installed: Installed, tmp_path: Path) -> Path:
    installed.run("coremachine", "init", "my-pipelines", "--azure", cwd=tmp_path)
    return tmp_path / "my-pipelines"


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_new_project_passes_its_own_checks(installed, project):
    """What init and new write passes ruff, mypy --strict and its own tests, before anybody changes it."""
    infra = [f"infra/{path.name}" for path in (ROOT / "infra").iterdir()]
    assert sorted([*FILES, "azure.sh", "azure.yaml", "requirements.txt", *infra]) == files_of(project)
    below = project / "my_pipelines"
    installed.run("coremachine", "new", "job", "resize-images", cwd=below)
    assert "class ResizeImagesJob(" in (below / "resize_images.py").read_text()
    installed.run_tool("ruff", "check", cwd=project)
    installed.run_tool("ruff", "format", "--check", cwd=project)
    installed.run_tool("mypy", "--no-incremental", cwd=project)
    done = installed.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert "4 passed" in done.stdout


def test_the_zip_holds_what_the_app_needs_and_nothing_else(installed, project, tmp_path):
    ignored = pathspec.GitIgnoreSpec.from_lines((project / ".funcignore").read_text().splitlines())
    (project / ".venv").mkdir()
    for name in (
        ".venv/pyvenv.cfg",
        "local.settings.json",
        "my_pipelines/__pycache__/a.pyc",
        ".coremachine/stack.json",
    ):
        (project / name).parent.mkdir(exist_ok=True, parents=True)
        (project / name).touch()
    deployed = [name for name in files_of(project) if not ignored.match_file(name)]
    assert deployed == DEPLOYED
    for name in deployed:
        (tmp_path / "wwwroot" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / name, tmp_path / "wwwroot" / name)
    done = installed.run("python", "-c", LOADS, cwd=tmp_path / "wwwroot")
    names, job_types = json.loads(done.stdout.splitlines()[-1])
    assert "process_tasks_tasks" in names
    assert job_types == ["word_count"]


@pytest.fixture
def running(installed: Installed, project: Path, tmp_path: Path) -> Iterator[Path]:
    """`up --reload` in the project, with its data elsewhere; the file that has its output."""
    with installed.up(project, "--reload", "--data", str(tmp_path / "data")):
        yield project.with_name("my-pipelines-up.log")


def test_a_project_s_jobs_run_and_follow_its_files(installed, project, running):
    """Nothing is configured: the jobs are found, relative paths are the caller's, a saved file is loaded."""
    below = project / "texts"
    below.mkdir()
    (below / "one.txt").write_text("the cat and the dog\n")

    def submit() -> dict:
        done = installed.run("coremachine", "submit", "word_count", "-p", "folder=.", "--force", "--wait", cwd=below)
        return json.loads(done.stdout)["result"]

    assert submit() == {"files": 1, "words": 5}

    job = project / "my_pipelines" / "word_count.py"
    good = job.read_text()

    def save(text: str) -> str:
        """What `up` shows after the file is saved."""
        before = len(running.read_text())
        job.write_text(text)
        ended = r"(?s)changed: .*(job types|not ready|not loaded).*\n"
        found = wait_until(lambda: re.search(ended, running.read_text()[before:]), "the file is loaded", 120)
        return found[0]

    assert "job types word_count\n" in save(good.replace('return {"words": len(', 'return {"words": 10 * len('))
    assert submit() == {"files": 1, "words": 50}
    shown = save(good + "\ndef broken(:\n")
    assert "COREMACHINE_JOBS=my_pipelines: my_pipelines/word_count.py, line 49: SyntaxError: " in shown
    shown = save("import no_such_package\n" + good)
    assert "word_count.py, line 1: expected the module 'no_such_package', found none; install what has it" in shown
    assert "job types word_count\n" in save(good)
