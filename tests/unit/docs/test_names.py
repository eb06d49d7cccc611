"""What looks like a name of the code in the documents is one: functions, classes, settings, columns, files."""

import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from coremachine.scaffold.project import write_job, write_project
from tests.documents import ROOT, blocks, documents, inline_codes

SOURCE_FOLDERS = ("bench", "core", "coremachine", "infrastructure", "jobs", "sql", "tests", "triggers")
SOURCE_FILES = ("function_app.py", "host.json", "local.settings.example.json", "Makefile", "pyproject.toml")
SUFFIXES = {".py", ".sql", ".json", ".toml", ".html", ".txt"}
# Names of others, which our code does not mention, with whose they are.
OF_OTHERS = {
    "MyJob": "an author's",
    "my_package": "an author's",
    "account_name": "adlfs",
    "pg_control": "PostgreSQL",
    "OTEL_TRACES_SAMPLER": "OpenTelemetry",
    "OTEL_TRACES_SAMPLER_ARG": "OpenTelemetry",
    "parentbased_traceidratio": "OpenTelemetry",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "Azure",
    "AZURE_FEDERATED_TOKEN_FILE": "Azure",
    "REQUESTS_CA_BUNDLE": "requests",
    "SSL_CERT_FILE": "OpenSSL",
}
MODULES_OF_OTHERS = {"psycopg.sql"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A snake, a camel or a call: what a word of a language never is.
_LOOKS_LIKE_CODE = re.compile(r".*[a-z0-9]_[a-z0-9].*|[a-z]+[A-Z]\w*|[A-Z][a-z0-9]+[A-Z]\w*|[A-Z0-9]+_[A-Z0-9_]+")
_PATH = re.compile(r"[\w.-]+(?:/[\w.*{},-]+)+/?|[\w-]+\.(?:py|sql|md|json|toml|yml|sh)")


@cache
def source_names() -> frozenset[str]:
    """Every name that the source mentions, and those that the documents' own code defines."""
    texts = [without_comments(path.read_text(encoding="utf-8")) for path in source_files() if not is_about_names(path)]
    texts += [block.text for block in blocks() if block.language]
    return frozenset(name for text in texts for name in _NAME.findall(text))


@cache
def source_files() -> list[Path]:
    found = [path for folder in SOURCE_FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return [path for path in [*found, *(ROOT / name for name in SOURCE_FILES)] if "swagger" not in path.parts]


def is_about_names(path: Path) -> bool:
    """This test and its neighbours mention names that are not there."""
    return path.parent == Path(__file__).parent


def without_comments(text: str) -> str:
    """Code alone: a name that only a comment mentions is gone."""
    text = re.sub(r'"""(?:[^"]|"(?!""))*"""', "", text)
    return re.sub(r"(?m)(?:^|\s)(?:#|--) .*$", "", text)


def names_in(code: str) -> list[str]:
    """Names in a piece of code that look like ours: snakes, camels and calls."""
    code = _PATH.sub(" ", code)
    called = re.findall(r"([A-Za-z_]\w{2,})\(", code)
    return [name for name in _NAME.findall(code) if _LOOKS_LIKE_CODE.fullmatch(name) or name in called]


def unknown_names(code: str) -> list[str]:
    """Those that are not in the source."""
    return [name for name in names_in(code) if name not in source_names() and name not in OF_OTHERS]


@cache
def folders_and_files() -> frozenset[str]:
    """Every path of the project, and its endings: `acceptance/test_jobs.py` names a file of `tests`."""
    paths = [path.relative_to(ROOT).as_posix() for path in (*source_files(), *documents())]
    paths += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*")]
    wholes = {whole for path in paths for whole in [path, *(parent.as_posix() for parent in Path(path).parents)]}
    return frozenset("/".join(whole.split("/")[start:]) for whole in wholes for start in range(whole.count("/") + 1))


def missing_paths(code: str) -> list[str]:
    """Paths of the project's folders in a piece of code that are not there."""
    found = [path.rstrip("/") for path in _PATH.findall(code)]
    tops = {folder for folder in SOURCE_FOLDERS if folder.isidentifier()} | {"docs"}
    ours = [path for path in found if path.split("/")[0] in tops or path.endswith((".py", ".sql"))]
    return [path for path in ours if path not in folders_and_files() and not is_allowed(path)]


@cache
def written_by_readers() -> frozenset[str]:
    """Files that a page asks its reader to make (`Save this as `first_job.py``), and those of `coremachine init`."""
    texts = [" ".join(path.read_text(encoding="utf-8").split()) for path in documents()]
    saved = {name for text in texts for name in re.findall(r"Save (?:this|it) as `([^`]+)`", text)}
    with TemporaryDirectory() as folder:
        project = Path(folder) / "my-pipelines"
        made = [*write_project(project, azure=True), *write_job(project, "resize-images")]
    return frozenset(saved | {path.as_posix() for path in made})


def is_allowed(path: str) -> bool:
    """A pattern that fits a file, a shape such as `000N_words.sql`, or a file that the reader makes."""
    fits = "*" in path and any(ROOT.glob(path))
    return fits or path in MODULES_OF_OTHERS or "..." in path or "000N" in path or path in written_by_readers()


def test_every_name_that_looks_like_code_is_in_the_source():
    found = {f"{place} `{code}`": unknown_names(code) for place, code in inline_codes()}
    assert {place: names for place, names in found.items() if names} == {}


def test_there_are_names_to_check():
    assert len({name for _, code in inline_codes() for name in names_in(code)}) > 300


def test_every_path_of_the_project_is_there():
    found = {f"{place} `{code}`": missing_paths(code) for place, code in inline_codes()}
    assert {place: paths for place, paths in found.items() if paths} == {}


def test_a_name_that_is_not_there_is_found():
    assert unknown_names("complete_task_and_leave(p_job_id)") == ["complete_task_and_leave"]
    assert unknown_names("StateManager.claim_tasks") == []
    assert missing_paths("core/nothing.py and core/errors.py") == ["core/nothing.py"]
    assert missing_paths("unit/docs/test_names.py") == []


def test_index_of_decisions_has_each_of_them_by_its_title():
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    titles = [page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").split(". ", 1) for page in pages]
    rows = [f"| {number} | [{title}]({page.name}) |" for (number, title), page in zip(titles, pages, strict=True)]
    index = (ROOT / "docs" / "adr" / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| \d.*", index) == rows
