"""The `coremachine` command, also as `python -m coremachine`. Where an extra is missing, it names the extra."""

import sys
from collections.abc import Sequence

from core.basics.first_imports import IMPORTS
from core.basics.version import VERSION
from coremachine.extras import find_extra, missing_text

_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:  # without any extra
        sys.stdout.write(f"coremachine {VERSION}\n")
        return 0
    try:
        with IMPORTS:
            from coremachine.cli.main import main as run  # noqa: PLC0415 - needs the extra `local`
        return run(given)
    except ModuleNotFoundError as error:
        extra = find_extra(error.name)
        if extra is None:
            raise
        sys.stderr.write(f"{missing_text(error, extra)}\n")
        return _USAGE


if __name__ == "__main__":
    sys.exit(main())
