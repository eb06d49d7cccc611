"""Which function app is meant: that of a folder, or the one for folders without."""

from pathlib import Path

# The job types that come with CoreMachine.
BUILT_IN_APP = Path(__file__).resolve().parents[1] / "default_app"


def find_app(folder: Path) -> Path | None:
    """The folder of the function app: this one, or the nearest above it; None outside of one."""
    return next((place for place in (folder, *folder.parents) if is_app(place)), None)


def is_app(folder: Path) -> bool:
    return (folder / "function_app.py").is_file() and (folder / "host.json").is_file()
