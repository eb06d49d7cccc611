"""`python -m coremachine.local.host --app-dir . --port 7071 --workers 2`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from coremachine.local.host.errors import HostError
from coremachine.local.host.local_settings import read_local_settings
from coremachine.local.host.logs import configure_logging
from coremachine.local.host.supervisor import HostSupervisor

log = logging.getLogger("coremachine.local.host")


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    configure_logging("host", "DEBUG" if options.verbose else "INFO")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        local = read_local_settings(options.app_dir)
        supervisor = HostSupervisor(
            options.app_dir,
            host=options.host or local.address or "127.0.0.1",
            port=(local.port or 7071) if options.port is None else options.port,
            workers=options.workers,
            enable_auth=options.enable_auth,
            log_level="debug" if options.verbose else None,
            state_dir=options.state_dir,
        )
        with supervisor:
            if supervisor.keys is not None:
                sys.stderr.write(f"master key: {supervisor.keys.master}\nhost key:   {supervisor.keys.host}\n")
            stop.wait()
    except HostError as exc:
        log.error("%s", exc)  # noqa: TRY400 - the message has the advice; a traceback would hide it
        return 1
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m coremachine.local.host", description="Run an Azure Functions app locally."
    )
    parser.add_argument(
        "--app-dir", type=Path, default=Path(), help="holds function_app.py and host.json (default: here)"
    )
    parser.add_argument("--host", help="(default: LocalHttpAddress of local.settings.json, 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, help="0 takes a free one (default: LocalHttpPort of local.settings.json, 7071)"
    )
    parser.add_argument("--workers", type=int, default=int(os.environ.get("FUNCTIONS_WORKER_PROCESS_COUNT", "2")))
    parser.add_argument("--enable-auth", action="store_true", help="ask for function keys, as in Azure")
    parser.add_argument("--state-dir", type=Path, help="keeps the timers' status between runs")
    parser.add_argument("--verbose", action="store_true", help="log at debug level")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
