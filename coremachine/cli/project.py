"""The project that a command is run in."""

from pathlib import Path


def find_app(folder: Path) -> Path | None:
    """The folder of the function app: this one, or the nearest above it; None outside of one."""
    return next((place for place in (folder, *folder.parents) if is_app(place)), None)


def is_app(folder: Path) -> bool:
    return (folder / "function_app.py").is_file() and (folder / "host.json").is_file()
