"""The build backend: setuptools, which gets the wheel's tree from `one_package`. See ADR 0023."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from one_package import stage
from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = Mapping[str, Any] | None


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """The wheel of `coremachine` alone."""
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
    """A folder of its own: nothing that an earlier build left can get into the wheel."""
    root = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="coremachine-wheel-") as name:
        stage(root, Path(name))
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(root)
