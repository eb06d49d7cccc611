"""What a project declares in its pyproject.toml, below `[tool.coremachine]`: its jobs and its queues.

Read with the standard library alone, as cold start wants it. A setting of the environment wins.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.app_queues import JOBS_QUEUE, JOBS_QUEUE_SETTING, TASK_QUEUES_SETTING

JOBS_SETTING = "COREMACHINE_JOBS"
FILE_NAME = "pyproject.toml"
_TABLE = "[tool.coremachine]"
# The profiles are for the command line, which checks them.
_KEYS = ("jobs", "queues", "profiles")


class ProjectFileError(ValueError):
    """The file cannot be read, or has something else than it may have; names each problem, one per line."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.problems = [f"{path}: {problem}" for problem in problems]
        super().__init__("\n".join(self.problems))


def read_project_settings(folder: Path) -> dict[str, str]:
    """The settings that pyproject.toml in this folder has, by their names in the environment; none without a file.

    Raises:
        ProjectFileError: It cannot be used.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    import tomllib  # noqa: PLC0415 - an app without the file needs none

    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool")
    except (OSError, ValueError) as error:
        raise ProjectFileError(path, [f"expected TOML, found: {error}"]) from error
    table = tool.get("coremachine", {}) if isinstance(tool, dict) else {}
    problems = list(_problems(table))
    if problems:
        raise ProjectFileError(path, problems)
    return dict(_settings(table))


def _settings(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "jobs" in table:
        yield JOBS_SETTING, table["jobs"]
    queues = dict(table.get("queues", {}))
    if JOBS_QUEUE in queues:
        yield JOBS_QUEUE_SETTING, queues.pop(JOBS_QUEUE)
    if queues:
        yield TASK_QUEUES_SETTING, ",".join(f"{logical}={real}" for logical, real in queues.items())


def _problems(table: object) -> Iterator[str]:
    if not isinstance(table, Mapping):
        yield f"{_TABLE}: expected a table, found {table!r}"
        return
    for key in table:
        if key not in _KEYS:
            yield f"{_TABLE}: expected the keys {', '.join(_KEYS)}, found {key!r}"
    jobs, queues = table.get("jobs", "jobs"), table.get("queues", {})
    if not isinstance(jobs, str) or not jobs.strip():
        yield f'{_TABLE} jobs: expected the name of a package, such as "my_pipelines", found {jobs!r}'
    is_table = isinstance(queues, Mapping) and all(isinstance(real, str) for real in queues.values())
    if not is_table:
        expected = '{ jobs = "my-jobs", tasks = "my-tasks" }: a Service Bus queue for each logical name'
        yield f"{_TABLE} queues: expected {expected}, found {queues!r}"
