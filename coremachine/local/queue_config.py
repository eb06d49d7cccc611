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
    """Write a configuration with these queues alone; None where the broker's own one has just them.

    A queue that no app of the project reads would take a message for it in silence.
    """
    document = json.loads(default_config_path().read_text(encoding="utf-8"))
    namespace = document["UserConfig"]["Namespaces"][0]
    wanted = {name.lower(): name for name in names}
    if wanted.keys() == {queue["Name"].lower() for queue in namespace["Queues"]}:
        return None
    properties = namespace["Queues"][0]["Properties"]
    namespace["Queues"] = [{"Name": name, "Properties": properties} for name in wanted.values()]
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path
