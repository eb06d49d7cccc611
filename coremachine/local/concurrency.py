"""How many messages and threads an app needs on the local host, where nobody chose a number."""

from collections.abc import Mapping
from pathlib import Path

from coremachine.local.host.local_settings import app_environment
from coremachine.local.host.settings import OVERRIDE_PREFIX, read_host_settings
from triggers.app_shape import THREADS_SETTING, read_shape, threads_needed

CALLS_SETTING = f"{OVERRIDE_PREFIX}extensions__serviceBus__maxConcurrentCalls"


def concurrency_settings(
    app_dir: Path, environment: Mapping[str, str], *, workers: int, reads_local_settings: bool = True
) -> dict[str, str]:
    """Settings of the host, without those that somebody chose.

    Each worker takes as many messages as host.json has for an instance with one: else two workers would have half of
    their slots each. And there is room for timers and requests while every message's handler works.
    """
    if reads_local_settings:
        environment = app_environment(app_dir, environment)
    calls = read_host_settings(app_dir, environment).service_bus.max_concurrent_calls
    found = {THREADS_SETTING: str(threads_needed(read_shape(environment), calls))}
    if workers > 1 and not any(name.lower() == CALLS_SETTING.lower() for name in environment):
        found[CALLS_SETTING] = str(calls * workers)
    return {name: value for name, value in found.items() if not environment.get(name)}
