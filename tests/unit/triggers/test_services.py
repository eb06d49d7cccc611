"""What an app is made of: its jobs (COREMACHINE_JOBS), and whether it has what it needs."""

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from infrastructure.migrations import SchemaStatus
from infrastructure.settings import load_settings
from jobs.registry import Registry
from triggers import services as services_module
from triggers.ports import ServicesNotReady
from triggers.services import Services, load_registry


def no_registry(queues):
    return list(queues)


def test_registry_comes_from_the_named_function():
    registry = load_registry("jobs.all_jobs:build_registry", ["tasks", "raster"])

    assert isinstance(registry, Registry)
    assert "hello_world" in registry.job_types


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "no_such_module:build_registry",
            "expected a module no_such_module that can be imported, found none; correct its name",
        ),
        (
            "no_such_module.jobs",
            "expected a module no_such_module.jobs that can be imported, found none; correct its name",
        ),
        ("jobs.all_jobs:no_such_function", "expected a function no_such_function in jobs.all_jobs, found none; fix"),
    ],
)
def test_a_name_that_cannot_be_imported_is_told(name, reason):
    """An import that failed switched a feature off in silence (lesson D39)."""
    with pytest.raises(ServicesNotReady) as refused:
        load_registry(name, ["tasks"])
    assert str(refused.value).startswith(f"COREMACHINE_JOBS={name}: {reason}")


def test_something_else_than_a_registry_is_told():
    with pytest.raises(ServicesNotReady, match=r"return a jobs\.registry\.Registry, found list"):
        load_registry("tests.unit.triggers.test_services:no_registry", ["tasks"])


@dataclass
class Fakes:
    """A factory and a probe. `unseen` are queues of whose absence nobody knows before the probe looks."""

    unseen: dict[str, str]
    missing_queues: dict[str, str] = field(default_factory=dict)

    def refresh(self):
        self.missing_queues.update(self.unseen)

    def create_repositories(self):
        return self

    @property
    def service_bus(self):
        return self

    def schema_status(self):
        return SchemaStatus(1, 1, (), functions_current=True)


def services_that_lack(queues: dict[str, str]) -> Services:
    connection = "Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey=k"
    settings = load_settings({"COREMACHINE_DATABASE_URL": "postgresql://x/y", "ServiceBusConnection": connection})
    fakes: Any = Fakes(queues)
    registry = load_registry("jobs.all_jobs:build_registry", settings.task_queues)
    names = ("machine", "janitor", "queries", "dead_letters", "dead_letter_queries", "failures", "insight")
    more = ("dashboard", "schedules", "schedule_queries", "apps", "presence", "bulk", "audit", "limits")
    others: dict[str, Any] = dict.fromkeys([*names, *more, "webhooks", "webhook_queries"])
    return Services(settings=settings, registry=registry, factory=fakes, queue_probe=fakes, **others)


def test_app_whose_queues_are_there_is_ready():
    checks = services_that_lack({}).check_readiness()
    assert [(check.name, check.ok) for check in checks] == [
        ("database", True),
        ("service_bus", True),
        ("registry", True),
        ("slots", True),
    ]
    assert checks[1].detail == "queues coremachine-jobs, coremachine-tasks, coremachine-raster-tasks"


def test_each_queue_that_nobody_made_is_told_before_anything_was_sent_to_it():
    missing = {"raster": "expected a queue 'r', found none; create it", "jobs": "expected a queue 'j', found none"}
    services = services_that_lack(missing)
    (failed,) = [check for check in services.check_readiness() if not check.ok]
    assert failed.name == "service_bus"
    assert failed.detail == "expected a queue 'j', found none; expected a queue 'r', found none; create it"
    assert services.find_missing_queues() == missing


def test_jobs_that_cannot_be_loaded_can_still_be_read(monkeypatch):
    """One wrong line in a module kept its author from looking at the failures of the jobs that ran before."""
    connection = "Endpoint=sb://localhost;SharedAccessKeyName=n;SharedAccessKey=a2V5;UseDevelopmentEmulator=true"
    for name, value in {
        "COREMACHINE_DATABASE_URL": "postgresql://localhost:1/none",
        "ServiceBusConnection": connection,
        "COREMACHINE_JOBS": "no_such_package",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(services_module, "_services", None)
    services_module._make_readers.cache_clear()
    services = services_module.get_api_services()
    try:
        assert services.queries is services.factory.create_repositories().queries
        assert services_module.get_api_services() is services
        for use in (lambda: services.registry.job_types, lambda: services.machine.submit_job, services.check_readiness):
            with pytest.raises(ServicesNotReady, match="COREMACHINE_JOBS=no_such_package: expected a module"):
                use()
    finally:
        services.factory.close()
        services_module._make_readers.cache_clear()


def test_an_app_that_silenced_failures_is_told_so_on_stderr(capsys):
    services_module._tell_silence()
    assert capsys.readouterr().err == ""
    logging.disable(logging.CRITICAL)
    try:
        services_module._tell_silence()
    finally:
        logging.disable(logging.NOTSET)
    assert capsys.readouterr().err == (
        "coremachine: failures of jobs and tasks do not reach the log: logging.disable(50)\n"
    )
