"""Job classes and handlers of a package, found in its modules in the order of their names.

A module that cannot be imported is reported by its file, its line and what to do.
"""

import importlib
import pkgutil
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from core.safety.safe_text import repr_of, storable_text, text_of, type_name
from jobs.base import JobBase, is_job_class
from jobs.handlers import marked_in
from jobs.registry import Handler, Registry, handler_of

_PROJECT = "pyproject.toml"
# Whose lines are no author's: the import system, the standard library, installed packages, this package.
_LIBRARIES = ("<", *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")), str(Path(__file__).parent))


class ModuleNotLoaded(ImportError):
    """A module of an author's cannot be imported; the text has the place, the reason and what to do."""


class NoJobs(LookupError):
    """A package without any job class."""


def discover(package: str, queues: Iterable[str]) -> Registry:
    """The registry of all job classes and handlers that the package and the modules below it define.

    Modules whose names begin with `_` or `test_`, and packages called `tests`, are left out.

    Args:
        package: The dotted name of a package, or of one module.
        queues: The logical names of this deployment's task queues.

    Raises:
        ModuleNotLoaded: A module cannot be imported.
        NoJobs: There is no job class.
        JobDefinitionError: What was found does not fit together.
    """
    modules = list(_modules_of(package))
    jobs = [job for module in modules for job in _jobs_of(module)]
    if not jobs:
        found = f"found none in {', '.join(module.__name__ for module in modules)}"
        raise NoJobs(f"expected a job class in {package}, {found}; add one with `coremachine new job NAME`")
    handlers = {id(handler): handler for module in modules for handler in _handlers_of(module)}
    return Registry(jobs, handlers.values(), queues)


def load_module(name: str) -> ModuleType:
    """Import a module.

    Raises:
        ModuleNotLoaded: It is not there, or its own code fails.
    """
    try:
        return importlib.import_module(name)
    except BaseException as error:  # sys.exit() at the end of a script is an author's code, too
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        raise ModuleNotLoaded(storable_text(_reason_of(error, name))) from error


def _modules_of(package: str) -> Iterator[ModuleType]:
    module = load_module(package)
    yield module
    for found in sorted(pkgutil.iter_modules(getattr(module, "__path__", ())), key=lambda each: each.name):
        if not found.name.startswith(("_", "test_")) and found.name not in {"tests", "conftest"}:
            yield from _modules_of(f"{package}.{found.name}")


def _jobs_of(module: ModuleType) -> list[type[JobBase]]:
    """Those that the module itself defines: what it imports is of another."""
    return [value for value in _values_of(module) if is_job_class(value) and value.__module__ == module.__name__]


def _handlers_of(module: ModuleType) -> Iterator[Handler]:
    """Those that a list or a name of the module has, and those that it declares beside their functions."""
    for function, mark in marked_in(vars(module)):
        if function.__module__ == module.__name__:
            yield handler_of(function, mark)
    for value in _values_of(module):
        if isinstance(value, Handler):
            yield value
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, Handler))


def _values_of(module: ModuleType) -> list[object]:
    return list(vars(module).values())


def _reason_of(error: BaseException, name: str) -> str:
    place = _place_of(error) or f"module {name}: "
    if isinstance(error, SyntaxError) and error.filename is not None:  # of a file with zero bytes, it has neither
        text = f": {error.text.strip()}" if error.text else ""
        return f"{_shown(error.filename)}, line {error.lineno}: {type_name(error)}: {text_of(error.msg)}{text}"
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        if name == error.name or name.startswith(f"{error.name}."):
            return (
                f"expected a module {name} that can be imported, found none; correct its name, or go to the "
                "folder that has it, or install it"
            )
        return f"{place}expected the module {error.name!r}, found none; {_advice_on(error.name)}"
    if isinstance(error, SystemExit):
        found = f"found sys.exit({repr_of(error.code)}) when it is imported"
        return f"{place}expected a module that can be imported, {found}; put that into a function"
    return f"{place}{type_name(error)}: {text_of(error)}"


def _advice_on(missing: str) -> str:
    """What to do about a module that is not there: its package may be there, and the author's own."""
    package = sys.modules.get(missing.rpartition(".")[0])
    if package is None:
        return f"install what has it (pip install ...), and add that to the dependencies in {_PROJECT}"
    file = getattr(package, "__file__", None)
    return f"see its name: {package.__name__} is {_shown(file) if file else 'a folder'}, and has no such module"


def _place_of(error: BaseException) -> str:
    """The line of the author's that the error came from: the last that is no library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    return f"{_shown(own[-1].filename)}, line {own[-1].lineno}: " if own else ""


def _shown(filename: str) -> str:
    """A file below the present folder by its path there."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
