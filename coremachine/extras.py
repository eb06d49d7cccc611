"""Which extra of this package brings a module that is missing."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

# Modules whose package has another name.
_PACKAGES = {"pil": "pillow"}
_EXTRA = re.compile(r"""^([A-Za-z0-9._-]+).*;.*extra == ["']([a-z0-9-]+)["']""")
# For those who work on the project, and need no user's command.
_NOT_FOR_USERS = ("docs", "test")


def find_extra(module: str | None) -> str | None:
    """The extra whose packages have this module; None where no extra has it."""
    if module is None:
        return None
    top = module.partition(".")[0].lower()
    wanted = _normal(_PACKAGES.get(top, top))
    try:
        needed = requires("coremachine") or []
    except PackageNotFoundError:  # a folder on the path, which nobody installed
        return None
    found = (match.groups() for match in map(_EXTRA.match, needed) if match is not None)
    return next((extra for name, extra in found if _normal(name) == wanted and extra not in _NOT_FOR_USERS), None)


def how_to_install(extra: str) -> str:
    """The command that installs an extra here."""
    is_checkout = (Path(__file__).resolve().parents[1] / "Makefile").is_file()
    return f"pip install -e '.[{extra}]'" if is_checkout else f"pip install 'coremachine[{extra}]'"


def missing_text(error: ModuleNotFoundError, extra: str) -> str:
    """What to do about a module that an extra has."""
    return f"expected the module {error.name!r}, found none: install the extra `{extra}` with {how_to_install(extra)}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
