"""What is written is called from somewhere, and what can be asked for is told (lesson D44)."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from coremachine.cli.main import find_whole_command
from triggers.api import create_api

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "coremachine", "infrastructure", "jobs", "triggers")
SOURCES = [ROOT / "function_app.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]
TEMPLATES = sorted((ROOT / "triggers").rglob("*.html"))
FUNCTION_FILES = sorted((ROOT / "sql" / "functions").glob("*.sql"))
DOCS = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])

# These only put a definition in another shape; every other decorator hands it to somebody who calls it.
SHAPES = {
    "staticmethod",
    "classmethod",
    "property",
    "contextmanager",
    "contextlib.contextmanager",
    "dataclass",
    "cached_property",
}
# Called by a library, by their names.
HOOKS = {
    "settings_customise_sources",  # pydantic-settings
    "dump",  # psycopg
    "pytest_addoption",
    "pytest_unconfigure",
    "capture_signals",  # uvicorn, as are the next three
    "main_loop",
    "send_400_response",
    "_unsupported_upgrade_warning",
    "thread_local_storage",  # azure.functions.Context, as are the next three
    "function_directory",
    "trace_context",
    "retry_context",
    "do_GET",  # http.server, as is the next
    "log_message",
    "makefile",  # of a socket, as http.client asks it
    "readinto",  # io.RawIOBase
}
# For those who test or deploy an app, or write a repository of their own.
TOOLS = {
    "worker_pids",
    "for_queues",
    "_ensure_schema_exists",
    "build_where_clause",
    "fail_all_job_tasks",  # of `StateManager`: ends a job from outside, wherever it is
}


def definitions(tree: ast.Module) -> Iterator[str]:
    """Functions, methods and classes that nobody calls unless their names stand somewhere."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        shapes = {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}
        if shapes <= SHAPES and not node.name.startswith("__"):
            yield node.name


def mentions(tree: ast.Module) -> Iterator[str]:
    """Names that are read, and those in short texts: entry points and names of columns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 60:
            yield from re.findall(r"\w+", node.value)


def asked_by(template: str) -> Iterator[str]:
    """Names in what a page of the dashboard computes."""
    for part in re.findall(r"{[{%].*?[%}]}", template, flags=re.DOTALL):
        yield from re.findall(r"\w+", part)


def unused(trees: Iterable[ast.Module], templates: Iterable[str] = ()) -> set[str]:
    defined: set[str] = set()
    mentioned = {name for template in templates for name in asked_by(template)}
    for tree in trees:
        defined.update(definitions(tree))
        mentioned.update(mentions(tree))
    return defined - mentioned


def test_every_function_and_class_is_mentioned_outside_its_definition():
    """Code that nothing called was taken for a feature (lesson D44)."""
    templates = [path.read_text() for path in TEMPLATES]
    # One at a time: of all together, the collector of garbage would make most of the test's time.
    assert unused((ast.parse(path.read_text()) for path in SOURCES), templates) == HOOKS | TOOLS


def test_a_function_that_nothing_calls_is_found():
    tree = ast.parse("def batch(): ...\ndef one(): ...\nclass A:\n    def many(self): one()\nA()")
    assert unused([tree]) == {"batch", "many"}
    assert unused([tree], ["<p>batch {% if x.many %}{{ one }}{% endif %}"]) == {"batch"}


def uncalled(sql: str, code: str) -> list[str]:
    """Functions of the database that neither another one nor the code names."""
    sql = re.sub(r"--[^\n]*", "", sql)
    defined = Counter(re.findall(r"create or replace function \{schema\}\.(\w+)", sql))
    named = Counter(re.findall(r"\{schema\}\.(\w+)\s*\(", sql))
    return [name for name, count in defined.items() if named[name] == count and f'"{name}"' not in code]


def test_every_function_of_the_database_is_called():
    """Wrappers that nothing called stood beside what was really done (lesson D44)."""
    sql = "\n".join(path.read_text() for path in FUNCTION_FILES)
    code = "\n".join(path.read_text() for path in SOURCES if path.is_relative_to(ROOT / "infrastructure"))
    assert uncalled(sql, code) == []


def test_a_function_of_the_database_that_nothing_calls_is_found():
    sql = "\n".join(
        f"create or replace function {{schema}}.{name}(p text) {body}"
        for name, body in {"a": "{schema}.b(p) -- {schema}.d(p)", "b": "", "c": "", "d": ""}.items()
    )
    assert uncalled(sql, 'self._call("a", (1,))') == ["c", "d"]


def commands(group, *before: str) -> Iterator[str]:
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *before, name) if hasattr(command, "commands") else [" ".join((*before, name))]


@pytest.mark.parametrize("command", list(commands(find_whole_command())))
def test_every_command_is_in_the_documents(command):
    """What nobody is told of, nobody misses when it stops working (lesson D44)."""
    assert re.search(rf"coremachine {command}\b|make {command}\b", DOCS)


def without_names(text: str) -> str:
    return re.sub(r"\{\w+\}", "{}", text)


def test_every_route_is_in_the_documents():
    """What nobody is told of, nobody misses when it stops working (lesson D44)."""
    documents = without_names(DOCS)
    paths = create_api(lambda: None).openapi()["paths"]
    assert len(paths) > 10
    assert [path for path in paths if not re.search(re.escape(without_names(path)) + r"(?![\w/])", documents)] == []
