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


MISTAKES = ['traces | where mesage == "a" | take 1', "traces | summarise count()"]


def all_queries():
    (beginning,) = [text for text in KQL if text.startswith("let records") and text.count("\n") == 1]
    return [text if text.startswith("let ") else beginning + text for text in KQL if text is not beginning]


@pytest.fixture(scope="module")
def complaints():
    """Of each query, and of those with mistakes: to start the service takes most of the time."""
    asked = [*all_queries(), *MISTAKES]
    command = ["node", str(Path(__file__).with_name("check_kql.js")), str(SERVICE)]
    given = json.dumps([TABLES + query for query in asked])
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=60)
    return dict(zip(asked, json.loads(done.stdout), strict=True))


def test_every_query_is_understood(complaints):
    assert {query: complaints[query] for query in all_queries() if complaints[query]} == {}


def test_a_query_with_a_mistake_is_found(complaints):
    misspelt, unknown = (complaints[query] for query in MISTAKES)
    assert "mesage" in misspelt[0]
    assert len(unknown) >= 1
