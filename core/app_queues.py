"""The queues of an app, read from its settings with the standard library alone, as cold start wants it.

`triggers.app_shape` and `infrastructure.settings` both read them here: were one to read them otherwise, messages would
find no reader.
"""

import re
from collections.abc import Mapping, Sequence

JOBS_QUEUE_SETTING = "COREMACHINE_JOBS_QUEUE"
TASK_QUEUES_SETTING = "COREMACHINE_TASK_QUEUES"
WORKER_QUEUES_SETTING = "COREMACHINE_WORKER_QUEUES"
TASK_ROUTES_SETTING = "COREMACHINE_TASK_ROUTES"
DEFAULT_JOBS_QUEUE = "coremachine-jobs"
DEFAULT_TASK_QUEUES = "tasks=coremachine-tasks,raster=coremachine-raster-tasks"
DEFAULT_SWEEP_SCHEDULE = "*/30 * * * * *"

# The logical name of the queue that COREMACHINE_JOBS_QUEUE names.
JOBS_QUEUE = "jobs"
# A function's name is made of a logical name.
_LOGICAL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,49}")
_REAL_NAME = re.compile(r"[A-Za-z0-9]([\w\-./]{0,258}[A-Za-z0-9])?", re.ASCII)


def how_to_add_queue(logical: str) -> str:
    """Where a queue is declared. The setting wins over the file, which would then be read in vain."""
    return (
        f'add {logical} = "<its real name>" to [tool.coremachine.queues] in pyproject.toml, or '
        f"{logical}=<its real name> to {TASK_QUEUES_SETTING} where that is set"
    )


def read_names(text: str) -> tuple[str, ...]:
    """Names with commas between, each once, blanks around them dropped."""
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def read_task_queues(text: str) -> tuple[dict[str, str], list[str]]:
    """Real names by logical names, from `tasks=real-tasks,raster=real-raster`; and what is wrong with the text."""
    queues: dict[str, str] = {}
    problems: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        logical, _, real = (piece.strip() for piece in part.partition("="))
        if not part:
            continue
        if not (_LOGICAL_NAME.fullmatch(logical) and _REAL_NAME.fullmatch(real)):
            problems.append(f"expected pairs such as 'tasks=coremachine-tasks', found {part!r}")
        elif logical == JOBS_QUEUE:
            problems.append(f"expected other logical names than 'jobs', which {JOBS_QUEUE_SETTING} names; rename it")
        elif logical in queues:
            problems.append(f"expected each logical name once, found {logical!r} twice")
        else:
            queues[logical] = real
    if not queues and not problems:
        problems.append(f"expected pairs such as 'tasks=coremachine-tasks', found {text!r}")
    return queues, [f"{TASK_QUEUES_SETTING}: {problem}" for problem in problems]


def read_task_routes(text: str) -> tuple[dict[str, str], list[str]]:
    """Logical queues by task types, from `convert=raster,catalog=tasks`; and what is wrong with the text."""
    routes: dict[str, str] = {}
    problems: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        task_type, _, queue = (piece.strip() for piece in part.partition("="))
        if not (task_type and _LOGICAL_NAME.fullmatch(queue)):
            problems.append(f"expected pairs such as 'my_task_type=raster', found {part!r}")
        elif task_type in routes:
            problems.append(f"expected each task type once, found {task_type!r} twice")
        else:
            routes[task_type] = queue
    return routes, [f"{TASK_ROUTES_SETTING}: {problem}" for problem in problems]


def find_route_problems(routes: Mapping[str, str], task_queues: Mapping[str, str]) -> list[str]:
    """Task types that are sent to queues which are not there."""
    return [
        f"{TASK_ROUTES_SETTING}: task type {task_type!r}: expected one of the queues {', '.join(task_queues)}, found "
        f"{queue!r}; name another queue, or {how_to_add_queue(queue)}"
        for task_type, queue in routes.items()
        if queue not in task_queues
    ]


def find_queue_problems(jobs_queue: str, task_queues: Mapping[str, str], worker_queues: Sequence[str]) -> list[str]:
    """What does not fit together: names that are not there, and queues that are named twice."""
    problems = []
    real = [name.lower() for name in (jobs_queue, *task_queues.values())]
    doubles = sorted({name for name in real if real.count(name) > 1})
    if doubles:
        problems.append(
            f"{JOBS_QUEUE_SETTING} and {TASK_QUEUES_SETTING}: expected a queue of its own for each logical name, found "
            f"{', '.join(doubles)} more than once; give each another"
        )
    unknown = [name for name in worker_queues if name not in task_queues]
    if unknown:
        problems.append(
            f"{WORKER_QUEUES_SETTING}: expected some of {', '.join(task_queues)}, found {', '.join(unknown)}; "
            f"leave it out, or {how_to_add_queue(unknown[0])}"
        )
    return problems
