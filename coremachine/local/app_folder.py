"""Which function app is meant: that of a folder, or the one for folders without."""

import os
from collections.abc import Mapping
from pathlib import Path

# The job types that come with CoreMachine.
BUILT_IN_APP = Path(__file__).resolve().parents[1] / "default_app"


class HalfAnApp(ValueError):
    """A folder with at most one of the two files of an app, and what to do."""


def find_app(folder: Path) -> Path | None:
    """The folder of the function app: this one, or the nearest above it; None outside of one.

    One above must be this user's: in a folder that all may write to, somebody else's code would be run.
    """
    if is_app(folder):
        return folder
    return next((place for place in folder.parents if is_app(place) and _is_own(place / "function_app.py")), None)


def expect_whole_app(folder: Path) -> None:
    """Raise HalfAnApp for a folder with one of the two files: other job types than its own would be run in silence."""
    if (folder / "function_app.py").is_file() and not is_app(folder):
        raise HalfAnApp(
            f"{folder}: expected host.json beside function_app.py, found none; `coremachine init` writes both, so does "
            "every project of Azure Functions"
        )


def expect_app(folder: Path, environment: Mapping[str, str]) -> None:
    """Find out before anything is started whether there is an app.

    Raises:
        HalfAnApp: It is not there, or not whole.
        AppLoadError: There is another kind of app.
    """
    if not (folder / "host.json").is_file():
        found = "no host.json in it" if folder.is_dir() else "no folder"
        raise HalfAnApp(
            f"expected a folder with function_app.py and host.json, found {found}: {folder}; name another with "
            "--app-dir, or make one with `coremachine init`"
        )
    if not (folder / "function_app.py").is_file():
        from coremachine.local.host.app_loading import script_of  # noqa: PLC0415 - slow, and for few

        script_of(folder, environment)


def _is_own(file: Path) -> bool:
    return file.stat().st_uid in {os.geteuid(), 0}


def is_app(folder: Path) -> bool:
    return (folder / "function_app.py").is_file() and (folder / "host.json").is_file()
