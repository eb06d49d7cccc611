"""The build backend: setuptools, which gets the broker's modules of the checkout as `coremachine_servicebus`.

The modules import each other by their whole names, and nothing else of the checkout. These names are all that changes.
"""

import ast
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import get_requires_for_build_wheel

__all__ = ["build_wheel", "get_requires_for_build_wheel", "prepare_metadata_for_build_wheel"]

PACKAGE = "coremachine_servicebus"
BROKER, BESIDE = "coremachine.local.broker", "coremachine.local"
# What the broker shares with the rest of the local stack.
SHARED = ("connections", "descriptors", "problem", "request_head", "web_guard")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OTHER_FILES = (HERE / "pyproject.toml", HERE / "README.md", ROOT / "LICENSE")

Settings = Mapping[str, Any] | None


class CannotBuild(Exception):
    """The checkout's modules are not what they have to be."""


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """The wheel of the broker alone."""
    del metadata_directory  # that of the same tree is made again
    target = str(Path(wheel_directory).resolve())
    with _in_staged_tree():
        return str(build_meta.build_wheel(target, config_settings))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    target = str(Path(metadata_directory).resolve())
    with _in_staged_tree():
        return str(build_meta.prepare_metadata_for_build_wheel(target, config_settings))


@contextlib.contextmanager
def _in_staged_tree() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix=f"{PACKAGE}-") as name:
        stage(Path(name))
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)


def stage(folder: Path) -> None:
    """Put the package into a folder as it is built.

    Raises:
        CannotBuild: The checkout is not around this folder, or a module needs what does not come with the package.
    """
    local = ROOT / "coremachine" / "local"
    if not (local / "broker").is_dir():
        raise CannotBuild(f"expected the checkout of CoreMachine around {HERE}, found no {local / 'broker'}")
    package = folder / PACKAGE
    shutil.copytree(local / "broker", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(HERE / "facade.py", package / "__init__.py")
    shutil.copy2(ROOT / "core" / "basics" / "version.py", package / "version.py")
    for name in SHARED:
        if (package / f"{name}.py").exists():
            raise CannotBuild(f"expected one module {name}, found one in the broker and one beside it")
        shutil.copy2(local / f"{name}.py", package / f"{name}.py")
    (package / "py.typed").touch()
    for path in sorted(package.glob("*.py")):
        path.write_text(renamed(path.read_text(encoding="utf-8"), path.name), encoding="utf-8")
    for path in OTHER_FILES:
        shutil.copy2(path, folder / path.name)


def renamed(source: str, where: str) -> str:
    """A module's source for its place in the package."""
    moved = re.sub(rf"\b{re.escape(BROKER)}\b", PACKAGE, source)
    moved = re.sub(rf"\b{re.escape(BESIDE)}\b", PACKAGE, moved)
    for node in ast.walk(ast.parse(moved, where)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        for name in names:
            if name.partition(".")[0] in {".", "coremachine", "core"}:
                raise CannotBuild(f"{where}:{node.lineno}: expected imports of {BROKER} and {SHARED}, found {name}")
    return moved
