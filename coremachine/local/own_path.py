"""The module path of the processes that a local stack starts."""

import os
import site
from collections.abc import Mapping
from pathlib import Path

# The folder that holds the package `coremachine`.
_FOLDER = Path(__file__).resolve().parents[2]


def path_setting(environment: Mapping[str, str]) -> dict[str, str]:
    """PYTHONPATH for a process that runs a module of this package; nothing where the interpreter finds it by itself.

    A folder of installed packages must not come before the standard library, as everything in PYTHONPATH does.
    """
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    if any(Path(folder).resolve() == _FOLDER for folder in installed):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(_FOLDER), environment.get("PYTHONPATH")]))}
