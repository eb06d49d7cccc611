"""The build backend: setuptools, which gets the host's modules of the checkout as `coremachine_functions`."""

import shutil
import sys
from pathlib import Path

from setuptools.build_meta import get_requires_for_build_wheel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from staging import ROOT, Backend, CannotBuild, rename_all, stage_project  # noqa: E402 - beside this folder

__all__ = ["build_wheel", "get_requires_for_build_wheel", "prepare_metadata_for_build_wheel"]

PACKAGE = "coremachine_functions"
RENAMES = {"coremachine.local": f"{PACKAGE}.local"}
# Beside the host itself: what it shares with the rest of the local stack, and the broker's AMQP.
SHARED = (
    "__init__",
    "app_folder",
    "broker/__init__",
    "broker/codec",
    "broker/performatives",
    "broker/section_codes",
    "connections",
    "descriptors",
    "own_path",
    "problem",
    "request_head",
    "source_watch",
    "stop_signals",
    "web_guard",
)


def stage(folder: Path) -> None:
    """Put the package into a folder as it is built.

    Raises:
        CannotBuild: The checkout is not around this folder, or a module needs what does not come with the package.
    """
    local = ROOT / "coremachine" / "local"
    if not (local / "host").is_dir():
        raise CannotBuild(f"expected the checkout of CoreMachine around {HERE}, found no {local / 'host'}")
    package = folder / PACKAGE
    shutil.copytree(local / "host", package / "local" / "host", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SHARED:
        target = package / "local" / f"{name}.py"
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(local / f"{name}.py", target)
    stage_project(HERE, folder, PACKAGE)
    (package / "__init__.py").write_text('"""A host for Azure Functions apps on this machine."""\n')
    rename_all(package, RENAMES)


_backend = Backend(stage)
build_wheel = _backend.build_wheel
prepare_metadata_for_build_wheel = _backend.prepare_metadata_for_build_wheel
