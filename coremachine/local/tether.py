"""`python -m coremachine.local.tether --signal INT -- command ...`: run a command that ends with its starter.

The starter keeps the write end of this process's stdin. When it closes it, or dies in any way, the command gets the
signal, so that a server which detaches from nobody is never left behind. The exit status is the command's.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading

_PATIENCE_SECONDS = 60.0
_STDIN = 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m coremachine.local.tether", description="Run a command that ends with me."
    )
    parser.add_argument("--signal", default="TERM", help="what ends the command well, without SIG (default: TERM)")
    parser.add_argument("--user", type=int, help="numeric user to run it as (root only)")
    parser.add_argument("--group", type=int, help="numeric group to run it as (root only)")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    ending = signal.Signals[f"SIG{options.signal}"]
    child = subprocess.Popen(  # noqa: S603 - the starter's own command
        options.command,
        stdin=subprocess.DEVNULL,
        user=options.user,
        group=options.group,
        extra_groups=None if options.user is None else [],
    )
    # The end comes through stdin alone, when the starter wants it. Not before the child runs: it would inherit this.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_at_eof, args=(child, ending), name="tether", daemon=True).start()
    return child.wait()


def _end_at_eof(child: subprocess.Popen[bytes], ending: signal.Signals) -> None:
    while os.read(_STDIN, 4096):
        pass
    child.send_signal(ending)
    try:
        child.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    status = main()
    sys.exit(status if status >= 0 else 128 - status)
