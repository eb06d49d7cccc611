"""What is slow to import is imported when it is used: a cold start waits for none of it."""

import subprocess
import sys
from importlib import import_module

import pytest

SLOW = ["azure.servicebus", "azure.identity", "azure.core", "fastapi", "rasterio", "fsspec", "cronsim"]


@pytest.mark.parametrize("module", ["core", "core.machine", "infrastructure", "infrastructure.factory"])
def test_importing_it_imports_nothing_slow(module):
    script = f"import sys, {module}; print([name for name in {SLOW} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_a_handler_s_own_process_imports_nothing_of_the_engine():
    """A fifth of its start was for the models that the engine's ports have."""
    engine = ["core.ports", "core.machine", "core.models.schedule", "core.models.webhook"]
    script = f"import sys, core.isolation.child; print([name for name in {engine} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_a_command_imports_nothing_of_the_host_and_the_database():
    """Each of them waits for what is imported: those that start a stack import more as they do so."""
    slow = [*SLOW, "azure", "psycopg", "uvicorn", "uvloop"]
    script = f"import sys, coremachine.cli.main; print([name for name in {slow} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_a_worker_beside_the_local_broker_does_without_the_sdk():
    """Half of its start was for it. The pumps that need it import it."""
    slow = ["azure.core", "azure.servicebus", "azure.storage", "fastapi", "psycopg"]
    script = f"import sys, coremachine.local.host.worker; print([name for name in {slow} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_the_packages_alone_import_none_of_their_modules():
    script = (
        "import sys, core, infrastructure; "
        "print([name for name in sys.modules if name.startswith(('core.', 'infrastructure.', 'pydantic', 'psycopg'))])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_the_pytest_plugin_costs_other_people_s_tests_nothing():
    script = (
        "import sys, coremachine.testing.plugin; "
        "print([name for name in sys.modules if name.startswith(('core.', 'jobs', 'infrastructure', 'psycopg'))])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["core", "infrastructure"])
def test_every_public_name_is_there(package):
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
