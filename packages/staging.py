"""What the build backends of the packages in this folder share: modules of the checkout, put below a name of their own.

The modules import each other by their whole names, and nothing else of the checkout. These names are all that changes.
"""

import ast
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta

ROOT = Path(__file__).resolve().parents[1]


class CannotBuild(Exception):
    """The checkout's modules are not what they have to be."""


class Backend:
    """What a build asks of a package: its wheel and its metadata, from the tree that `stage` makes in a folder."""

    def __init__(self, stage: Callable[[Path], None]) -> None:
        self._stage = stage

    def build_wheel(
        self,
        wheel_directory: str,
        config_settings: Mapping[str, Any] | None = None,
        metadata_directory: str | None = None,
    ) -> str:
        """The wheel of this package alone."""
        del metadata_directory  # that of the same tree is made again
        target = str(Path(wheel_directory).resolve())
        with _in_staged_tree(self._stage):
            return str(build_meta.build_wheel(target, config_settings))

    def prepare_metadata_for_build_wheel(
        self, metadata_directory: str, config_settings: Mapping[str, Any] | None = None
    ) -> str:
        """The metadata of that wheel."""
        target = str(Path(metadata_directory).resolve())
        with _in_staged_tree(self._stage):
            return str(build_meta.prepare_metadata_for_build_wheel(target, config_settings))


@contextlib.contextmanager
def _in_staged_tree(stage: Callable[[Path], None]) -> Iterator[None]:
    """Inside of a folder for a while that `stage` has filled."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="coremachine-package-") as name:
        stage(Path(name))
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)


def stage_project(here: Path, folder: Path, package: str) -> Path:
    """Copy what every package has; returns the folder of its modules, which has to exist."""
    for path in (here / "pyproject.toml", here / "README.md", ROOT / "LICENSE"):
        shutil.copy2(path, folder / path.name)
    modules = folder / package
    shutil.copy2(ROOT / "core" / "basics" / "version.py", modules / "version.py")
    (modules / "py.typed").touch()
    return modules


def rename_all(modules: Path, renames: Mapping[str, str]) -> None:
    """Give the modules below a folder the names of their place in the package.

    Args:
        renames: Names of packages of the checkout, longest first, and what they are called in the package.

    Raises:
        CannotBuild: A module imports what does not come with the package.
    """
    for path in sorted(modules.rglob("*.py")):
        where = str(path.relative_to(modules))
        path.write_text(renamed(path.read_text(encoding="utf-8"), where, renames), encoding="utf-8")
    _check_that_all_is_here(modules)


def renamed(source: str, where: str, renames: Mapping[str, str]) -> str:
    """A module's source for its place in the package; raises as `rename_all` does."""
    for old, new in renames.items():
        source = re.sub(rf"\b{re.escape(old)}\b", new, source)
    for line, name in _imports(source, where):
        if name.partition(".")[0] in {"", "coremachine", "core"}:
            raise CannotBuild(f"{where}:{line}: expected imports of {', '.join(renames)}, found {name or '.'}")
    return source


def _imports(source: str, where: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source, where)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "" if node.level else node.module or ""


def _check_that_all_is_here(modules: Path) -> None:
    for path in sorted(modules.rglob("*.py")):
        for line, name in _imports(path.read_text(encoding="utf-8"), str(path)):
            first, *rest = name.split(".")
            place = modules.joinpath(*rest)
            if first == modules.name and not (place.is_dir() or place.with_suffix(".py").is_file()):
                raise CannotBuild(f"{path.relative_to(modules)}:{line}: expected {name} in the package, found none")
