"""Attempts of a job that did not succeed, each once, as they come."""

from coremachine.cli.client import ApiClient, Json

# Events are committed in another order than they are numbered: so far back is looked again.
OVERLAP = 100


class FailureFeed:
    """What is new since the last look."""

    def __init__(self, client: ApiClient, job_id: str, task_id: str | None = None) -> None:
        self._client = client
        self._job_id = job_id
        self._task_id = task_id
        self._seen: set[int] = set()
        self._last = 0

    def new(self, *, run: int | None = None) -> list[Json]:
        """A page of them, of one run or of all; empty too where the server gives none now: the next look has them."""
        found = self._client.look_at_logs(
            self._job_id, task_id=self._task_id, run=run, after=max(0, self._last - OVERLAP)
        )
        return self._note(found)

    def all_new(self) -> list[Json]:
        """All of them. Raises CliError where the server gives none."""
        after = max(0, self._last - OVERLAP)
        return self._note(self._client.list_logs(self._job_id, task_id=self._task_id, after=after, limit=10_000))

    def _note(self, found: list[Json]) -> list[Json]:
        new = [item for item in found if item["event_id"] not in self._seen]
        self._seen.update(item["event_id"] for item in new)
        self._last = max([self._last, *(item["event_id"] for item in new)])
        self._seen = {event_id for event_id in self._seen if event_id > self._last - 2 * OVERLAP}
        return new
