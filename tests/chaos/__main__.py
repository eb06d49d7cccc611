"""`make chaos`: jobs on a whole stack while its parts are killed, stopped and lied to.

Settings are environment variables, as make hands them on: SEED, TASKS, MINUTES. KEEP=1 leaves the stack's folder
behind.
"""

import os
import random
import sys

from tests.chaos.driver import Options, run_chaos, say
from tests.chaos.report import report_lines


def main() -> int:
    """Exit code 1 if anything is not as promised."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    minutes = float(os.environ.get("MINUTES") or 4)
    tasks = int(os.environ.get("TASKS") or 10_000)
    options = Options(
        seed=seed,
        tasks=tasks,
        seconds=minutes * 60,
        jobs=max(4, min(40, tasks // 250)),
        # The long form has PostgreSQL away for a minute.
        down_seconds=60.0 if minutes >= 4 else 10.0,
        keep=bool(os.environ.get("KEEP")),
    )
    say(f"SEED={seed} TASKS={tasks} MINUTES={minutes:g}")
    run = run_chaos(options)
    say(f"{len(run.faults)} faults, {len(run.jobs)} jobs, seed {seed}")
    if run.figures is not None:
        for line in report_lines(run.figures):
            say(line)
    for violation in run.violations:
        say(f"VIOLATION {violation}")
    say(f"{len(run.violations)} violations" + (f"; logs are in {run.folder}" if run.folder else ""))
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())
