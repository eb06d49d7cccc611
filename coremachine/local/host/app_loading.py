"""Imports an app and finds its one app object."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from azure.functions.decorators.function_app import FunctionRegister

from coremachine.local.host.errors import AppLoadError, error_text

SCRIPT_SETTING, USUAL_SCRIPT = "PYTHON_SCRIPT_FILE_NAME", "function_app.py"


def script_of(app_dir: Path, environment: Mapping[str, str]) -> Path:
    """The file that registers the functions.

    Raises:
        AppLoadError: it does not exist; an app of the v1 model is named as such.
    """
    path = app_dir / (environment.get(SCRIPT_SETTING) or USUAL_SCRIPT)
    if path.is_file():
        return path
    if old := v1_functions(app_dir):
        raise AppLoadError(
            f"{app_dir} has functions of the v1 programming model ({', '.join(old)} with function.json): this "
            f"host runs the v2 model alone, an app that registers its functions with decorators in {USUAL_SCRIPT}"
        )
    raise AppLoadError(f"{path} does not exist: an app directory needs this file (or another name in {SCRIPT_SETTING})")


def v1_functions(app_dir: Path) -> list[str]:
    """The folders that hold a function of the v1 model."""
    return sorted(file.parent.name for file in app_dir.glob("*/function.json"))


def load_app(app_dir: Path, environment: Mapping[str, str]) -> FunctionRegister:
    """Import the script and return its one app object.

    Raises:
        AppLoadError: the file is missing, its import fails, or it has none or several app objects at top level.
    """
    module = _import_script(app_dir, script_of(app_dir, environment))
    names = [name for name, value in vars(module).items() if isinstance(value, FunctionRegister)]
    if len(names) != 1:
        found = f"{len(names)}: {', '.join(names)}" if names else "none"
        raise AppLoadError(f"{module.__file__}: expected one name at top level with a FunctionApp, found {found}")
    app: FunctionRegister = vars(module)[names[0]]
    return app


def _import_script(app_dir: Path, path: Path) -> ModuleType:
    if str(app_dir) not in sys.path:
        sys.path.insert(0, str(app_dir))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise AppLoadError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit, KeyboardInterrupt) as exc:
        raise AppLoadError(f"importing {path} failed: {_reason(exc)}{_advice(exc)}") from exc
    return module


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error_text(error)}"


def _advice(error: BaseException) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return ""
    return (
        f"; install the app's requirements.txt into the environment of this host ({sys.prefix}), or install this host "
        "into the app's"
    )
