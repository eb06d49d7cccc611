"""A page and a figure of a job's result that its job type offers; the API does not know what they show.

A job class names a function in `view`, as `package.module:function`. It is called with a `ViewRequest` and returns a
`ViewAnswer`, or raises a `ViewProblem`. Its module is imported at the first request for it and never at a cold start.

`figure` names a function in the same way. It is called with a `ViewRequest` and returns a `Figure`, or raises a
`ViewProblem`: the dashboard draws it on the job's own page.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from core.basics.first_imports import IMPORTS

# A project's own module may take long to import, or hang: nothing of the engine is to wait for it.
_OWN_IMPORTS = RLock()
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


@dataclass(frozen=True)
class Outline:
    """A place on the map of a figure.

    Args:
        rings: Each a list of points, longitude and latitude in degrees.
        group: What it belongs to, for the legend; outlines of one group have one colour.
    """

    name: str
    rings: Sequence[Sequence[Sequence[float]]]
    group: str = ""


@dataclass(frozen=True)
class Figure:
    """A job's result at a glance: an image, a map, or both.

    Args:
        title: What it shows, for people.
        picture: The part of the job's `view` that is an image; empty for none.
        notes: What it lacks, a sentence each.
    """

    title: str
    outlines: Sequence[Outline] = ()
    picture: str = ""
    notes: Sequence[str] = ()


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
DrawFigure = Callable[[ViewRequest], Figure]


def view_problems(name: object, attribute: str = "view") -> list[str]:
    """What is wrong with the `view`, or the `figure`, of a job class, a sentence each; nothing is imported."""
    if name is None or (isinstance(name, str) and _NAME.fullmatch(name)):
        return []
    return [f"{attribute}: expected 'package.module:function' or None, found {name!r}"]


def load_view(name: str) -> View:
    """The function of that name.

    Raises:
        ViewNotInstalled: Its module cannot be imported here.
    """
    view: View = _load(name)
    return view


def load_figure(name: str) -> DrawFigure:
    """The function of that name.

    Raises:
        ViewNotInstalled: Its module cannot be imported here.
    """
    draw: DrawFigure = _load(name)
    return draw


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        with IMPORTS if module.startswith("jobs.") else _OWN_IMPORTS:
            return getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise ViewNotInstalled(f"This app cannot show it: {error}. Install what the job type needs.") from error
