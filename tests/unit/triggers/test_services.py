"""COREMACHINE_JOBS: where an app's jobs come from."""

import pytest

from jobs.registry import Registry
from triggers.ports import ServicesNotReady
from triggers.services import load_registry


def no_registry(queues):
    return list(queues)


def test_registry_comes_from_the_named_function():
    registry = load_registry("jobs.all_jobs:build_registry", ["tasks", "raster"])

    assert isinstance(registry, Registry)
    assert "hello_world" in registry.job_types


@pytest.mark.parametrize("name", ["no_such_module:build_registry", "jobs.all_jobs:no_such_function"])
def test_a_name_that_cannot_be_imported_is_told(name):
    """An import that failed switched a feature off in silence (lesson D39)."""
    with pytest.raises(ServicesNotReady, match=f"COREMACHINE_JOBS: .* found '{name}'"):
        load_registry(name, ["tasks"])


def test_something_else_than_a_registry_is_told():
    with pytest.raises(ServicesNotReady, match=r"return a jobs\.registry\.Registry, found list"):
        load_registry("tests.unit.triggers.test_services:no_registry", ["tasks"])
