"""The public API: what `from coremachine import ...` has."""

import inspect
from collections.abc import Iterator

import coremachine
from coremachine.reference.markdown import code, first_sentence, page, table

_INTRODUCTION = """
All of these come from `coremachine`, for example `from coremachine import Job, Stage, handler`. They are typed
(`py.typed`), and each is imported when it is first used. `coremachine.app` has `app`, the function app, and
`coremachine.testing` what [tests of jobs](../howto/test-a-job.md) need.

Versions follow [semantic versioning](https://semver.org): a name of this page is removed, or changes what it means,
only in a release with a new first number; before 1.0, in one with a new second number. The same holds for the commands,
the HTTP API, the settings and the tables. Every other module is private and may change in any release.
"""


def render() -> str:
    rows = [row for name in sorted(coremachine.__all__, key=str.lower) for row in _row(name)]
    return page("Python API", "`coremachine/__init__.py`", _INTRODUCTION, table(["name", "kind", "what it is"], rows))


def _row(name: str) -> Iterator[list[str]]:
    value = getattr(coremachine, name)
    if name == "__version__":
        yield [code(name), "text", "The installed version."]
    elif name != getattr(value, "__name__", name):
        yield [code(name), _kind(value), f"Another name of {code(value.__name__)}."]
    else:
        yield [code(name), _kind(value), first_sentence(inspect.getdoc(value) or "")]


def _kind(value: object) -> str:
    if not inspect.isclass(value):
        return "function"
    return "exception" if issubclass(value, BaseException) else "class"
