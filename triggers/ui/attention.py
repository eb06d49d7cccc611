"""What the navigation counts, so that trouble is seen from every page: open dead letters, and work nobody can do."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from core.models.insight import Severity
from triggers.access import visible_patterns
from triggers.apps_api import fleet_findings
from triggers.ui.ports import UiServices
from triggers.ui.recent import recent_reads

MOST = 999
# It is on every page: read more seldom than what a page is about.
_SECONDS = 5.0


@dataclass(frozen=True)
class Alert:
    """`count` is at most MOST, which then reads as that number or more."""

    count: int
    title: str


def find_alerts(request: Request) -> Mapping[str, Alert]:
    """By place of the navigation; none for a caller whose roles are for some job types alone."""
    if visible_patterns(request) is not None:
        return {}
    services: UiServices = request.app.state.get_services()
    return recent_reads(request).get("alerts", lambda: read_alerts(services), seconds=_SECONDS)


def read_alerts(services: UiServices) -> dict[str, Alert]:
    """As the database and this process know it now."""
    letters = services.dashboard.count_dead_letters(MOST)
    findings = fleet_findings(services, services.apps.read_fleet())
    warnings = [finding.message for finding in findings if finding.severity is not Severity.INFO]
    alerts = {
        "dead-letters": Alert(letters, f"{letters} not dealt with"),
        "queues": Alert(len(warnings), "; ".join(warnings)),
    }
    return {place: alert for place, alert in alerts.items() if alert.count}
