"""What `coremachine init` and `new` write, and what they refuse; the files themselves are tested as a project."""

import json
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pathspec
import pytest

from core.project_file import read_project_settings
from coremachine.scaffold.project import (
    ScaffoldProblem,
    _distribution,
    _needed_modules,
    version_range,
    write_job,
    write_project,
)
from triggers.app_shape import find_thread_shortage, read_shape

ROOT = Path(__file__).parents[2]


def test_a_project_is_named_after_its_folder(tmp_path):
    written = write_project(tmp_path / "my-pipelines", azure=False)
    assert Path("my_pipelines/word_count.py") in written
    assert Path("azure.sh") not in written
    assert read_project_settings(tmp_path / "my-pipelines") == {
        "COREMACHINE_JOBS": "my_pipelines",
        "COREMACHINE_JOBS_QUEUE": "my-pipelines-jobs",
        "COREMACHINE_TASK_QUEUES": "tasks=my-pipelines-tasks",
    }


def test_no_placeholder_is_left(tmp_path):
    for path in write_project(tmp_path / "mine", azure=True):
        assert "@project@" not in (text := (tmp_path / "mine" / path).read_text())
        assert not {"@package@", "@job@", "@Job@", "@range@"} & set(text.split())


def test_the_first_job_has_about_sixty_lines(tmp_path):
    write_project(tmp_path / "mine", azure=False)
    assert (tmp_path / "mine" / "mine" / "word_count.py").read_text().count("\n") < 70


def test_the_example_settings_make_a_usable_app(tmp_path):
    folder = tmp_path / "mine"
    write_project(folder, azure=False)
    values = json.loads((folder / "local.settings.example.json").read_text())["Values"]
    settings = {**read_project_settings(folder), **values}
    assert read_shape(settings).problems == ()
    assert find_thread_shortage(read_shape(settings), settings, folder / "host.json") is None


def test_the_host_of_a_project_is_that_of_the_checkout():
    assert (ROOT / "coremachine" / "default_app" / "host.json").read_text() == (ROOT / "host.json").read_text()


def test_the_workflow_uses_the_actions_of_ours(tmp_path):
    write_project(tmp_path / "mine", azure=False)
    ours = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    theirs = (tmp_path / "mine" / ".github" / "workflows" / "ci.yml").read_text()
    uses = [line for line in theirs.splitlines() if "uses:" in line]
    assert len(uses) == 2
    assert all(line.strip() in ours for line in uses)


def test_dependencies_are_the_releases_that_work_as_this_one(tmp_path):
    assert version_range("0.1.0") == ">=0.1,<0.2"
    assert version_range("2.3.1") == ">=2.3,<3"
    write_project(tmp_path / "mine", azure=True)
    tables = tomllib.loads((tmp_path / "mine" / "pyproject.toml").read_text())
    # In Azure with the exporter of Application Insights, which azd makes.
    (deployed,) = (tmp_path / "mine" / "requirements.txt").read_text().splitlines()
    assert tables["project"]["dependencies"] == [deployed.replace("[azure-monitor]", "")] != [deployed]


@pytest.mark.parametrize(
    "name", ["My-Pipelines", "1st", "a b", "-a", "class", "a" * 51, "json", "tests", "infra", "pytest", "azure"]
)
def test_a_name_that_no_package_can_have_is_refused(tmp_path, name):
    with pytest.raises(ScaffoldProblem, match=r"expected a .*name"):
        write_project(tmp_path / name, azure=False)
    assert not (tmp_path / name).exists()


def test_what_coremachine_needs_is_known_without_a_look_at_all_that_is_installed(monkeypatch):
    """That took a quarter of a second of each project."""
    needed = {_distribution(requirement) for requirement in metadata.requires("coremachine")}
    modules = metadata.packages_distributions().items()
    expected = {module for module, names in modules if not needed.isdisjoint(map(_distribution, names))}
    monkeypatch.setattr(metadata, "packages_distributions", None)
    assert _needed_modules() == expected


def test_a_folder_with_files_is_left_alone(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").touch()
    with pytest.raises(ScaffoldProblem, match=r"expected no folder or an empty one at .*, found notes.txt in it"):
        write_project(folder, azure=False)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_repository_with_an_environment_becomes_a_project(tmp_path):
    folder = tmp_path / "mine"
    for name in (".git", ".venv", ".coremachine"):
        (folder / name).mkdir(parents=True)
    assert Path("mine/word_count.py") in write_project(folder, azure=False)


def test_the_readme_has_the_files_for_azure_where_they_are(tmp_path):
    for azure in (False, True):
        folder = tmp_path / f"mine{azure:d}"
        write_project(folder, azure=azure)
        assert ("azure.sh" in (folder / "README.md").read_text()) is azure


def test_a_job_is_added_once(tmp_path):
    write_project(tmp_path / "mine", azure=False)
    assert write_job(tmp_path / "mine", "resize-images") == [
        Path("mine/resize_images.py"),
        Path("tests/test_resize_images.py"),
    ]
    with pytest.raises(
        ScaffoldProblem, match=r"expected none of these files, found .*resize_images\.py, .*; .* remove them"
    ):
        write_job(tmp_path / "mine", "resize-images")


@pytest.mark.parametrize("name", ["test-uploads", "tests", "conftest"])
def test_a_job_that_would_never_be_found_is_refused(tmp_path, name):
    """Modules of tests are left out where jobs are looked for."""
    write_project(tmp_path / "mine", azure=False)
    with pytest.raises(ScaffoldProblem, match=r"expected a job's name that is not one of tests"):
        write_job(tmp_path / "mine", name)


def test_a_second_job_is_no_copy_of_the_first(tmp_path):
    write_project(tmp_path / "mine", azure=False)
    write_job(tmp_path / "mine", "resize-images")
    text = (tmp_path / "mine" / "mine" / "resize_images.py").read_text()
    assert '"""Resize images: ' in text
    assert "words" not in text


def test_a_job_needs_a_project(tmp_path):
    with pytest.raises(ScaffoldProblem, match=r'expected jobs = "<a package>" below \[tool.coremachine\]'):
        write_job(tmp_path, "resize-images")


def test_the_steps_of_the_script_for_azure_are_those_of_the_page():
    """Whoever does it by hand does the same."""
    script = (ROOT / "coremachine" / "scaffold" / "templates" / "azure.txt").read_text()
    page = (ROOT / "docs" / "howto" / "deploy.md").read_text().replace("my-pipelines", "@project@")
    blocks = [block.partition("```")[0] for block in page.split("```bash\n")[1:]]
    _, *steps = script.split("\n\n")
    said = [step.split("\n", 1)[1].strip().replace("@package@", "my_pipelines") for step in steps]
    assert [block.strip() for block in blocks] == said


# What lies around in the folder of an app, some of it with secrets; and what has names alike and is the app's.
LEFT_OUT = [
    *(".azure/test/.env", ".env", ".env.production", "deploy.env", "my_app/.env", "tls.key", "local.settings.json"),
    *("local.settings.prod.json", ".coremachine/stack.json", ".venv/pyvenv.cfg", "venv/pyvenv.cfg", ".git/config"),
    *(".coverage", "dist/app.zip", "old.zip", "my_app/__pycache__/a.pyc", "node_modules/a/b.js", "tests/test_a.py"),
    *("README.md", "azure.yaml", "infra/main.bicep", ".idea/workspace.xml", "host.log"),
]
TAKEN_ALONG = [
    *("function_app.py", "host.json", "requirements.txt", "my_app/a.py", "my_app/azure.py", "my_app/build/steps.py"),
    *("my_app/tests/samples.py", "my_app/prompt.md", "my_app/infra/a.py", "my_app/dist.py", "certificates/ca.pem"),
]


@pytest.mark.parametrize("name", ["checkout", "project", "image"])
def test_no_secret_is_deployed_and_no_module_is_left_out(name, tmp_path):
    """`my_app/azure.py` was missing in Azure alone, and the checkout's `.azure` and `.env` were in its zip."""
    write_project(tmp_path / "mine", azure=True)
    file = {"checkout": ROOT / ".funcignore", "project": tmp_path / "mine" / ".funcignore"}.get(
        name, tmp_path / "mine" / ".dockerignore"
    )
    # Docker's patterns begin at the top, those of git where there is a slash in them.
    lines = [
        re.sub(r"^(?=[^*#/]|\*\.)", "/", line) if name == "image" else line for line in file.read_text().splitlines()
    ]
    ignored = pathspec.GitIgnoreSpec.from_lines(lines)
    assert [path for path in LEFT_OUT if not ignored.match_file(path)] == []
    assert [path for path in TAKEN_ALONG if ignored.match_file(path)] == []


@pytest.mark.parametrize("folder", [ROOT, ROOT / "coremachine" / "scaffold" / "templates"])
def test_no_secret_is_committed(folder):
    file = folder / (".gitignore" if folder == ROOT else "gitignore.txt")
    ignored = pathspec.GitIgnoreSpec.from_lines(file.read_text().splitlines())
    secret = [path for path in LEFT_OUT if ".env" in path or "settings" in path or ".azure" in path]
    assert [path for path in secret if not ignored.match_file(path)] == []
    assert not ignored.match_file("local.settings.example.json")
