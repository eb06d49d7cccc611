"""How many threads an app needs, where nobody chose a number."""

from collections.abc import Mapping
from pathlib import Path

from coremachine.local.host.local_settings import app_environment
from coremachine.local.host.settings import read_host_settings
from triggers.app_shape import THREADS_SETTING, read_shape, threads_needed


def thread_settings(app_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Room for timers and requests while every message's handler works; nothing where somebody chose a number."""
    environment = app_environment(app_dir, environment)
    if environment.get(THREADS_SETTING):
        return {}
    calls = read_host_settings(app_dir, environment).service_bus.max_concurrent_calls
    return {THREADS_SETTING: str(threads_needed(read_shape(environment), calls))}
