"""The Python client: its two classes, its methods and its errors."""

import inspect
from collections.abc import Iterator

from coremachine import client
from coremachine.client import errors, operations
from coremachine.client.clients import Client, Options
from coremachine.client.waiting import wait_for_job
from coremachine.reference.markdown import code, first_sentence, page, table

_INTRODUCTION = """
`from coremachine.client import Client, AsyncClient`, of the extra `client`;
[Use the client](../howto/use-the-client.md) shows it at work. A method has the name of its operation in the
[HTTP API](http.md), and its arguments have the names of that operation's parameters and of the fields of its body. The
`AsyncClient` has the same ones, to be awaited.

Answers are pydantic models of `coremachine.client.models`, those that the API itself makes its answers with. A method
of a list gives a `Listing`: iterate over it for all items, which are read page by page, or over its `pages()`. The
operations for [Azure's clients](../howto/follow-jobs.md) and for those of Durable Functions are not here: they are for
programs that know them by other names.
"""
_REPEATED = """
Reads, submissions that can make no second job, and dry runs are sent again while the server is away; what was answered
429 is sent again too. The pauses grow from 0.5 to 15 seconds, and are at least what `Retry-After` asks for. A server
that has never answered is not waited for, since it may be the wrong one.
"""


def render() -> str:
    options = inspect.getdoc(Options) or ""
    names = [name for name in vars(Client) if inspect.isfunction(getattr(operations, name, None))]
    methods = [_method(name, getattr(operations, name)) for name in names]
    wait = ["wait_for_job", _arguments(list(inspect.signature(wait_for_job).parameters.values())[1:])]
    kinds = [getattr(errors, name) for name in client.__all__ if inspect.isclass(getattr(errors, name, None))]
    return page(
        "Python client",
        "`coremachine/client`",
        _INTRODUCTION,
        "## Options\n\n`Client(url, **options)`:",
        table(["option", "what it is"], _options(options)),
        "## Methods",
        table(
            ["method", "arguments", "answer", "what it does"],
            [
                *methods,
                [code(wait[0]), code(wait[1]), code("JobAnswer"), first_sentence(inspect.getdoc(wait_for_job) or "")],
            ],
        ),
        "## Requests that are sent again",
        _REPEATED,
        "## Errors",
        table(["exception", "base", "what it is"], [_error(kind) for kind in kinds]),
    )


def _method(name: str, build: object) -> list[str]:
    signature = inspect.signature(build)  # type: ignore[arg-type]
    answer = str(signature.return_annotation).removeprefix("Call[").removesuffix("]").replace("models.", "")
    shown = answer.replace("Page[", "Listing[")
    text = first_sentence(inspect.getdoc(build) or "")
    return [code(name), code(_arguments(list(signature.parameters.values()))), code(shown), text]


def _arguments(parameters: list[inspect.Parameter]) -> str:
    return ", ".join(
        each.name if each.default is inspect.Parameter.empty else f"{each.name}={each.default}" for each in parameters
    )


def _options(text: str) -> Iterator[list[str]]:
    """The lines of the docstring's Args, each with those that go on with it."""
    found: list[list[str]] = []
    for line in text.partition("Args:\n")[2].split("\n"):
        name, colon, rest = line.strip().partition(": ")
        if colon and line.startswith("    ") and not line.startswith("     "):
            found.append([name, rest])
        elif found:
            found[-1][1] += f" {line.strip()}"
    yield from ([code(name), rest] for name, rest in found)


def _error(kind: type) -> list[str]:
    return [code(kind.__name__), code(kind.__bases__[0].__name__), first_sentence(inspect.getdoc(kind) or "")]
