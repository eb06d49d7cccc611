"""All job types and handlers of this app, by hand: an import order never decides what is registered."""

from collections.abc import Iterable

from jobs import hello_world
from jobs.base import JobBase
from jobs.flood_risk_cog import handlers as flood_risk_cog
from jobs.flood_risk_cog.job import FloodRiskCOGJob
from jobs.registry import Handler, Registry

ALL_JOBS: tuple[type[JobBase], ...] = (hello_world.HelloWorldJob, FloodRiskCOGJob)
ALL_HANDLERS: tuple[Handler, ...] = (*hello_world.HANDLERS, *flood_risk_cog.HANDLERS)


def build_registry(queues: Iterable[str]) -> Registry:
    """The registry of everything above.

    Args:
        queues: The logical names of this deployment's task queues.

    Raises:
        JobDefinitionError: Everything that does not fit, at once.
    """
    return Registry(ALL_JOBS, ALL_HANDLERS, queues)
