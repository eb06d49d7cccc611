"""What an app is made of: its jobs (COREMACHINE_JOBS), and whether it has what it needs."""

from dataclasses import dataclass
from typing import Any

import pytest

from infrastructure.migrations import SchemaStatus
from infrastructure.queue_probe import QueueState
from infrastructure.settings import load_settings
from jobs.registry import Registry
from triggers.ports import ServicesNotReady
from triggers.services import Services, load_registry


def no_registry(queues):
    return list(queues)


def test_registry_comes_from_the_named_function():
    registry = load_registry("jobs.all_jobs:build_registry", ["tasks", "raster"])

    assert isinstance(registry, Registry)
    assert "hello_world" in registry.job_types


@pytest.mark.parametrize("name", ["no_such_module:build_registry", "jobs.all_jobs:no_such_function"])
def test_a_name_that_cannot_be_imported_is_told(name):
    with pytest.raises(ServicesNotReady, match=f"COREMACHINE_JOBS: .* found '{name}'"):
        load_registry(name, ["tasks"])


def test_something_else_than_a_registry_is_told():
    with pytest.raises(ServicesNotReady, match=r"return a jobs\.registry\.Registry, found list"):
        load_registry("tests.unit.triggers.test_services:no_registry", ["tasks"])


@dataclass
class Fakes:
    """A factory and a probe. `state` is what the probe knows."""

    state: QueueState

    def look(self):
        return self.state

    def schema_status(self):
        return SchemaStatus(1, 1, (), functions_current=True)


def services_that_see(**state: tuple[str, ...]) -> Services:
    connection = "Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey=k"
    settings = load_settings({"COREMACHINE_DATABASE_URL": "postgresql://x/y", "ServiceBusConnection": connection})
    fakes: Any = Fakes(QueueState(**state))
    registry = load_registry("jobs.all_jobs:build_registry", settings.task_queues)
    others: dict[str, Any] = dict.fromkeys(
        ["machine", "janitor", "queries", "dead_letters", "dead_letter_queries", "failures", "insight"]
    )
    return Services(settings=settings, registry=registry, factory=fakes, queue_probe=fakes, **others)


def test_app_whose_queues_are_there_is_ready():
    checks = services_that_see().check_readiness()
    assert [(check.name, check.ok) for check in checks] == [
        ("database", True),
        ("service_bus", True),
        ("registry", True),
    ]
    assert checks[1].detail == "queues coremachine-jobs, coremachine-tasks, coremachine-raster-tasks"


def test_each_queue_that_nobody_made_is_told_with_its_setting():
    services = services_that_see(missing=("jobs", "raster"))
    failed = {check.name: check.detail for check in services.check_readiness() if not check.ok}
    assert set(failed) == {"queue_jobs", "queue_raster"}
    assert failed["queue_jobs"] == (
        "expected a queue 'coremachine-jobs' in the Service Bus namespace, found none; create it, or mend "
        "COREMACHINE_JOBS_QUEUE"
    )
    assert "'coremachine-raster-tasks'" in failed["queue_raster"]
    assert "COREMACHINE_TASK_QUEUES" in failed["queue_raster"]
    assert services.find_missing_queues() == {"jobs": failed["queue_jobs"], "raster": failed["queue_raster"]}


def test_broker_that_does_not_answer_makes_no_app_unready():
    """What is submitted meanwhile is written down, and announced when the broker is back."""
    checks = services_that_see(unknown=("jobs", "tasks")).check_readiness()
    assert all(check.ok for check in checks)
    assert checks[1].detail.endswith(
        "; no answer yet about coremachine-jobs, coremachine-tasks (the log has the reason)"
    )
