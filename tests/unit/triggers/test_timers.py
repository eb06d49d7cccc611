"""The janitor's timer."""

import logging
from dataclasses import dataclass, field

import pytest

from triggers.timers import SweepIncomplete, sweep


@dataclass
class FakeReport:
    repairs: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    outages: int = 0
    duration_seconds: float = 0.25


class FakeJanitor:
    def __init__(self, **report) -> None:
        self.report, self.sweeps = FakeReport(**report), 0

    def sweep(self) -> FakeReport:
        self.sweeps += 1
        return self.report


def test_one_tick_is_one_sweep_and_its_report_is_logged(caplog):
    janitor = FakeJanitor(repairs=3)
    with caplog.at_level(logging.INFO):
        sweep(past_due=True, get_janitor=lambda: janitor)
    assert janitor.sweeps == 1
    (record,) = [record for record in caplog.records if record.message == "sweep_ended"]
    assert (record.repairs, record.failed_steps, record.past_due) == (3, [], True)


def test_failed_step_fails_the_invocation_after_the_report(caplog):
    """Half of the janitor never worked, and nobody was told (lesson D25)."""
    janitor = FakeJanitor(errors={"announce_tasks": "StoreUnavailable: no answer"})
    with caplog.at_level(logging.INFO), pytest.raises(SweepIncomplete, match="announce_tasks: StoreUnavailable"):
        sweep(past_due=False, get_janitor=lambda: janitor)
    assert caplog.records[0].failed_steps == ["announce_tasks"]
