"""Application Insights' ingestion endpoint on loopback: takes what Azure Monitor's exporter sends."""

import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.loopback import QuietHandler, http_server

KEY = "00000000-0000-0000-0000-000000000001"
# The exporter would else report about itself to Microsoft.
ALONE = {
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED": "true",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
}


class Ingested:
    """What came, by the table that shows it, and what each request was signed with."""

    def __init__(self):
        self._lock = threading.Lock()
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.signatures: set[str | None] = set()

    def take(self, items, signature):
        with self._lock:
            self.signatures.add(signature)
            for item in items:
                assert item["iKey"] == KEY
                data, tags = item["data"]["baseData"], item["tags"]
                row = data | {"operation_Id": tags.get("ai.operation.id"), "role": tags.get("ai.cloud.role")}
                row["operation_ParentId"] = tags.get("ai.operation.parentId")
                self.rows.setdefault(_TABLES[item["data"]["baseType"]], []).append(row)


_TABLES = {
    "RequestData": "requests",
    "RemoteDependencyData": "dependencies",
    "MessageData": "traces",
    "MetricData": "customMetrics",
    "ExceptionData": "exceptions",
}


@contextmanager
def ingestion(ingested: Ingested, tls: ssl.SSLContext | None = None) -> Iterator[dict[str, str]]:
    """The variables that lead the exporter there, and to nobody else."""

    class Handler(QuietHandler):
        def do_POST(self):  # noqa: N802 - what the library calls
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            items = json.loads(body)
            ingested.take(items, self.headers.get("authorization"))
            answer = {"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []}
            self.answer(200, "application/json", json.dumps(answer).encode())

    with http_server(Handler, tls) as address:
        yield {
            "APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={KEY};IngestionEndpoint={address}/",
            **ALONE,
        }
