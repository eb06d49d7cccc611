"""The files of a new project, and of a new job in one."""

import keyword
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from core.basics.version import VERSION
from core.project_file import FILE_NAME, JOBS_SETTING, read_project_settings

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST_NAME = 50
_MOST_NAMES = 5
# Where a file of a project comes from: the folder of templates, or the app for folders without a project.
_FILES = {
    "README.md": "readme.txt",
    "pyproject.toml": "pyproject.txt",
    ".gitignore": "gitignore.txt",
    ".funcignore": "funcignore.txt",
    ".dockerignore": "dockerignore.txt",
    ".github/workflows/ci.yml": "ci.txt",
    "local.settings.example.json": "settings.txt",
}
_JOB_FILES = {"@package@/@job@.py": "job.txt", "tests/test_@job@.py": "test_job.txt"}
_NEW_JOB_FILES = {"@package@/@job@.py": "new_job.txt", "tests/test_@job@.py": "test_new_job.txt"}
_AZURE_FILES = {
    "requirements.txt": "requirements.txt",
    "azure.sh": "azure.txt",
    "azure.yaml": "azure_yaml.txt",
    "infra/main.parameters.json": "parameters.txt",
}
_INFRASTRUCTURE = {".bicep", ".sh"}
_APP_FILES = ("function_app.py", "host.json")
# `infra` has the files for Azure.
_OWN_NAMES = frozenset({"coremachine", "function_app", "infra", "test", "tests"})
_FIRST_JOB = "word_count"


class ScaffoldProblem(ValueError):
    """Nothing was written; has what was expected, what was found and what to do."""


@dataclass(frozen=True)
class Names:
    """What the placeholders of templates become."""

    project: str
    package: str
    job: str

    def put_into(self, text: str) -> str:
        values = {
            "@project@": self.project,
            "@package@": self.package,
            "@job@": self.job,
            "@Job@": "".join(part.capitalize() for part in self.job.split("_")),
            "@words@": self.job.replace("_", " ").capitalize(),
            "@range@": version_range(VERSION),
        }
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        return text


def version_range(version: str) -> str:
    """The releases that work as this one: semantic versioning, before 1.0 by its second number."""
    major, minor = (int(number) for number in version.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}" if major == 0 else f">={major}.{minor},<{major + 1}"


def write_project(folder: Path, *, azure: bool) -> list[Path]:
    """Write a new project; its name is the folder's.

    Args:
        azure: With what a deployment needs, too.

    Returns:
        The files, relative to the folder.

    Raises:
        ScaffoldProblem: The name cannot be used, or the folder has something in it.
    """
    name = folder.resolve().name
    package = _checked(name, "a project's name")
    if package in sys.stdlib_module_names or package in {*_OWN_NAMES, *_needed_modules()}:
        raise ScaffoldProblem(f"expected a name that no module has yet, found {name!r}; choose another one")
    # A repository without files, and an environment in it, are a usual beginning.
    if found := sorted(path.name for path in folder.glob("*") if not path.name.startswith(".")):
        raise ScaffoldProblem(
            f"expected no folder or an empty one at {folder}, found {', '.join(found[:_MOST_NAMES])} in it; "
            "choose another one"
        )
    names = Names(project=package.replace("_", "-"), package=package, job=_FIRST_JOB)
    texts = {path: _template(template) for path, template in (_FILES | _JOB_FILES).items()}
    if azure:
        texts["README.md"] += _template("readme_azure.txt")
        texts |= {path: _template(template) for path, template in _AZURE_FILES.items()} | _infrastructure()
    texts |= {path: files("coremachine").joinpath("default_app", path).read_text("utf-8") for path in _APP_FILES}
    texts["@package@/__init__.py"] = '"""Jobs of @project@."""\n'
    return _write_all(folder, names, texts)


def write_job(folder: Path, name: str) -> list[Path]:
    """Write a job and its test into a project.

    Args:
        folder: Holds the project's pyproject.toml.

    Raises:
        ScaffoldProblem: The name cannot be used, or the folder names no package of jobs.
        ProjectFileError: pyproject.toml cannot be used.
    """
    job = _checked(name, "a job's name")
    if job.startswith("test_") or job in {"tests", "conftest"}:
        raise ScaffoldProblem(
            f"expected a job's name that is not one of tests, since modules of these are no jobs, found {name!r}; "
            "choose another one"
        )
    package = read_project_settings(folder).get(JOBS_SETTING, "")
    if not package or ":" in package:
        raise ScaffoldProblem(
            f'expected jobs = "<a package>" below [tool.coremachine] in {folder / FILE_NAME}, found '
            f"{package or 'none'}; make a project with `coremachine init NAME`, or write the job by hand"
        )
    names = Names(project=folder.name, package=package, job=job)
    texts = {path: _template(template) for path, template in _NEW_JOB_FILES.items()}
    return _write_all(
        folder, names, {path.replace("@package@", package.replace(".", "/")): texts[path] for path in texts}
    )


def _checked(name: str, what: str) -> str:
    """The name as that of a module. Raises ScaffoldProblem."""
    module = name.replace("-", "_")
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME or keyword.iskeyword(module):
        raise ScaffoldProblem(
            f"expected {what} of lower-case letters, digits, single hyphens or underscores, beginning with a letter, "
            f"no word of Python, at most {_LONGEST_NAME} characters, found {name!r:.200}; choose another one"
        )
    return module


def _template(name: str) -> str:
    return files("coremachine.scaffold").joinpath("templates", name).read_text("utf-8")


def _needed_modules() -> set[str]:
    """Modules of what CoreMachine needs: a project of such a name would hide one."""
    needed = {_distribution(requirement) for requirement in metadata.requires("coremachine") or ()}
    return {module for name in needed for module in _modules_of(name)}


def _modules_of(distribution: str) -> set[str]:
    """Its modules; none where it is not installed. Those of one are found without a look at all others."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return set()
    if declared := found.read_text("top_level.txt"):
        return set(declared.split())
    code = [path for path in found.files or () if path.suffix == ".py"]
    return {path.parts[0] if len(path.parts) > 1 else path.stem for path in code}


def _distribution(requirement: str) -> str:
    """The normal form of the name that a requirement begins with."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def _infrastructure() -> dict[str, str]:
    """The Bicep files and the scripts around them: beside the templates in a wheel, at the top of a checkout."""
    installed = Path(str(files("coremachine.scaffold"))) / "infra"
    folder = installed if installed.is_dir() else installed.parents[2] / "infra"
    return {
        f"infra/{path.name}": path.read_text("utf-8") for path in folder.iterdir() if path.suffix in _INFRASTRUCTURE
    }


def _write_all(folder: Path, names: Names, texts: dict[str, str]) -> list[Path]:
    """All files or none: one that is there already is never replaced."""
    made = {folder / names.put_into(path): names.put_into(text) for path, text in texts.items()}
    there = [str(path) for path in made if path.exists()]
    if there:
        raise ScaffoldProblem(
            f"expected none of these files, found {', '.join(there)}; choose another name or remove "
            f"{'it' if len(there) == 1 else 'them'}"
        )
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if text.startswith("#!"):
            path.chmod(0o755)
    return sorted(path.relative_to(folder) for path in made)
