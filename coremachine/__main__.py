"""The `coremachine` command, also as `python -m coremachine`. Where an extra is missing, it names the extra."""

import os
import sys
from collections.abc import Sequence

from core.basics.first_imports import IMPORTS
from core.basics.version import VERSION
from coremachine.extras import find_extra, missing_text

_USAGE = 2
_STDERR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    open_closed_streams()
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


def open_closed_streams() -> None:
    """Where stdin, stdout or stderr was closed, as a service may start: what is written there goes nowhere.

    Else the next file or connection would get its number, and programs that are started would write into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", _STDERR, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - its number


if __name__ == "__main__":
    sys.exit(main())
