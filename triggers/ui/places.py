"""Where a finding leads: the page that shows its cause, or the dialog of the job's page that helps."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.models.control import JobAction
from core.models.insight import Finding
from triggers.ui.visitor import Visitor


@dataclass(frozen=True)
class Place:
    """A link, or with `dialog` a button that opens that dialog of the page."""

    label: str
    parts: tuple[str, ...] = ()
    query: Mapping[str, Any] = field(default_factory=dict)
    dialog: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Explained:
    """A finding with its places. `advice` is without the commands that they replace."""

    finding: Finding
    places: tuple[Place, ...]
    advice: str | None


def with_places(
    findings: Iterable[Finding], job_id: str, actions: Iterable[JobAction], visitor: Visitor
) -> list[Explained]:
    """Of a job's page, on which dialogs are for operators alone."""
    dialogs = set(actions) if visitor.may("operator") else set[JobAction]()
    explained = []
    for finding in findings:
        places = tuple(_places(finding, job_id, dialogs))
        advice = _REPLACED.sub("", finding.advice or "") if places else finding.advice
        explained.append(Explained(finding, places, advice or None))
    return explained


def without_failures(explained: Iterable[Explained]) -> list[Explained]:
    """For a page that lists the groups of failures: what these show is left out, and advice of its own stays."""
    return [each for each in explained if each.finding.code not in _LISTED_FAILURES or each.advice]


def _places(finding: Finding, job_id: str, dialogs: set[JobAction]) -> Iterator[Place]:
    found = _BUTTONS.get(finding.code)
    if found is not None and found[0] in dialogs:
        yield Place(found[1], dialog=found[2])
    if "coremachine adjust" in (finding.advice or "") and dialogs & _OF_RUNNING:
        yield Place("Adjust the job\u2026", dialog="d-adjust")
    for name, make in _ABOUT.items():
        if name in finding.about:
            yield make(finding.about[name], job_id, finding.code)
    tab = _TABS.get(finding.code)
    if tab is not None:
        yield Place(tab[0], ("jobs", job_id), tab[1])
    if finding.code in _OF_APPS:
        yield Place("Apps and their processes", ("queues",), anchor="apps")


def _of_fingerprint(fingerprint: str, job_id: str, code: str) -> Place:
    if code == "dead_lettered":
        return Place("These dead letters", ("dead-letters",), {"fingerprint": fingerprint})
    return Place("These tasks", ("jobs", job_id), {"tab": "tasks", "fingerprint": fingerprint})


# Commands at the end of an advice that show or do what a place does.
_REPLACED = re.compile(
    r"(?:; )?(?:(?:all of them|for other numbers, at once and for all jobs|for a larger share): )?"
    r"coremachine (?:explain|failures|tasks|resume|limits|adjust [0-9a-f]+ --priority)\b.*$"
)
# The dialog is there for a job that can be paused or resumed.
_OF_RUNNING = frozenset({JobAction.PAUSE, JobAction.RESUME})
_RERUN = (JobAction.RERUN, "Rerun what failed\u2026", "d-rerun-failed")
_BUTTONS = {
    "paused": (JobAction.RESUME, "Resume\u2026", "d-resume"),
    "failed": _RERUN,
    "completed_with_errors": _RERUN,
    "cancelled": _RERUN,
}
_ABOUT: Mapping[str, Callable[[str, str, str], Place]] = {
    "queue": lambda name, _job_id, _code: Place(f"Queue {name}", ("queues",), anchor=f"queue-{name}"),
    "limit": lambda name, _job_id, _code: Place(f"Limit {name}", ("limits", name)),
    "job_id": lambda other, _job_id, _code: Place(f"Job {other[:12]}", ("jobs", other)),
    "task_id": lambda task_id, job_id, _code: Place(f"Task {task_id}", ("jobs", job_id, "tasks", task_id)),
    "fingerprint": _of_fingerprint,
}
_LISTED_FAILURES = frozenset({"tasks_failed", "more_failures"})
_ALL_TASKS = ("All tasks, failed first", {"tab": "tasks"})
_TABS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "step_retry": ("Events", {"tab": "events"}),
    "more_failures": _ALL_TASKS,
    "more_interrupted": _ALL_TASKS,
    "cancelling": ("Tasks that run", {"tab": "tasks", "status": "processing"}),
    "tasks_running": ("Tasks that run", {"tab": "tasks", "status": "processing"}),
    "waiting_for_retry": ("Tasks to retry", {"tab": "tasks", "status": "pending_retry"}),
}
_OF_APPS = frozenset(
    {
        "step_announced",
        "step_lost",
        "janitor_late",
        "waits_for_release",
        "process_silent",
        "lease_expired",
        "task_type_without_app",
    }
)
