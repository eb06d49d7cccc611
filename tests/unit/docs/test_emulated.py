"""The README's table of what is emulated, real and never run: a line per part, each with the tests that it is about."""

import re

import pytest

from tests.documents import ROOT

# What holds the middle column; without these, a line is a claim.
EVIDENCE = {
    "your jobs, core/, sql/, infrastructure/, triggers/": ["tests/acceptance/test_jobs.py"],
    "PostgreSQL": ["tests/integration/test_local_postgres.py"],
    "Service Bus SDK": ["tests/integration/broker/test_sync_sdk.py", "tests/integration/broker/test_aio_sdk.py"],
    "Service Bus": ["tests/unit/broker", "tests/integration/broker/test_durable_kill.py"],
    "Functions host": ["tests/integration/host/test_ms_runtime.py", "tests/integration/host/test_host.py"],
    "containers": ["tests/acceptance/test_serve.py", "tests/unit/test_containers.py", "tests/keda.py"],
    "Entra ID tokens": ["tests/integration/identity/test_short_tokens.py"],
    "OpenTelemetry": ["tests/integration/telemetry/test_one_trace.py", "tests/unit/test_telemetry.py"],
    "dashboard for Grafana, workbook and alert rules for Azure": [
        "tests/unit/docs/test_dashboards.py",
        "tests/unit/docs/test_kql.py",
    ],
    "Deployment (azure.yaml, infra/)": [
        "tests/unit/test_azure_files.py",
        "tests/integration/cli/test_azure_scripts.py",
    ],
    "Blob storage": ["tests/unit/raster/test_abfs.py"],
}


def rows():
    (table,) = re.findall(r"\| part \| on your machine \| in Azure \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", README)
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_line_of_the_table_has_its_tests():
    assert [part for part, *_ in rows()] == list(EVIDENCE)


@pytest.mark.parametrize("place", sorted({place for places in EVIDENCE.values() for place in places}))
def test_what_holds_a_line_is_there(place):
    assert (ROOT / place).exists()


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_what_was_never_run_in_azure_is_named_so(row):
    """All of it, as long as nothing has run there; the SDK's own line is about whose code it is."""
    _, _, in_azure = row
    assert row[0] == "Service Bus SDK" or "**never " in in_azure
