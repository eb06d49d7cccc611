"""What is exported, under which ids, and that reports never keep the engine from its work."""

import subprocess
import sys
import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.models import JobRef
from core.telemetry.instruments import INSTRUMENTS, TASKS_ENDED
from core.telemetry.reports import Observer, observe_with, observer
from coremachine.local.broker.certificates import server_context
from infrastructure.telemetry.blanked import BlankingExporter, blanked
from infrastructure.telemetry.ids import ChosenIds, attempt_span, job_span, stage_span, submission_of
from infrastructure.telemetry.observer import OpenTelemetryObserver
from infrastructure.telemetry.providers import Providers
from infrastructure.telemetry.start import start_telemetry
from infrastructure.telemetry.wanted import Exporters, TelemetryMisconfigured, has_azure_monitor, read_exporters
from tests.ingestion import ALONE, Ingested, ingestion
from tests.token_endpoint import APP_SERVICE_PATH, TENANT, TokenEndpoint, serving

REF = JobRef("ab" * 32, 1)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}
AZURE = "azure_monitor_opentelemetry_exporter"
OTLP = Exporters(*(("otlp_proto_grpc",),) * 3)
INSIGHTS = {"APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=0"}
IN_AZURE = {"WEBSITE_SITE_NAME": "the-app"}
ALL_AZURE = Exporters(*((AZURE,),) * 3)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Exporters()),
        (ENDPOINT, OTLP),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, Exporters()),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, Exporters(*(("otlp_proto_http",),) * 3)),
        (ENDPOINT | {"OTEL_LOGS_EXPORTER": "none"}, Exporters(OTLP.traces, OTLP.metrics, ())),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4317"}, Exporters(OTLP.traces)),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, Exporters(("console", "otlp_proto_grpc"))),
        ({"OTEL_TRACES_EXPORTER": "otlp,otlp_proto_grpc,otlp"}, Exporters(("otlp_proto_grpc",))),
        ({"OTEL_METRICS_EXPORTER": AZURE}, Exporters(metrics=(AZURE,))),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20key, authorization=Basic a:b=="}, OTLP),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"},
            Exporters(OTLP.traces, ("otlp_proto_http",), OTLP.logs),
        ),
    ],
)
def test_the_standard_variables_choose_the_exporters(environ, expected):
    assert read_exporters(environ) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (INSIGHTS, ALL_AZURE),
        ({"APPLICATIONINSIGHTS_CONNECTION_STRING": " "}, Exporters()),
        (INSIGHTS | {"OTEL_SDK_DISABLED": "true"}, Exporters()),
        (INSIGHTS | ENDPOINT, OTLP),
        (INSIGHTS | {"OTEL_TRACES_EXPORTER": "none"}, Exporters((), (AZURE,), (AZURE,))),
        # The host passes records on, to the same place.
        (INSIGHTS | IN_AZURE, Exporters((AZURE,), (AZURE,))),
        (ENDPOINT | IN_AZURE, Exporters(OTLP.traces, OTLP.metrics)),
        (ENDPOINT | IN_AZURE | {"OTEL_LOGS_EXPORTER": "otlp"}, OTLP),
        (INSIGHTS | IN_AZURE | {"PYTHON_ENABLE_OPENTELEMETRY": "false"}, Exporters((AZURE,), (AZURE,))),
        # It does not any more.
        (INSIGHTS | IN_AZURE | {"PYTHON_ENABLE_OPENTELEMETRY": "true"}, ALL_AZURE),
    ],
)
def test_application_insights_gets_everything_once(environ, expected):
    assert read_exporters(environ, lambda: True) == expected
    # Without the extra its connection string is the host's alone.
    assert AZURE not in {name for names in vars(read_exporters(environ, lambda: False)).values() for name in names}


def test_the_exporter_of_application_insights_is_known_without_being_imported():
    assert has_azure_monitor()


def test_a_protocol_that_is_not_known_is_named():
    with pytest.raises(TelemetryMisconfigured, match="expected grpc or http/protobuf, found 'carrier pigeon'"):
        read_exporters(ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier pigeon"})


def test_an_exporter_that_is_not_installed_is_named_and_keeps_the_app_from_nothing(caplog):
    assert start_telemetry({"OTEL_TRACES_EXPORTER": "carrier_pigeon"}) is False
    (record,) = caplog.records
    assert (record.message, record.checkpoint) == ("telemetry_not_started", "TELEMETRY")
    assert "OTEL_TRACES_EXPORTER: expected one of the installed exporters" in record.reason
    assert "found 'carrier_pigeon'" in record.reason


def test_a_connection_string_that_cannot_be_used_is_named(monkeypatch, caplog):
    environ = {"APPLICATIONINSIGHTS_CONNECTION_STRING": "nonsense", **ALONE}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert start_telemetry(environ) is False
    (record,) = [one for one in caplog.records if one.message == "telemetry_not_started"]
    assert record.reason.startswith(f"exporter {AZURE} for traces: expected APPLICATIONINSIGHTS_CONNECTION_STRING")
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)


def test_without_variables_nothing_of_opentelemetry_is_imported():
    script = (
        "import sys, triggers.traces as traces, infrastructure.factory\n"
        "with traces.in_trace_of({'traceparent': 'x'}): pass\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'grpc'))])"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_a_job_without_a_trace_has_one_of_its_own_that_every_process_finds():
    first, again = submission_of(REF, None), submission_of(REF, None)
    assert (first.trace_id, first.span_id) == (again.trace_id, again.span_id)
    assert first.is_valid
    assert submission_of(JobRef(REF.job_id, 2), None).trace_id != first.trace_id
    assert submission_of(REF, "none").trace_id == first.trace_id


def test_parts_of_a_job_have_ids_of_their_own_in_the_trace_of_its_submission():
    submission = submission_of(REF, PARENT)
    assert (f"{submission.trace_id:032x}", f"{submission.span_id:016x}") == tuple(PARENT.split("-")[1:3])
    parts = [
        job_span(submission, REF),
        job_span(submission, JobRef(REF.job_id, 2)),
        stage_span(submission, REF.at_stage(1)),
        stage_span(submission, REF.at_stage(2)),
        attempt_span(submission, REF, "s1-a", 1),
        attempt_span(submission, REF, "s1-a", 2),
        attempt_span(submission, REF, "s1-b", 1),
    ]
    assert len({part.span_id for part in parts}) == len(parts)
    assert {part.trace_id for part in parts} == {submission.trace_id}
    assert all(part.is_valid and part.trace_flags.sampled for part in parts)


def test_a_trace_that_is_not_sampled_stays_so():
    submission = submission_of(REF, PARENT[:-2] + "00")
    assert not stage_span(submission, REF.at_stage(1)).trace_flags.sampled


@pytest.fixture
def reported():
    """An observer, and what it has reported so far."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    traces = TracerProvider()
    traces.id_generator = ids = ChosenIds(traces.id_generator)
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetryObserver(Providers(traces, MeterProvider([reader]), None), ids), exporter, reader


def test_an_exception_is_reported_by_its_type_and_not_by_its_text(reported):
    """The text of an author's exception may hold anything."""
    observed, exporter, _ = reported
    with pytest.raises(ValueError, match="hunter2"), observed.submission("a"):
        raise ValueError("password hunter2")
    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "ValueError"
    assert "hunter2" not in span.to_json()
    assert span.status.status_code.name == "ERROR"


def test_a_message_carries_the_span_that_it_was_sent_in(reported):
    observed, exporter, _ = reported
    assert observed.outgoing_headers() == {}
    with observed.receiving({"Diagnostic-Id": PARENT.encode()}), observed.submission("a") as traceparent:
        assert observed.outgoing_headers() == {"traceparent": traceparent}
    (span,) = exporter.get_finished_spans()
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert observed.outgoing_headers() == {}


@pytest.mark.parametrize("headers", [{"traceparent": "nonsense"}, {"traceparent": 7}, {"traceparent": b"\xff"}, {}])
def test_a_header_that_cannot_be_read_begins_a_trace_of_its_own(reported, headers):
    observed, exporter, _ = reported
    with observed.receiving(headers), observed.submission("a"):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


def test_a_report_that_fails_is_logged_and_raises_nothing(reported, caplog):
    observed, _, _ = reported

    class Broken:
        def find_ended_run(self, ref):
            raise RuntimeError("no rows")

    observed._rows = Broken()
    observed.job_ended(REF, "completed")
    observed.measure(TASKS_ENDED, float("nan"), outcome=object())
    (record,) = [one for one in caplog.records if one.message == "telemetry_failed"]
    assert (record.operation, record.error) == ("job_ended", "no rows")


def test_measures_have_their_own_names():
    names = [one.name for one in INSTRUMENTS]
    assert len(set(names)) == len(names) > 15
    assert all(name.startswith("coremachine.") for name in names)


def test_an_observer_is_for_the_process_and_can_be_taken_away():
    mine = Observer()
    observe_with(mine)
    try:
        assert observer() is mine
    finally:
        observe_with(None)
    assert observer() is not mine
    with observer().submission("a") as traceparent, observer().receiving({}):
        assert traceparent is None


def run_script(script, folder, **environment):
    """In a process of its own: providers are set once per process."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f".:{folder}", **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    return done.stdout.splitlines()


SUBMIT = """
import sys
from core.telemetry.reports import observer
from infrastructure.telemetry.start import start_telemetry
{before}
assert start_telemetry({{"OTEL_TRACES_EXPORTER": "{exporter}"}})
with observer().submission("a") as traceparent:
    print(traceparent)
observer().flush()
"""


@pytest.mark.parametrize("headers", ["Authorization: Bearer hush123", "x-team=geo,hush123", "x-key=hush\u00e4"])
def test_headers_that_cannot_be_read_are_not_shown(headers):
    """The SDK would log them, with the key that they hold."""
    with pytest.raises(TelemetryMisconfigured, match="OTEL_EXPORTER_OTLP_HEADERS: expected name=value") as raised:
        read_exporters(ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": headers})
    assert "hush" not in str(raised.value)


def test_a_collector_that_does_not_answer_keeps_no_process_from_its_end():
    """Nor do its signals wait for each other; the SDK's limit is not kept by its processors."""
    asked, let_go = threading.Semaphore(0), threading.Event()

    class Silent:
        def force_flush(self, _milliseconds):
            asked.release()
            let_go.wait(60)

    providers = Providers(Silent(), Silent(), Silent())
    assert providers.flush(0.05) == ["traces", "metrics", "logs"]
    assert all(asked.acquire(timeout=60) for _ in range(3))
    let_go.set()


def test_spans_leave_the_process_without_credentials():
    """A function key in the address of a request (`?code=`) was in the span that FastAPI makes of it."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(BlankingExporter(kept)))
    tracer = provider.get_tracer("a")
    with tracer.start_as_current_span("GET", attributes={"url.query": "limit=1&code=hush1&a=b", "n": 5}) as span:
        span.set_attribute("url.full", "http://x/api?sig=hush2%2B")
        span.add_event("exception", {"exception.message": "password=hush3 was wrong"})
        span.set_status(trace.StatusCode.ERROR, "AccountKey=hush4hush4hush4==")
    with tracer.start_as_current_span("clean", attributes={"url.query": "limit=1"}):
        pass
    first, second = kept.get_finished_spans()
    assert "hush" not in first.to_json()
    assert dict(first.attributes) == {"url.query": "limit=1&code=***&a=b", "n": 5, "url.full": "http://x/api?sig=***"}
    assert (first.name, first.context, first.parent, len(first.events)) == ("GET", span.context, None, 1)
    assert first.start_time == span.start_time
    assert first.end_time == span.end_time
    assert blanked(second) is second


def test_an_exporter_of_any_package_is_found_by_its_name(tmp_path):
    """As that of Azure Monitor, which registers itself."""
    (tmp_path / "pigeons.py").write_text(
        "from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult\n"
        "class Pigeon(SpanExporter):\n"
        "    def export(self, spans):\n"
        "        print(*[span.name for span in spans], flush=True)\n"
        "        return SpanExportResult.SUCCESS\n"
    )
    info = tmp_path / "pigeons-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[opentelemetry_traces_exporter]\npigeon = pigeons:Pigeon\n")
    traceparent, *names = run_script(SUBMIT.format(before="", exporter="pigeon"), tmp_path)
    assert traceparent.startswith("00-")
    assert names == ["submit a"]


IN_APPLICATION_INSIGHTS = """
import logging, os
from core.telemetry.instruments import JOBS_ENDED
from core.telemetry.reports import observer
from infrastructure.telemetry.start import start_telemetry
logging.getLogger().setLevel(logging.INFO)
assert start_telemetry(os.environ)
with observer().submission("a") as traceparent:
    logging.getLogger("core.b").info("job_submitted", extra={"checkpoint": "JOB_SUBMITTED", "job_id": "abc"})
observer().measure(JOBS_ENDED, 1, status="completed")
observer().flush()
print(traceparent)
"""


def identity_variables(form, endpoint, folder):
    """As App Service sets them, or as Kubernetes does."""
    if form == "app_service":
        return {"IDENTITY_ENDPOINT": f"{endpoint}{APP_SERVICE_PATH}", "IDENTITY_HEADER": "secret"}
    (folder / "assertion").write_text("secret")
    return {
        "AZURE_AUTHORITY_HOST": endpoint,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_FEDERATED_TOKEN_FILE": str(folder / "assertion"),
    }


@pytest.mark.parametrize("form", ["app_service", "workload"])
def test_application_insights_gets_spans_measures_and_records_by_an_identity(form, tmp_path):
    """Its exporter, over TLS, with a token of the app's identity: it sends none where TLS is missing."""
    ingested, tokens = Ingested(), TokenEndpoint(lives_seconds=3600, header="secret", assertion="secret")
    tls = server_context(tmp_path)
    with ingestion(ingested, tls) as variables, serving(tokens, tls if form == "workload" else None) as address:
        variables |= {
            "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "ClientId=id-of-app;Authorization=AAD",
            "REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem"),
        }
        identity = identity_variables(form, address, tmp_path)
        (traceparent,) = run_script(IN_APPLICATION_INSIGHTS, tmp_path, **variables, **identity)
    (span,) = ingested.rows["dependencies"]
    assert (span["name"], span["operation_Id"], span["id"]) == ("submit a", *traceparent.split("-")[1:3])
    (record,) = [row for row in ingested.rows["traces"] if row["message"] == "job_submitted"]
    assert (record["operation_Id"], record["operation_ParentId"]) == (span["operation_Id"], span["id"])
    assert record["properties"]["job_id"] == "abc"
    metrics = {metric["name"]: row for row in ingested.rows["customMetrics"] for metric in row["metrics"]}
    assert metrics["coremachine.jobs.ended"]["properties"] == {"status": "completed"}
    # Nor what the exporter logs of its own requests.
    assert [row["message"] for row in ingested.rows["traces"] if "Request" in row["message"]] == []
    assert set(tokens.asked) == {(form, "https://monitor.azure.com/", "id-of-app")}
    assert ingested.signatures == {f"Bearer {token}" for token in tokens.tokens}


WORKER_S_OWN = """
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
metrics.set_meter_provider(MeterProvider())
set_logger_provider(LoggerProvider())
"""


def test_what_the_worker_reports_already_is_not_reported_again(tmp_path):
    """As with PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY, whose set-up reads the same connection string."""
    ingested = Ingested()
    with ingestion(ingested) as variables:
        run_script(WORKER_S_OWN + IN_APPLICATION_INSIGHTS, tmp_path, **variables)
    assert ingested.rows == {}


def test_providers_that_the_worker_has_made_are_used(tmp_path):
    """As with PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY: no variable of OpenTelemetry is set then."""
    before = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor\n"
        "provider = TracerProvider()\n"
        "exporter = ConsoleSpanExporter(formatter=lambda span: span.name + chr(10))\n"
        "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "trace.set_tracer_provider(provider)"
    )
    traceparent, *names = run_script(SUBMIT.format(before=before, exporter="none"), tmp_path)
    assert traceparent.startswith("00-")
    assert names == ["submit a"]
