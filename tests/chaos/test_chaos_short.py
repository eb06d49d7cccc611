"""The chaos run in its short form: a worker killed, the broker and its messages lost, PostgreSQL ended at once."""

import pytest

from tests.chaos.driver import Options, run_chaos

pytestmark = pytest.mark.acceptance

SCRIPT = [(0.5, "kill_busy_worker"), (4.0, "postgres_immediate"), (7.0, "kill_broker")]


def test_all_jobs_end_right_after_a_worker_the_broker_and_postgres_were_lost() -> None:
    """Nothing is lost, nothing is accepted twice, whatever dies (lessons D6, D7, D8, D9, D12, D14, D16, D21)."""
    run = run_chaos(Options(seed=7, tasks=600, seconds=8, jobs=4, script=SCRIPT, end_seconds=120))
    assert run.violations == [], f"the stack's logs are in {run.folder}"
    assert [fault.name for fault in run.faults] == [name for _, name in SCRIPT]
    assert not any(fault.detail.startswith("without effect") for fault in run.faults)
    assert run.figures is not None
    assert run.figures.counts["tasks"] == 600
    assert run.figures.counts["interruptions"] > 0
