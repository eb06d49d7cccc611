"""The command where its standard streams are closed, as a service or a cron job may start it."""

import subprocess
import sys

import pytest

LOOK = """
import os, sys
from coremachine.__main__ import open_closed_streams
open_closed_streams()
print("written"); print("as well", file=sys.stderr)
assert all(stream is not None for stream in (sys.stdin, sys.stdout, sys.stderr))
assert os.open(os.devnull, os.O_RDONLY) > 2
"""


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_what_is_written_to_a_closed_stream_goes_nowhere(closed):
    """It ended with `'NoneType' object has no attribute 'isatty'`."""
    command = f'exec "$@" {closed}'
    for arguments in (["-c", LOOK], ["-m", "coremachine", "--version"], ["-m", "coremachine", "job-types", "--help"]):
        ran = subprocess.run(
            ["bash", "-c", command, "x", sys.executable, *arguments], capture_output=True, text=True, check=False
        )
        assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stderr


def test_python_without_docstrings_is_named():
    """A database's comments are docstrings: it ended with `JobRecord: expected a docstring`."""
    program = "from infrastructure.migrations import Migrator; Migrator(None)"
    ran = subprocess.run([sys.executable, "-OO", "-c", program], capture_output=True, text=True, check=False)
    assert "found -OO or PYTHONOPTIMIZE=2: start it with -O, or without" in ran.stderr
