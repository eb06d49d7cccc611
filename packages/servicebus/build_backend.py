"""The build backend: setuptools, which gets the broker's modules of the checkout as `coremachine_servicebus`."""

import shutil
import sys
from pathlib import Path

from setuptools.build_meta import get_requires_for_build_wheel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from staging import ROOT, Backend, CannotBuild, rename_all, stage_project  # noqa: E402 - beside this folder

__all__ = ["build_wheel", "get_requires_for_build_wheel", "prepare_metadata_for_build_wheel"]

PACKAGE = "coremachine_servicebus"
# The modules of both are those of one package.
RENAMES = {"coremachine.local.broker": PACKAGE, "coremachine.local": PACKAGE}
# What the broker shares with the rest of the local stack.
SHARED = ("connections", "descriptors", "problem", "request_head", "web_guard")


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
    for name in SHARED:
        if (package / f"{name}.py").exists():
            raise CannotBuild(f"expected one module {name}, found one in the broker and one beside it")
        shutil.copy2(local / f"{name}.py", package / f"{name}.py")
    stage_project(HERE, folder, PACKAGE)
    shutil.copy2(HERE / "facade.py", package / "__init__.py")
    rename_all(package, RENAMES)


_backend = Backend(stage)
build_wheel = _backend.build_wheel
prepare_metadata_for_build_wheel = _backend.prepare_metadata_for_build_wheel
