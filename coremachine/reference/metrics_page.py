"""The page of the engine's measures."""

from core.telemetry.instruments import INSTRUMENTS
from coremachine.reference.markdown import code, page, table

_INTRODUCTION = """
An app reports these where an exporter of OpenTelemetry is configured: [Traces and metrics](../howto/trace.md). Counters
are sums since the process began; gauges are the latest value. Sweeps of the janitor find `coremachine.queue.tasks`,
`coremachine.queue.age` and `coremachine.unannounced`, so worker apps do not report them.
"""


def render() -> str:
    head = ["metric", "kind", "unit", "attributes", "meaning"]
    rows = (
        [code(one.name), one.kind.value, code(one.unit), ", ".join(map(code, one.attributes)), one.meaning]
        for one in INSTRUMENTS
    )
    return page("Metrics", "`core/telemetry/instruments.py`", _INTRODUCTION, table(head, rows))
