"""Every metric, attribute, record and section that dashboards, alert rules and the runbook name is there."""

import json
import re

import pytest
import yaml

from core.telemetry.instruments import INSTRUMENTS, Kind
from coremachine.reference.log_table import RECORDS
from tests.documents import ROOT, blocks

DEPLOY = ROOT / "deploy"
GRAFANA = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
RULES = yaml.safe_load((DEPLOY / "grafana" / "alerts.yaml").read_text())["groups"][0]["rules"]
WORKBOOK = json.loads((DEPLOY / "azure" / "workbook.json").read_text())
ALERTS = json.loads((DEPLOY / "azure" / "alerts.json").read_text())["resources"]
RESOURCE_ALERTS = (ROOT / "infra" / "alerts.bicep").read_text()
RUNBOOK = (ROOT / "docs" / "howto" / "runbook.md").read_text()
BY_NAME = {one.name: one for one in INSTRUMENTS}
# What every series of an app has.
RESOURCE_LABELS = {"service_name", "le"}


def prometheus_names(one):
    """As OTLP's metrics are named there."""
    name = one.name.replace(".", "_") + ("_seconds" if one.unit == "s" else "")
    if one.kind is Kind.HISTOGRAM:
        return {f"{name}_{part}" for part in ("bucket", "count", "sum")}
    return {f"{name}_total"} if one.kind is Kind.COUNTER else {name}


PROMETHEUS = {name: one for one in INSTRUMENTS for name in prometheus_names(one)}
EXPRESSIONS = [target["expr"] for panel in GRAFANA["panels"] for target in panel["targets"]]
EXPRESSIONS += [rule["expr"] for rule in RULES]
KQL = [item["content"]["query"] for item in WORKBOOK["items"] if item["type"] == 3]
KQL += [rule["properties"]["criteria"]["allOf"][0]["query"] for rule in ALERTS]
KQL += [block.text for block in blocks() if block.language == "kql"]


def wrong_in_expression(text):
    """Names of metrics and labels in PromQL that do not exist."""
    metrics = re.findall(r"\bcoremachine_\w+", text)
    wrong = [name for name in metrics if name not in PROMETHEUS]
    attributes = {label for name in metrics if name in PROMETHEUS for label in PROMETHEUS[name].attributes}
    labels = re.findall(r"(\w+)(?:=~|!=|=)\"", text)
    labels += [label.strip() for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(",")]
    return wrong + [label for label in labels if label not in attributes | RESOURCE_LABELS]


def wrong_in_query(text):
    """Names of metrics, attributes and records in KQL that do not exist."""
    metrics = re.findall(r'name == "([^"]+)"', text)
    wrong = [name for name in metrics if name not in BY_NAME]
    if metrics:
        known = {attribute for name in metrics if name in BY_NAME for attribute in BY_NAME[name].attributes}
        wrong += [name for name in re.findall(r"customDimensions\.(\w+)", text) if name not in known]
    events = re.findall(r'event == "([^"]+)"', text)
    events += [name for group in re.findall(r"event in \(([^)]*)\)", text) for name in re.findall(r'"([^"]+)"', group)]
    wrong += [name for name in events if name not in RECORDS]
    fields = {name for event in events if event in RECORDS for name in RECORDS[event].fields.split()}
    always = {"checkpoint", "job_id", "run", "stage", "task_id", "correlation_id", "error_type"}
    return wrong + [name for name in re.findall(r"fields\.(\w+)", text) if name not in fields | always]


def test_there_is_something_to_check():
    assert len(EXPRESSIONS) > 20
    assert len(KQL) > 20


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_metrics_of_grafana_are_there(text):
    assert wrong_in_expression(text) == []


@pytest.mark.parametrize("text", KQL)
def test_names_in_queries_are_there(text):
    assert wrong_in_query(text) == []


def test_what_is_not_there_is_found():
    assert wrong_in_expression('sum by (stage) (coremachine_jobs_ended_total{color="red"})') == ["color", "stage"]
    assert wrong_in_expression("coremachine_jobs_total") == ["coremachine_jobs_total"]
    assert wrong_in_query('customMetrics | where name == "coremachine.jobs"') == ["coremachine.jobs"]
    assert wrong_in_query('records | where event == "job_lost" | project fields.color') == ["job_lost", "color"]
    assert wrong_in_query('name == "coremachine.retries" | extend customDimensions.reason') == ["reason"]


def test_every_metric_is_on_a_dashboard():
    shown = {PROMETHEUS[name].name for text in EXPRESSIONS for name in re.findall(r"\bcoremachine_\w+", text)}
    assert set(BY_NAME) - shown == set()


def test_names_in_the_runbook_are_there():
    metrics = set(re.findall(r"`(coremachine\.[a-z.]+)`", RUNBOOK))
    assert len(metrics) > 7
    assert metrics - set(BY_NAME) == set()


def test_each_alert_has_its_section_and_each_section_its_alert():
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)}
    of_azure = {rule["name"].removeprefix("coremachine-") for rule in ALERTS}
    of_grafana = {rule["labels"]["runbook"] for rule in RULES}
    of_resources = set(re.findall(r"^    name: '([a-z-]+)'$", RESOURCE_ALERTS, re.MULTILINE))
    assert len(of_resources) == RESOURCE_ALERTS.count("metric: ")
    assert of_azure | of_grafana | of_resources == sections
    assert set(re.findall(r"see the runbook, section ([a-z-]+)\.'", RESOURCE_ALERTS)) == of_resources
    rows = dict(re.findall(r"^\| \[[^\]]+\]\(#([a-z-]+)\) \|.*\| ([GAR, ]+) \|$", RUNBOOK, re.MULTILINE))
    sources = {"G": of_grafana, "A": of_azure, "R": of_resources}
    assert rows == {one: ", ".join(letter for letter, names in sources.items() if one in names) for one in sections}
    assert all(f"section {rule['name'].removeprefix('coremachine-')}" in str(rule["properties"]) for rule in ALERTS)


def test_an_alert_of_grafana_is_readable_without_its_expression():
    """On call, one sees the summary and the severity first; `now` in the runbook is critical."""
    urgent = set(re.findall(r"^\| \[[^\]]+\]\(#([a-z-]+)\) \|[^|]*\| now \|", RUNBOOK, re.MULTILINE))
    for rule in RULES:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert (rule["labels"]["severity"] == "critical") == (rule["labels"]["runbook"] in urgent)
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used <= set(re.findall(r"by \((\w+)\)", rule["expr"])), "a label that the rule does not keep"


def test_panels_have_places_of_their_own():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in GRAFANA["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in GRAFANA["panels"]}) == len(places)
