"""Whether the jobs of an app can be loaded, tried in a process of its own: what they import stays out of the caller's.

Run as a program, it prints the reason and ends with 1 if they cannot.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from coremachine.local.own_path import path_setting

_NOT_LOADED = 3


def find_jobs_problem(app_dir: Path, work_dir: Path, settings: Mapping[str, str], limit_seconds: float) -> str | None:
    """Why an app of these settings could not load its jobs; None if it can.

    Args:
        app_dir: The folder of function_app.py, first on the app's path.
        work_dir: The current folder of the app's processes.
        limit_seconds: An import that lasts longer is a reason, too.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own module under our own interpreter
            [sys.executable, "-m", "coremachine.local.jobs_check", str(app_dir)],
            cwd=work_dir,
            env={**os.environ, **settings, **path_setting(settings)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"COREMACHINE_JOBS: expected the jobs to be loaded within {limit_seconds:g} s; their import did not end"
    if done.returncode == _NOT_LOADED:
        return done.stderr.rpartition("\0")[2].strip()
    if done.returncode:
        output = f"{done.stdout}{done.stderr}".strip()
        return f"COREMACHINE_JOBS: the process that imported the jobs ended with {done.returncode}: {output[-2000:]}"
    return None


def main() -> None:
    """Load the jobs that the settings name."""
    from infrastructure.settings import load_settings  # noqa: PLC0415 - the caller needs none of it
    from triggers.ports import ServicesNotReady  # noqa: PLC0415
    from triggers.services import load_registry  # noqa: PLC0415

    if sys.argv[1] not in sys.path:
        sys.path.insert(0, sys.argv[1])
    settings = load_settings(os.environ)
    try:
        load_registry(settings.jobs, settings.task_queues)
    except ServicesNotReady as error:
        # Apart from what the modules print.
        sys.stderr.write(f"\0{error}")
        sys.exit(_NOT_LOADED)


if __name__ == "__main__":
    main()
