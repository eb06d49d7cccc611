"""Names of functions as another process finds them: `package.module:function`."""

import importlib
import sys
from collections.abc import Callable
from functools import reduce
from typing import Any

from core.safety.safe_text import text_of, type_name


def name_of(function: Callable[..., Any], through: Callable[..., Any] | None = None) -> str:
    """The name under which `find` gives the function back, where `import_problem` finds none.

    Args:
        through: `find` gives what this function makes of it.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    return name if through is None else f"{name_of(through)}({name})"


def find(name: str) -> Any:
    """The object of that name. Raises what its import raises, or AttributeError."""
    if name.endswith(")"):
        through, _, inner = name.removesuffix(")").partition("(")
        return find(through)(find(inner))
    module, _, path = name.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))


def import_problem(function: object) -> str | None:
    """Why a spawned process would not find the function by import, and what to do; None where it does."""
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        return f"found {type_name(function)} object without a name of its own; write a function (def) that calls it"
    if module == "__main__":
        return f"found {path} in the script that was started; move it to a module that is imported"
    if "<" in path:
        return f"found {module}:{path}, made inside another function; write it with def at the top of a module"
    if not _is_importable(module):
        return f"found {module}:{path}, and no module {module} on sys.path; put its file into a folder that is"
    return _problem_of_import(f"{module}:{path}", function)


def _problem_of_import(name: str, function: object) -> str | None:
    try:
        found = find(name)
    except Exception as error:  # noqa: BLE001 - an import runs an author's code
        return f"found {name}, which cannot be imported: {type_name(error)}: {text_of(error)}"
    if found != function:
        return f"found {name}, under which an import gives something else; a decorator needs functools.wraps"
    return None


def _is_importable(module: str) -> bool:
    """Whether a search finds it: what was loaded here may not be there in another process."""
    package = module.rpartition(".")[0]
    try:
        path = list(importlib.import_module(package).__path__) if package else None
        return any(finder.find_spec(module, path) is not None for finder in sys.meta_path)
    except (ImportError, AttributeError, ValueError):
        return False
