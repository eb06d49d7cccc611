"""One module's mutants before its tests: collected once, then run in a forked process for each mutant.

The fork changes the code of the functions that are there, so nothing is imported again, and other modules that have
imported them get the change too.
"""

import ast
import contextlib
import importlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

import pytest

from .changes import Mutant, mutants_of

# A change may make a loop endless; noticed as well.
LONGEST_SECONDS = 120


@dataclass
class Hunt:
    """A plugin of pytest that runs the collected tests once unchanged, and then for each mutant until one fails."""

    module_name: str
    survivors: list[Mutant] = field(default_factory=list)
    count: int = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        from hypothesis import settings  # loaded late, as pytest rewrites its asserts

        settings.register_profile("mutants", settings.get_profile("tests"), derandomize=True, database=None)
        settings.load_profile("mutants")
        module = importlib.import_module(self.module_name)
        with open(str(module.__file__), encoding="utf-8") as file:  # noqa: PTH123 - as the interpreter does
            source = file.read()
        if not passes(session, module, ast.parse(source)):
            raise pytest.UsageError(f"the tests of {self.module_name} fail without any change, or had none")
        for mutant in mutants_of(source):
            self.count += 1
            if passes(session, module, mutant.tree):
                self.survivors.append(mutant)
        return True


def passes(session: pytest.Session, module: ModuleType, tree: ast.Module) -> bool:
    """Whether all tests pass with this code in the module."""
    pid = os.fork()
    if pid == 0:
        failed = True
        with contextlib.suppress(BaseException):
            failed = run_changed(session, module, tree)
        os._exit(1 if failed else 0)
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def run_changed(session: pytest.Session, module: ModuleType, tree: ast.Module) -> bool:
    """Whether a test failed."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    change(module, tree)
    for item, following in zip(session.items, [*session.items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return True
    return not session.items


def change(module: ModuleType, tree: ast.Module) -> None:
    """Give the module's functions and values those of the tree."""
    changed = ModuleType(module.__name__)
    changed.__dict__.update(__file__=module.__file__, __package__=module.__package__)
    # What a class decorator looks up by the module's name while it runs.
    sys.modules[module.__name__] = changed
    try:
        exec(compile(tree, str(module.__file__), "exec"), changed.__dict__)  # noqa: S102 - the project's own code
    finally:
        sys.modules[module.__name__] = module
    for name, new in list(vars(changed).items()):
        old = vars(module).get(name)
        if not name.startswith("__") and getattr(new, "__module__", module.__name__) == module.__name__:
            replace(module, name, old, new)


def replace(owner: Any, name: str, old: Any, new: Any) -> None:
    if isinstance(new, type):
        for attribute, value in list(vars(new).items()):
            is_own = isinstance(value, FunctionType | property | staticmethod | classmethod) or attribute.isupper()
            if is_own and attribute in vars(old):
                replace(old, attribute, vars(old)[attribute], value)
    elif isinstance(new, property):
        replace(owner, name, old.fget, new.fget)
    elif isinstance(function_in(new), FunctionType):
        function, source = function_in(old), function_in(new)
        if function.__code__.co_freevars == source.__code__.co_freevars:
            function.__code__ = source.__code__
            function.__defaults__, function.__kwdefaults__ = source.__defaults__, source.__kwdefaults__
        elif isinstance(new, FunctionType):
            setattr(owner, name, with_cells_of(function, source))
    else:
        setattr(owner, name, new)


def with_cells_of(function: FunctionType, source: FunctionType) -> FunctionType:
    """The source's code among the function's names: a change that takes `super()` away leaves no cell for its class."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in source.__code__.co_freevars)
    made = FunctionType(source.__code__, function.__globals__, function.__name__, source.__defaults__, closure)
    made.__kwdefaults__ = source.__kwdefaults__
    return made


def function_in(value: Any) -> Any:
    """What a cache, a class method or another wrapper calls."""
    while hasattr(value, "__wrapped__") or isinstance(value, staticmethod | classmethod):
        value = getattr(value, "__wrapped__", None) or value.__func__
    return value
