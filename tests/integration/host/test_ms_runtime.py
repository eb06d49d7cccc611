"""The same app and the same inputs in Microsoft's own runtime and in ours: the same arguments, the same results."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import HERE, SETTINGS

ROOT = HERE.parents[2]
BINDINGS = {"SB": SETTINGS["ServiceBusConnection"], "Storage": "UseDevelopmentStorage=true", "FIRST_QUEUE": "first"}
APPS = {
    "sample": HERE / "sample_app",
    "asgi": HERE / "asgi_app",
    "bindings": HERE / "bindings_app",
    "raw": HERE / "raw_app",
    "coremachine": ROOT,
}

microsoft = pytest.mark.skipif(
    importlib.util.find_spec("azure_functions_runtime") is None,
    reason="azure-functions-runtime is not installed (it needs Python 3.13)",
)


def run_app(kind: str, app_dir: Path, log: Path) -> tuple[dict, list]:
    environment = {**os.environ, **SETTINGS, **BINDINGS, "SAMPLE_LOG": str(log), "PYTHONPATH": str(ROOT)}
    environment.pop("CONTAINER_NAME", None)  # the library would take it for a container in Azure
    command = [sys.executable, str(HERE / "invoke_app.py"), kind, str(app_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for record in records:
        record.pop("pid", None)
    return json.loads(done.stdout.splitlines()[-1]), records


@microsoft
@pytest.mark.parametrize("name", APPS)
def test_functions_get_and_return_the_same_in_microsofts_runtime(name, tmp_path):
    app_dir = APPS[name]
    if not (app_dir / "function_app.py").exists():
        pytest.skip(f"{app_dir / 'function_app.py'} does not exist yet")
    ours, our_records = run_app("portable", app_dir, tmp_path / "portable.jsonl")
    theirs, their_records = run_app("microsoft", app_dir, tmp_path / "microsoft.jsonl")
    assert ours["results"], "no function was called"
    assert ours["bindings"] == theirs["bindings"]
    assert ours["results"] == theirs["results"]
    assert ours["sent"] == theirs["sent"]
    assert sorted(our_records, key=str) == sorted(their_records, key=str)
