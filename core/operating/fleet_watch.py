"""Registers this process to the others, and warns when work waits that no live app can take."""

import threading

from core.models.app import AppProfile
from core.models.insight import Severity
from core.operating.fleet import KEPT_SECONDS, find_missing_app
from core.ports import FleetStore
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

_PRUNED_PER_SWEEP = 1000


class Presence:
    """This process's row among the apps. Any thread may call."""

    def __init__(self, store: FleetStore, profile: AppProfile) -> None:
        self._store = store
        self._profile = profile
        self._lock = threading.Lock()
        self._is_registered = self._has_ended = False

    def register(self) -> None:
        """Say that the process is here: one statement.

        Raises:
            StoreUnavailable: The database is away; the next call makes good for it.
        """
        with self._lock:
            if not self._has_ended:
                self._store.record_app_instance(self._profile)
                self._is_registered = True

    def end(self) -> None:
        """Say that the process ends, if it ever said that it is here. Raises as `register`."""
        with self._lock:
            self._has_ended = True
            if self._is_registered:
                self._store.end_app_instance(self._profile.instance)


class FleetWatch:
    """What each sweep of the janitor looks at. One warning for each problem, and one record when it is over."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._told: set[tuple[str, str]] = set()

    def look(self) -> int:
        """Warn of new problems and delete the rows of processes that are long gone: how many."""
        facts = self._store.read_fleet()
        # By what waits, not by the words, in which other things change.
        found = {(work.queue, work.task_type): find_missing_app(work, facts) for work in facts.waiting}
        missing = {key: each for key, each in found.items() if each is not None and each.severity is Severity.WARNING}
        for (queue, task_type), finding in missing.items():
            if (queue, task_type) not in self._told:
                what = {"queue": queue, "task_type": task_type, "problem": finding.code, "reason": finding.message}
                log.warning("work_without_app", extra={"checkpoint": "FLEET", **what})
        for queue, task_type in self._told.difference(missing):
            log.info("work_has_app_again", extra={"checkpoint": "FLEET", "queue": queue, "task_type": task_type})
        self._told = set(missing)
        return self._store.prune_app_instances(KEPT_SECONDS, most=_PRUNED_PER_SWEEP)
