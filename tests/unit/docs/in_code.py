"""What the code records, logs and answers, read from its source: the tables of the reference pages are held to it."""

import ast
import gc
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from pathlib import Path

from core.models.control import AdjustOutcome, ControlOutcome
from core.models.dead_letter import DeadLetterResolution
from core.models.status import JobStatus, StageStatus
from coremachine.reference.sources import ROOT, sql_files, within_parentheses

# What is deployed.
PACKAGES = ("core", "infrastructure", "jobs", "triggers")


def python_files(*packages: str) -> list[Path]:
    """The Python files of the packages, or of all that is deployed."""
    files = [path for package in packages or PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return files if packages else [*files, ROOT / "function_app.py"]


@cache
def python_trees(*packages: str) -> list[tuple[Path, ast.Module]]:
    """Those files, parsed. No collection of garbage looks at what grows: that would take twice as long again."""
    gc.disable()
    try:
        return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in python_files(*packages)]
    finally:
        gc.enable()


@cache
def _nodes() -> list[ast.expr]:
    """All expressions of what is deployed: each look at the trees takes a third of a second."""
    return [node for _, tree in python_trees() for node in ast.walk(tree) if isinstance(node, ast.expr)]


# What a text in SQL is completed with: 'stage_' || v_status.
_ENDINGS = {
    "job_": [status.value for status in JobStatus if status.is_terminal],
    # Others end with their job, whose event says so.
    "stage_": [StageStatus.COMPLETED.value, StageStatus.COMPLETED_WITH_ERRORS.value],
    "dead_letter_": [resolution.value for resolution in DeadLetterResolution],
}


_NAME = re.compile(r"[a-z]+(_[a-z]+)+")
_LEVELS = ("debug", "info", "warning", "error", "exception", "log")


def recorded_events() -> set[str]:
    """The events that the SQL functions and the Python code record."""
    texts = [path.read_text(encoding="utf-8") for path in sql_files()]
    return {*_in_sql("\n".join(texts)), *_in_python()}


def finding_codes() -> set[str]:
    """The codes of what `explain` and the lists of jobs say; a code that is put together at run time is a status."""
    trees = [tree for path, tree in python_trees("core/operating")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id in {"Finding", "BriefReason"}
        and isinstance(call.args[0], ast.Constant)
    }


def _in_sql(text: str) -> Iterator[str]:
    for call in re.finditer(r"(?<!function )\{schema\}\.record_event\s*\(", text):
        event = split_arguments(within_parentheses(text, call.end() - 1))[4]
        literals = re.findall(r"'(\w+)'", event)
        if not literals:
            raise ValueError(f"record_event: expected an event with a literal in it, found {event!r}")
        for literal in literals:
            yield from (f"{literal}{ending}" for ending in (_ENDINGS[literal] if "||" in event else [""]))


def _in_python() -> Iterator[str]:
    for node in _nodes():
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in {"record_event", "record_repair"}:
            values = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            yield from (text for text in values if isinstance(text, str) and _NAME.fullmatch(text))


def split_arguments(text: str) -> list[str]:
    """The arguments of a call in SQL, which are separated by commas outside of parentheses, brackets and quotes."""
    parts, depth, begin = [], 0, 0
    for found in re.compile(r"'(?:[^']|'')*'|--[^\n]*|[()\[\],]").finditer(text):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(found[0], 0)
        if found[0] == "," and depth == 0:
            parts.append(text[begin : found.start()])
            begin = found.end()
    return [part.strip() for part in (*parts, text[begin:])]


def raised_codes() -> set[str]:
    """The codes that the code of the HTTP API gives to its problems."""
    return {
        name
        for _, tree in python_trees("triggers")
        for name in _codes_in(tree)
        if re.fullmatch("[a-z]+(_[a-z]+)*", name)
    }


def raised_statuses() -> dict[str, str]:
    """The status of each code that stands beside it in a call."""
    calls = [node for _, tree in python_trees("triggers") for node in ast.walk(tree) if isinstance(node, ast.Call)]
    problems = [call for call in calls if ast.unparse(call.func).endswith("ProblemError") and len(call.args) > 1]
    found = {code: _status(call.args[0]) for call in problems for code in _texts(call.args[1])}
    return {code: status for code, status in found.items() if status}


def _status(value: ast.expr) -> str:
    if isinstance(value, ast.Attribute) and ast.unparse(value.value) == "HTTPStatus":
        return str(int(HTTPStatus[value.attr]))
    return str(value.value) if isinstance(value, ast.Constant) else ""


def _codes_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.Assign):
            yield from _of_assignment(node)


def _of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func).rpartition(".")[2]
    if name == "ProblemError" and len(call.args) > 1:
        yield from _texts(call.args[1])
    elif name == "unknown" and call.args:
        yield from (f"unknown_{what}" for what in _texts(call.args[0]))


def _of_assignment(assignment: ast.Assign) -> Iterator[str]:
    """Of `code = "..."`, `code, detail = "...", ...` and the tables of reasons why a job is not rerun or adjusted."""
    (target,) = assignment.targets[:1]
    if ast.unparse(target) == "code":
        yield from _texts(assignment.value)
    elif isinstance(target, ast.Tuple) and isinstance(assignment.value, ast.Tuple):
        pairs = zip(target.elts, assignment.value.elts, strict=True)
        yield from (text for name, value in pairs if ast.unparse(name) == "code" for text in _texts(value))
    elif ast.unparse(target) in {"_NOT_RERUN", "_NOT_ADJUSTED"} and isinstance(assignment.value, ast.Dict):
        yield from (text for key in assignment.value.keys for text in _outcome(key))


def _outcome(key: ast.expr | None) -> Iterator[str]:
    for outcomes in (ControlOutcome, AdjustOutcome):
        if isinstance(key, ast.Attribute) and ast.unparse(key.value) == outcomes.__name__:
            yield outcomes[key.attr].value


def _texts(value: ast.expr) -> Iterator[str]:
    choices = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
    yield from (one.value for one in choices if isinstance(one, ast.Constant) and isinstance(one.value, str))


def logged_levels() -> dict[str, set[str]]:
    """The names that stand as a literal in a call of a logger, each with its levels."""
    found: dict[str, set[str]] = defaultdict(set)
    for call, method in _calls():
        levels = {"error" if method == "exception" else method}
        if method == "log":
            levels = {node.attr.lower() for node in ast.walk(call.args[0]) if isinstance(node, ast.Attribute)}
        for name in _names(call, method):
            found[name] |= levels & {"debug", "info", "warning", "error"}
    return dict(found)


def logged_fields() -> dict[str, set[str]]:
    """The fields that stand as literals in those calls, by the record's name."""
    found: dict[str, set[str]] = defaultdict(set)
    for call, method in _calls():
        extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
        keys = extra.keys if isinstance(extra, ast.Dict) else []
        for name in _names(call, method):
            found[name] |= {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    return dict(found)


@cache
def _calls() -> list[tuple[ast.Call, str]]:
    """Calls of a logger, with the method's name."""
    return [
        (call, call.func.attr)
        for call in _nodes()
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_logger(call.func)
    ]


def _is_logger(function: ast.Attribute) -> bool:
    return (
        function.attr in _LEVELS
        and re.search(r"\blog(ger)?\b|_log\b|_logger\b", ast.unparse(function.value)) is not None
    )


def _names(call: ast.Call, method: str) -> Iterator[str]:
    message = call.args[method == "log"]
    choices = [message.body, message.orelse] if isinstance(message, ast.IfExp) else [message]
    for choice in choices:
        if isinstance(choice, ast.Constant) and isinstance(choice.value, str):
            yield choice.value.split(" ", maxsplit=1)[0]


@cache
def literals() -> frozenset[str]:
    """All short texts of the deployed code: names that are put together are among them."""
    return frozenset(node.value for node in _nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str))


def checkpoints() -> set[str]:
    """The values that the code gives to `checkpoint`."""
    found = set()
    for node in _nodes():
        pairs: list[tuple[object, ast.expr]] = []
        if isinstance(node, ast.Dict):
            pairs = [(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values, strict=True)]
        elif isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        found |= {str(value.value) for key, value in pairs if key == "checkpoint" and isinstance(value, ast.Constant)}
    return found
