"""Receivers of OpenTelemetry's protocol on loopback, over gRPC and over HTTP."""

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from tests.loopback import QuietHandler, http_server

_REQUESTS = {
    "traces": traces.ExportTraceServiceRequest,
    "metrics": metrics.ExportMetricsServiceRequest,
    "logs": logs.ExportLogsServiceRequest,
}
_RESPONSES = {
    "traces": traces.ExportTraceServiceResponse,
    "metrics": metrics.ExportMetricsServiceResponse,
    "logs": logs.ExportLogsServiceResponse,
}
_SERVICES = {"trace": "traces", "metrics": "metrics", "logs": "logs"}


class Received:
    """What came, as plain values."""

    def __init__(self):
        self._lock = threading.Lock()
        self.spans, self.points, self.records, self.ways = [], [], [], set()

    def take(self, signal, request, way):
        with self._lock:
            self.ways.add((signal, way))
            getattr(self, f"_take_{signal}")(request)

    def _take_traces(self, request):
        for resource in request.resource_spans:
            service = attributes_of(resource.resource)["service.name"]
            self.spans += [Span(span, service) for scope in resource.scope_spans for span in scope.spans]

    def _take_metrics(self, request):
        for resource in request.resource_metrics:
            for one in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                data = getattr(one, one.WhichOneof("data"))
                self.points += [(one.name, attributes_of(point), point) for point in data.data_points]

    def _take_logs(self, request):
        for resource in request.resource_logs:
            self.records += [record for scope in resource.scope_logs for record in scope.log_records]


class Span:
    """A span as it came."""

    def __init__(self, span, service):
        self.name, self.service = span.name, service
        self.trace_id, self.span_id, self.parent_id = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.attributes = attributes_of(span)
        self.links = {attributes_of(link).get("coremachine.link"): link.span_id.hex() for link in span.links}
        self.began = span.start_time_unix_nano
        self.seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        self.is_error = span.status.code == span.status.STATUS_CODE_ERROR
        self.status_message = span.status.message

    def __repr__(self):
        return f"{self.service}: {self.name} {self.attributes}"


def tree_of(spans):
    """A trace as people read it: a line for each span, with the app that reported it, below its parent."""
    ids = {span.span_id for span in spans}
    ordered = sorted(spans, key=lambda span: span.began)
    tops = [span for span in ordered if span.parent_id not in ids]
    lines = [line for top in tops for line in [(top.name, top.service), *_below(top, ordered, "")]]
    width = max(len(text) for text, _ in lines) + 2
    return "".join(f"{text:{width}}{service}\n" for text, service in lines)


def _below(parent, spans, indent):
    children = [span for span in spans if span.parent_id == parent.span_id]
    for span in children:
        branch, margin = ("└─ ", "   ") if span is children[-1] else ("├─ ", "│  ")
        yield f"{indent}{branch}{span.name}", span.service
        yield from _below(span, spans, indent + margin)


def attributes_of(holder):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


@contextmanager
def grpc_receiver(received: Received) -> Iterator[str]:
    """Its endpoint."""
    server = grpc.server(ThreadPoolExecutor(2))
    for service, signal in _SERVICES.items():

        def export(request, _context, signal=signal):
            received.take(signal, request, "grpc")
            return _RESPONSES[signal]()

        method = grpc.unary_unary_rpc_method_handler(
            export, _REQUESTS[signal].FromString, _RESPONSES[signal].SerializeToString
        )
        name = f"opentelemetry.proto.collector.{service}.v1.{service.title()}Service"
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"Export": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def http_receiver(received: Received) -> Iterator[str]:
    """Its endpoint."""

    class Handler(QuietHandler):
        def do_POST(self):  # noqa: N802 - what the library calls
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            signal = self.path.removeprefix("/v1/")
            received.take(signal, _REQUESTS[signal].FromString(body), "http")
            self.answer(200, "application/x-protobuf", _RESPONSES[signal]().SerializeToString())

    with http_server(Handler) as address:
        yield address
