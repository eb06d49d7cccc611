"""The broker's configuration for an app whose queues have names of its own."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from core.app_queues import (
    DEFAULT_JOBS_QUEUE,
    DEFAULT_TASK_QUEUES,
    JOBS_QUEUE_SETTING,
    TASK_QUEUES_SETTING,
    read_task_queues,
)
from coremachine.local.broker.config import default_config_path


def queue_names(environment: Mapping[str, str]) -> list[str]:
    """The real names of the queues that an app's settings name; those that cannot be read are left to the app."""
    queues, _ = read_task_queues(environment.get(TASK_QUEUES_SETTING) or DEFAULT_TASK_QUEUES)
    return [environment.get(JOBS_QUEUE_SETTING) or DEFAULT_JOBS_QUEUE, *queues.values()]


def write_config(path: Path, names: Iterable[str]) -> Path | None:
    """Write the broker's own configuration with these queues in it, as the others; None where it has them already."""
    document = json.loads(default_config_path().read_text(encoding="utf-8"))
    queues = document["UserConfig"]["Namespaces"][0]["Queues"]
    known = {queue["Name"].lower() for queue in queues}
    new = [name for name in dict.fromkeys(names) if name.lower() not in known]
    if not new:
        return None
    queues += [{"Name": name, "Properties": queues[0]["Properties"]} for name in new]
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path
