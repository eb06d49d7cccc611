"""What is shown while a job is watched: its bars, failures as they come, and why it waits."""

import time
from collections.abc import Callable

from rich.text import Text

from coremachine.cli.client import ApiClient, Json, is_terminal
from coremachine.cli.events import sentence_of
from coremachine.cli.failure_feed import FailureFeed
from coremachine.cli.progress import JobProgress
from coremachine.cli.render import SHORT_ID, local_time
from coremachine.cli.times import with_local_times

# Of attempts that did not succeed: a screen of them shows what is wrong.
MOST_SHOWN = 50
# Nothing ended and nothing runs for this long: people ask why.
STILL_SECONDS = 5.0
_ASK_EVERY_SECONDS = 15.0
_FEED_SECONDS = 1.0


class Watching:
    """One job, from the first look to the end.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(
        self, client: ApiClient, job_id: str, progress: JobProgress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._job_id = job_id
        self.progress = progress
        self._clock = clock
        self._feed = FailureFeed(client, job_id)
        self._feed_at = 0.0
        self._shown = 0
        self._job: Json = {}
        self._changed_at = clock()
        self._asked_at: float | None = None

    def show(self, job: Json) -> None:
        """A state that is new."""
        self._job, self._changed_at, self._asked_at = job, self._clock(), None
        self.progress.explain(None)
        self.progress.show(job)
        if self._clock() >= self._feed_at or is_terminal(job["status"]):
            self._show_failures()

    def look(self) -> None:
        """Some time has passed; nothing may be new."""
        self.progress.tick()
        if self._is_still() and (self._asked_at is None or self._clock() - self._asked_at >= _ASK_EVERY_SECONDS):
            self._asked_at = self._clock()
            self.progress.explain(self._find_reason())

    def _is_still(self) -> bool:
        runs = sum(int((stage.get("counts") or {}).get("processing", 0)) for stage in self._job.get("stages", []))
        is_over = not self._job or is_terminal(self._job["status"])
        return not is_over and not runs and self._clock() - self._changed_at >= STILL_SECONDS

    def _find_reason(self) -> tuple[str, str] | None:
        """The code and the text of the first finding."""
        answer = self._client.look_at_explanation(self._job_id)
        findings = (answer or {}).get("findings")
        if not findings:
            return None
        return str(findings[0].get("code")), with_local_times(str(findings[0].get("message")))

    def _show_failures(self) -> None:
        self._feed_at = self._clock() + _FEED_SECONDS
        while self._shown <= MOST_SHOWN and (found := self._feed.new(run=self._job.get("run"))):
            for attempt in found:
                self._shown += 1
                if self._shown > MOST_SHOWN:
                    self.progress.say(f"and more: coremachine failures {self._job_id[:SHORT_ID]}")
                    return
                self.progress.say(Text.assemble((f"{local_time(attempt['at'])}  ", "dim"), sentence_of(attempt)))
