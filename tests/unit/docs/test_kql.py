"""Queries for Application Insights are ones that its own language service understands."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.unit.docs.test_dashboards import KQL

SERVICE = ROOT / ".node" / "node_modules" / "@kusto" / "language-service-next"
# The columns of Application Insights that the queries use.
_COMMON = "timestamp: datetime, operation_Id: string, customDimensions: dynamic"
TABLES = (
    f"let traces = datatable({_COMMON}, message: string, severityLevel: int)[];\n"
    f"let requests = datatable({_COMMON}, name: string, duration: real)[];\n"
    f"let customMetrics = datatable({_COMMON}, name: string, value: real, valueSum: real, valueMax: real, "
    "valueCount: int)[];\n"
)

pytestmark = pytest.mark.skipif(
    not SERVICE.is_dir() or shutil.which("node") is None,
    reason="node or @kusto/language-service-next is not installed: make test-programs",
)


def complaints(queries):
    command = ["node", str(Path(__file__).with_name("check_kql.js")), str(SERVICE)]
    done = subprocess.run(command, input=json.dumps(queries), capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_every_query_is_understood():
    (beginning,) = [text for text in KQL if text.startswith("let records") and text.count("\n") == 1]
    queries = [text if text.startswith("let ") else beginning + text for text in KQL if text is not beginning]
    found = complaints([TABLES + query for query in queries])
    assert {query: problems for query, problems in zip(queries, found, strict=True) if problems} == {}


def test_a_query_with_a_mistake_is_found():
    found = complaints([TABLES + 'traces | where mesage == "a" | take 1', TABLES + "traces | summarise count()"])
    assert "mesage" in found[0][0]
    assert len(found[1]) >= 1
