"""A job over three apps, in the Functions host, reports one trace, measures and records over real OTLP."""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

from coremachine.local.host.supervisor import HostSupervisor
from tests.databases import clone_template
from tests.documents import blocks
from tests.ingestion import Ingested, ingestion
from tests.otlp import Received, attributes_of, grpc_receiver, http_receiver, tree_of

ROOT = Path(__file__).parents[3]
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRODUCER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID, CALLER_SPAN = CALLER.split("-")[1:3]
QUIET = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_BLRP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "500"}


@pytest.fixture(scope="module")
def database(template_url):
    with clone_template(template_url) as url:
        yield url


# Greetings go to one worker, replies to the other. All apps have to know.
ROUTES = {"COREMACHINE_TASK_ROUTES": "hello_world_greeting=raster"}


def environments(grpc, http, insights):
    """Of a platform app, which reports over gRPC, and of two workers, which do over HTTP; one to Azure Monitor, too."""
    over_http = {"OTEL_EXPORTER_OTLP_ENDPOINT": http, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    both = {"OTEL_TRACES_EXPORTER": "otlp,azure_monitor_opentelemetry_exporter"}
    return {
        "platform": {"OTEL_EXPORTER_OTLP_ENDPOINT": grpc, "COREMACHINE_SWEEP_SCHEDULE": "* * * * * *"},
        "worker-raster": {**over_http, "COREMACHINE_WORKER_QUEUES": "raster"},
        "worker-tasks": {**over_http, **insights, **both, "COREMACHINE_WORKER_QUEUES": "tasks"},
    }


@pytest.fixture(scope="module")
def job(database, project_broker, tmp_path_factory):
    """A job that has run over three apps, and what they reported."""
    received, ingested = Received(), Ingested()
    for queue in ("coremachine-jobs", "coremachine-tasks", "coremachine-raster-tasks"):
        project_broker.purge(queue)
    with ExitStack() as stack:
        grpc, http = (stack.enter_context(receiver(received)) for receiver in (grpc_receiver, http_receiver))
        apps = environments(grpc, http, stack.enter_context(ingestion(ingested)))
        hosts = {}

        def start(*names):
            for name in names:
                environment = {
                    "COREMACHINE_DATABASE_URL": database,
                    "COREMACHINE_APP_MODE": name.partition("-")[0],
                    "COREMACHINE_APP_NAME": name,
                    "ServiceBusConnection": project_broker.connection_string,
                    **apps[name],
                    **ROUTES,
                    **QUIET,
                }
                log_file = tmp_path_factory.mktemp("host") / f"{name}.log"
                hosts[name] = HostSupervisor(ROOT, port=0, workers=1, environment=environment, log_file=log_file)
                hosts[name].start()
                stack.callback(hosts[name].stop)
            for name in names:
                hosts[name].wait_ready(120)

        start("platform")
        with httpx.Client(base_url=hosts["platform"].url, timeout=60) as client:
            parameters = {"n": 3, "failure_rate": 0.0}
            answer = client.post("/api/jobs/submit/hello_world", json=parameters, headers={"traceparent": CALLER})
            assert answer.status_code == 202, answer.text
            # Its tasks wait until there is an app that runs them, so that a sweep sees them.
            wait_for(lambda: any(name == "coremachine.queue.tasks" for name, *_ in received.points))
            start("worker-raster", "worker-tasks")
            job = client.get(answer.json()["links"]["self"], params={"wait": 30}).json()
            assert job["status"] == "completed", job
            wait_for(lambda: any(name == "coremachine.attempt.duration" for name, *_ in received.points))
            submit_over_queue(project_broker)
            wait_for(lambda: sum(span.name == "job hello_world" for span in received.spans) == 2)
        for host in hosts.values():
            host.stop()
    return job, received, ingested


def submit_over_queue(broker):
    """As another program does, in a trace of its own."""
    body = json.dumps({"job_type": "hello_world", "parameters": {"n": 2, "failure_rate": 0.0}})
    message = ServiceBusMessage(body, application_properties={"traceparent": PRODUCER})
    with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_queue_sender("coremachine-jobs") as sender,
    ):
        sender.send_messages(message)


def wait_for(is_so):
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def spans_of(job):
    return [span for span in job[1].spans if span.trace_id == TRACE_ID]


def test_one_trace_spans_the_whole_job(job):
    spans = spans_of(job)
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    (submit,) = [span for span in spans if span.name == "submit hello_world"]
    assert submit.service == "platform"
    (top,) = [span for span in spans if span.name == "job hello_world"]
    assert top.parent_id == submit.span_id
    stages = [span for span in spans if span.name.startswith("stage ")]
    assert {span.name: by_id[span.parent_id].name for span in stages} == {
        "stage 1 greet": "job hello_world",
        "stage 2 reply": "job hello_world",
    }
    attempts = [span for span in spans if span.name.startswith("task ")]
    parents = sorted((by_id[span.parent_id].name, span.service) for span in attempts)
    assert parents == [("stage 1 greet", "worker-raster")] * 3 + [("stage 2 reply", "worker-tasks")] * 3
    steps = {(span.name, by_id[span.parent_id].name) for span in spans if span.name in {"plan_stage", "finalize_job"}}
    assert steps == {
        ("plan_stage", "stage 1 greet"),
        ("plan_stage", "stage 2 reply"),
        ("finalize_job", "job hello_world"),
    }
    # All of it hangs together: nothing but the caller is outside.
    assert {span.parent_id for span in spans} - set(by_id) == {CALLER_SPAN}


def test_the_page_shows_the_trace_as_it_is(job):
    (shown,) = [block.text for block in blocks() if block.path.name == "trace.md" and "└─" in block.text]
    assert tree_of(spans_of(job)) == shown


def test_application_insights_shows_attempts_as_requests_of_the_same_trace(job):
    """Where the page's query looks for them: a span that begins with a message is one."""
    _, received, ingested = job
    attempts = {span.span_id: span for span in received.spans if span.service == "worker-tasks"}
    rows = {row["id"]: row for row in ingested.rows["requests"]}
    assert {row["name"] for row in rows.values()} == {"task hello_world_reply"}
    assert rows.keys() == attempts.keys()
    for span_id, row in rows.items():
        span = attempts[span_id]
        assert (row["operation_Id"], row["operation_ParentId"]) == (span.trace_id, span.parent_id)
        assert (row["role"], row["properties"]["coremachine.task_id"]) == (
            "worker-tasks",
            span.attributes["coremachine.task_id"],
        )
    assert len([row for row in rows.values() if row["operation_Id"] == TRACE_ID]) == 3


def test_spans_name_the_message_that_led_to_them_and_the_stage_whose_results_they_read(job):
    spans = spans_of(job)
    by_id = {span.span_id: span for span in spans}
    for attempt in (span for span in spans if span.name.startswith("task ")):
        sender = by_id[attempt.links["message"]]
        assert (sender.name, sender.parent_id) == ("plan_stage", attempt.parent_id)
    (second,) = [s for s in spans if s.name == "plan_stage" and by_id[s.parent_id].name == "stage 2 reply"]
    assert by_id[second.links["previous_stage"]].name == "stage 1 greet"


def test_a_queue_producer_s_trace_goes_on(job):
    spans = [span for span in job[1].spans if span.trace_id == PRODUCER.split("-")[1]]
    (submit,) = [span for span in spans if span.name == "submit hello_world"]
    assert submit.parent_id == PRODUCER.split("-")[2]
    assert len([span for span in spans if span.name.startswith("task ")]) == 4


def test_measures_come_over_both_ways(job):
    _, received, _ = job
    names = {name for name, *_ in received.points}
    assert names >= {
        "coremachine.submissions",
        "coremachine.jobs.ended",
        "coremachine.job.duration",
        "coremachine.stage.duration",
        "coremachine.tasks.ended",
        "coremachine.attempt.duration",
        "coremachine.janitor.sweep.duration",
        "coremachine.queue.tasks",
        "coremachine.unannounced",
        "coremachine.pool.connections",
        "coremachine.pool.waiting",
    }
    counts = [point.count for name, attributes, point in received.points if name == "coremachine.attempt.duration"]
    assert max(counts) == 3 + 2  # the tasks of one stage of both jobs
    assert received.ways == {(signal, way) for signal in ("traces", "metrics", "logs") for way in ("grpc", "http")}


def test_records_have_their_fields_and_the_trace(job):
    found, received, _ = job
    records = [record for record in received.records if record.body.string_value == "job_finalized"]
    (record,) = [one for one in records if one.trace_id.hex() == TRACE_ID]
    assert attributes_of(record)["job_id"] == found["job_id"]
    assert attributes_of(record)["checkpoint"] == "JOB_COMPLETE"
