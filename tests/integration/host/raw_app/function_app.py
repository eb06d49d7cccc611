"""Each kind of parameter for each trigger: how its value arrives."""

import json
import os
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


def record(**fields) -> None:
    with Path(os.environ["SAMPLE_LOG"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(fields) + "\n")


def seen(value) -> list[str]:
    return [type(value).__name__, str(value)]


@app.route(route="text", methods=["POST"])
def http_text(req: str) -> str:
    return "never reached: a request is no text"


@app.route(route="json", methods=["POST"])
def http_json(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(req.get_json()), mimetype="application/json")


@app.route(route="plain", methods=["POST"])
def http_plain(req):
    return f"{req.method} {req.get_body()!r} {dict(req.params)} {dict(req.route_params)}"


@app.route(route="number", methods=["GET"])
def http_number(req: func.HttpRequest):
    return 7


@app.route(route="bytes", methods=["GET"])
def http_bytes(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(b"\x00\xff", mimetype="application/octet-stream", headers={"X-A": "b"}, status_code=418)


@app.service_bus_queue_trigger(arg_name="message", queue_name="q", connection="SB")
def message_text(message: str) -> None:
    record(kind="message_text", seen=seen(message))


@app.service_bus_queue_trigger(arg_name="message", queue_name="q", connection="SB")
def message_bytes(message: bytes) -> None:
    record(kind="message_bytes", seen=seen(message))


@app.service_bus_queue_trigger(arg_name="message", queue_name="q", connection="SB", data_type=func.DataType.BINARY)
def message_binary(message: bytes) -> None:
    record(kind="message_binary", seen=seen(message))


@app.service_bus_queue_trigger(arg_name="message", queue_name="q", connection="SB")
def message_metadata(message: func.ServiceBusMessage) -> None:
    metadata = {name: value for name, value in message.metadata.items() if name != "LockToken"}
    record(kind="message_metadata", metadata=json.loads(json.dumps(metadata, default=str, sort_keys=True)))


@app.service_bus_queue_trigger(arg_name="message", queue_name="q", connection="SB")
def message_returns(message: func.ServiceBusMessage):
    return "a result without a binding"


@app.service_bus_queue_trigger(arg_name="message", queue_name="q", connection="SB")
@app.service_bus_queue_output(arg_name="$return", queue_name="q", connection="SB")
def message_returns_nothing(message: func.ServiceBusMessage):
    return None


@app.service_bus_queue_trigger(arg_name="message", queue_name="q", connection="SB")
@app.service_bus_queue_output(arg_name="out", queue_name="q", connection="SB")
def message_sets_a_number(message: func.ServiceBusMessage, out) -> None:
    out.set(7)


@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *")
def timer_text(timer: str) -> None:
    record(kind="timer_text", seen=seen(timer))


@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *")
def timer_status(timer: func.TimerRequest) -> None:
    record(
        kind="timer_status", past_due=timer.past_due, schedule=str(timer.schedule), status=str(timer.schedule_status)
    )
