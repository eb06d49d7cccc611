"""Every command in the documents is one that the project has, with options that it has."""

import functools
import html
import importlib.util
import re
from urllib.parse import urlsplit

import pytest

from coremachine.reference.commands import find_commands
from tests.documents import ROOT, blocks, commands, commands_of
from triggers.api import create_api

COMMANDS = dict(find_commands())
TARGETS = set(re.findall(r"^([a-z][\w-]*)(?: [\w-]+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE))
TARGETS |= set(" ".join(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)).split())
VARIABLES = set(re.findall(r"\$[({](?:or \$\()?([A-Z]+)\b", (ROOT / "Makefile").read_text()))
# Of every system, of Python, and of PostgreSQL.
OTHER_PROGRAMS = {
    "cd",
    "cat",
    "cp",
    "echo",
    "export",
    "git",
    "kubectl",
    "mkdir",
    "pip",
    "printf",
    "psql",
    "rm",
    "source",
}


def problem_with(words: tuple[str, ...]) -> str | None:
    """What is wrong with a command; None for one that can be typed."""
    program, rest = words[0], words[1:]
    if rest[:1] == ("--profile",):  # of all commands, and before their names
        rest = rest[2:]
    check = {"coremachine": _coremachine, "make": _make, "curl": _curl, "python": _python, "pytest": _pytest}[program]
    return check(rest)


def _coremachine(words: tuple[str, ...]) -> str | None:
    if not words or words in {("--help",), ("--install-completion",)}:
        return None
    names = [f"coremachine {' '.join(words[:count])}" for count in (2, 1)]
    name = next((name for name in names if name in COMMANDS), None)
    if name is None:
        return "no such command"
    options = {option: found for found in COMMANDS[name].params for option in (*found.opts, *found.secondary_opts)}
    given, takes_value, arguments = words[name.count(" ") :], False, 0
    for word in given:
        if takes_value:
            takes_value = False
        elif word.startswith("-") and len(word) > 1:
            option, equals, _ = word.partition("=")
            if option not in {*options, "--help"}:
                return f"no option {option}"
            takes_value = option != "--help" and not equals and not getattr(options[option], "is_flag", False)
        else:
            arguments += 1
    if takes_value:
        return f"{given[-1]} needs a value"
    most = [found for found in COMMANDS[name].params if found.param_type_name == "argument"]
    if arguments > len(most) and all(found.nargs == 1 for found in most):
        return f"takes {len(most)} arguments"
    return None


def _make(words: tuple[str, ...]) -> str | None:
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and name not in VARIABLES:
            return f"the Makefile reads no {name}"
        if not equals and word not in TARGETS:
            return f"no target {word}"
    return None


@functools.cache
def paths_of_the_api() -> dict[str, dict]:
    return create_api(lambda: None).openapi()["paths"]


def _curl(words: tuple[str, ...]) -> str | None:
    paths = paths_of_the_api()
    addresses = [urlsplit(word) for word in words if word.startswith("http")]
    method = "post" if "-X" in words and words[words.index("-X") + 1] == "POST" else "get"
    for address in addresses:
        found = [path for path in paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), address.path)]
        if not any(method in paths[path] for path in found):
            return f"no route {method.upper()} {address.path}"
        known = {one["name"] for path in found for one in paths[path].get(method, {}).get("parameters", [])}
        asked = {pair.partition("=")[0] for pair in filter(None, address.query.split("&"))}
        if asked - known:
            return f"no query parameter {', '.join(sorted(asked - known))}"
    return None


def _python(words: tuple[str, ...]) -> str | None:
    if words[:1] != ("-m",) or len(words) == 1:
        return "expected python -m and a module"
    if words[1] == "pytest":
        return _pytest(words[2:])
    return None if importlib.util.find_spec(words[1]) else f"no module {words[1]}"


def _pytest(words: tuple[str, ...]) -> str | None:
    written = {name for block in blocks() for name in re.findall(r"`([\w/]+\.py)`", block.path.read_text())}
    for word in words:
        if "/" in word and word != "tests/..." and not (ROOT / word).exists() and word not in written:
            return f"no file {word}"
    return None


def test_every_command_can_be_typed():
    found = {str(command): problem_with(command.words) for command in commands()}
    assert {command: problem for command, problem in found.items() if problem is not None} == {}


def test_every_command_that_a_page_of_the_dashboard_shows_can_be_typed():
    texts = [path.read_text() for path in sorted((ROOT / "triggers/ui/templates").glob("*.html"))]
    shown = [
        html.unescape(found) for text in texts for found in re.findall(r"<pre class=\"code\">(coremachine .*?)</", text)
    ]
    problems = {text: problem_with(words) for text in shown for words in commands_of(text)}
    assert len(problems) > 1
    assert {text: problem for text, problem in problems.items() if problem is not None} == {}


def test_there_are_commands_of_each_program():
    assert {command.words[0] for command in commands()} == {"coremachine", "make", "curl", "python", "pytest"}


def first_words(text: str) -> list[str]:
    """The program of each line that could be a command."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    words = [re.sub(r"^([A-Za-z_]\w*=\S* )+", "", line).partition(" ")[0] for line in lines]
    return [word for word in words if re.fullmatch("[a-z]+", word)]


def test_other_programs_in_a_block_of_commands_are_those_of_every_system():
    known = {"coremachine", "make", "curl", "python", "pytest", *OTHER_PROGRAMS}
    for block in blocks():
        if block.language in {"", "bash", "sh", "console"} and any(commands_of(block.text)):
            assert set(first_words(block.text)) - known == set(), str(block)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("coremachine submit hello_world --wait", None),
        ("coremachine dead list --group  # a word", None),
        ("X=1 coremachine list --status failed    GET /api/jobs", None),
        ("coremachine start", "no such command"),
        ("coremachine list --stat failed", "no option --stat"),
        ("coremachine list --status", "--status needs a value"),
        ("coremachine status 1 2", "takes 1 arguments"),
        ("make test TESTERS=2", None),
        ("make tests", "no target tests"),
        ("make test SPEED=2", "the Makefile reads no SPEED"),
        ("curl http://127.0.0.1:7071/api/jobs/1/tasks?stage=2", None),
        ("curl http://127.0.0.1:7071/api/job/1", "no route GET /api/job/1"),
        ("curl -X POST http://127.0.0.1:7071/api/jobs", "no route POST /api/jobs"),
        ("curl http://127.0.0.1:7071/api/jobs?state=x", "no query parameter state"),
        ("python -m coremachine.nothing", "no module coremachine.nothing"),
        ("pytest tests/nothing.py", "no file tests/nothing.py"),
    ],
)
def test_what_is_wrong_with_a_command_is_found(text, problem):
    (words,) = commands_of(text)
    assert problem_with(words) == problem
