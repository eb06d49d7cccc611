"""A page about a job's result that its job type offers; the API serves it and does not know what it shows.

A job class names a function in `view`, as `package.module:function`. It is called with a `ViewRequest` and returns a
`ViewAnswer`, or raises a `ViewProblem`. Its module is imported at the first request for it and never at a cold start.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.basics.first_imports import IMPORTS

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class ViewRequest:
    """What is asked for.

    Args:
        result: The job's own result, of the run.
        part: What the page asks for; empty for the page itself. It is the client's text: never use it as a path.
        query: What the page's own links repeat, such as a function key: empty, or it begins with `?`.
    """

    job_id: str
    run: int
    status: str
    result: Mapping[str, Any] | None
    part: str = ""
    query: str = ""


@dataclass(frozen=True)
class ViewAnswer:
    """The page, or a part of it."""

    content: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class ViewProblem(Exception):
    """There is nothing to show; has the reason and what to do."""


class NoSuchPart(ViewProblem):
    """The page has no part of that name."""


class NothingToShow(ViewProblem):
    """The job has no result that could be shown now."""


class ViewBusy(ViewProblem):
    """Too many ask at once; asking again later helps."""


class ViewFailed(ViewProblem):
    """A file of the result could not be read now."""


class ViewNotInstalled(ViewProblem):
    """This app lacks what the view needs."""


View = Callable[[ViewRequest], ViewAnswer]


def view_problems(name: object) -> list[str]:
    """What is wrong with the `view` of a job class, a sentence each; nothing is imported."""
    if name is None or (isinstance(name, str) and _NAME.fullmatch(name)):
        return []
    return [f"view: expected 'package.module:function' or None, found {name!r}"]


def load_view(name: str) -> View:
    """The function of that name.

    Raises:
        ViewNotInstalled: Its module cannot be imported here.
    """
    module, _, function = name.partition(":")
    try:
        with IMPORTS:
            view: View = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise ViewNotInstalled(f"This app cannot show it: {error}. Install what the job type needs.") from error
    return view
