"""Output bindings, batches, sessions, topics and a blueprint; what arrives goes to the file that SAMPLE_LOG names."""

import json
import os
import typing
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
more = func.Blueprint()


def record(**fields) -> None:
    with Path(os.environ["SAMPLE_LOG"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(fields) + "\n")


@app.route(route="send", methods=["POST"])
@app.service_bus_queue_output(arg_name="to_queue", queue_name="%FIRST_QUEUE%", connection="SB")
@app.service_bus_topic_output(arg_name="to_topic", topic_name="events", connection="SB")
def send(req: func.HttpRequest, to_queue: func.Out[str], to_topic: func.Out[bytes]) -> str:
    to_queue.set(req.get_body().decode())
    to_topic.set(req.get_body())
    return "sent"


@app.service_bus_queue_trigger(arg_name="message", queue_name="%FIRST_QUEUE%", connection="SB")
@app.service_bus_queue_output(arg_name="$return", queue_name="batches", connection="SB")
async def forward(message: func.ServiceBusMessage) -> str:
    return message.get_body().decode()


@app.service_bus_queue_trigger(
    arg_name="messages",
    queue_name="batches",
    connection="SB",
    cardinality="many",
    data_type="binary",
    max_message_batch_size=3,
)
def on_batch(messages: typing.List[func.ServiceBusMessage]) -> None:  # noqa: UP006 - the worker refuses list[...]
    record(
        kind="batch",
        bodies=[message.get_body().decode() for message in messages],
        counts=[message.delivery_count for message in messages],
        ids=len({message.message_id for message in messages}),
    )


@app.service_bus_queue_trigger(arg_name="message", queue_name="talks", connection="SB", is_sessions_enabled=True)
def on_session(message: func.ServiceBusMessage) -> None:
    record(kind="session", session=message.session_id, body=message.get_body().decode())


@more.service_bus_topic_trigger(arg_name="event", topic_name="events", subscription_name="all", connection="SB")
def on_event(event: str) -> None:
    record(kind="event", body=event)


@more.route(route="store/{name}", methods=["POST"])
@more.queue_output(arg_name="orders", queue_name="orders", connection="Storage")
@more.blob_output(arg_name="file", path="files/{name}/{kind}.txt", connection="Storage")
def store(req: func.HttpRequest, orders: func.Out[typing.List[str]], file: func.Out[bytes]) -> str:  # noqa: UP006
    orders.set(["one", "two"])
    file.set(req.get_body())
    return "stored"


@more.queue_trigger(arg_name="order", queue_name="orders", connection="Storage")
def on_order(order: func.QueueMessage) -> None:
    body = order.get_body().decode()
    record(kind="order", body=body, count=order.dequeue_count, has_id=bool(order.id), naive=str(order.insertion_time))
    if body == "two":
        raise RuntimeError("always fails")


@more.route(route="read/{name}", methods=["GET"])
@more.blob_input(arg_name="file", path="files/{name}/report.txt", connection="Storage")
async def read(req: func.HttpRequest, file: str) -> str:
    return f"read {file}"


@more.blob_trigger(arg_name="file", path="dropped/{folder}/{name}.csv", connection="Storage")
@more.blob_output(arg_name="copy", path="copies/{name}-{folder}.txt", connection="Storage")
def on_blob(file: func.InputStream, copy: func.Out[bytes]) -> None:
    content = file.read()
    record(kind="blob", name=file.name, uri=file.uri, length=file.length, tags=file.metadata, body=content.decode())
    if b"bad" in content:
        raise RuntimeError("always fails")
    copy.set(content)


@more.route(route="respond", methods=["GET"], binding_arg_name="response")
def respond(req: func.HttpRequest, response: func.Out[func.HttpResponse]) -> None:
    response.set(func.HttpResponse("set", status_code=203))


@more.route(route="nothing", methods=["GET"])
def nothing(req: func.HttpRequest):
    return None


@more.route(route="order/exact", methods=["GET"])
def b_exact(req: func.HttpRequest) -> str:
    return "exact"


@more.route(route="order/{*rest}", methods=["GET"])
def a_catch_all(req: func.HttpRequest) -> str:
    return f"rest: {req.route_params['rest']}"


@more.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=True)
@more.retry(strategy="fixed_delay", max_retry_count="2", delay_interval="00:00:00")
def tick(timer: str, context: func.Context) -> None:
    retry = context.retry_context
    record(kind="tick", is_text=isinstance(timer, str), count=retry.retry_count, limit=retry.max_retry_count)
    raise RuntimeError("never well")


app.register_functions(more)
