"""The command of the host alone: `coremachine-functions`, or `python -m coremachine.local.host`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from coremachine.local.host.errors import HostError
from coremachine.local.host.foreground import StartOptions, run_in_foreground

_EXAMPLES = """for example:
  {command}
  {command} --reload --port 7072
  {command} --app-dir orders --enable-auth
"""


def main(arguments: list[str] | None = None) -> int:
    options = StartOptions(**vars(_parser().parse_args(arguments)))
    try:
        run_in_foreground(options)
    except HostError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    # As it was started: by its own command, or with -m.
    name = Path(sys.argv[0]).name
    command = f"python -m {__package__}" if name == "__main__.py" else name
    parser = argparse.ArgumentParser(
        prog=command,
        description="Run the functions of an Azure Functions app (Python, v2 model) here; Ctrl-C ends it.",
        epilog=_EXAMPLES.format(command=command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    processes = os.environ.get("FUNCTIONS_WORKER_PROCESS_COUNT", "1")
    add = parser.add_argument
    add("--app-dir", type=Path, help="holds function_app.py and host.json (default: here, or the nearest above)")
    add(
        "--port",
        "-p",
        type=_whole(0, 65535),
        help="0 = any free one (default: LocalHttpPort of local.settings.json, 7071)",
    )
    add("--address", help="(default: LocalHttpAddress of local.settings.json, 127.0.0.1: this machine alone)")
    add("--reload", action="store_true", help="load the app anew when a .py file is saved")
    add(
        "--workers",
        type=_whole(1, 64),
        default=processes,
        help="processes (or FUNCTIONS_WORKER_PROCESS_COUNT)",
    )
    add("--enable-auth", action="store_true", help="ask for function keys, as Azure does")
    add("--cors", default="", help="origins of web pages that may send requests, with commas; * = all")
    add("--state-dir", type=Path, help="keeps the times of timers between runs")
    add("--verbose", action="store_true", help="log at debug level")
    return parser


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,5}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a number of {least} to {most}, found {text[:20]!r}")
        return int(text)

    return read


if __name__ == "__main__":
    raise SystemExit(main())
