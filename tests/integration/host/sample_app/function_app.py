"""One function of each kind; what the triggers delivered goes to the file that SAMPLE_LOG names."""

import asyncio
import json
import os
import time
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


def record(**fields) -> None:
    line = json.dumps({"pid": os.getpid(), **fields}) + "\n"
    with Path(os.environ["SAMPLE_LOG"]).open("a", encoding="utf-8") as file:
        file.write(line)


def warm_up() -> None:
    record(kind="warm")


@app.route(route="echo/{name:alpha}/{count:int=3}", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
def echo(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    answer = {
        "body": req.get_body().decode(),
        "function": context.function_name,
        "header": req.headers.get("X-Test"),
        "method": req.method,
        "params": dict(req.params),
        "route": dict(req.route_params),
        "thread_has_id": context.thread_local_storage.invocation_id == context.invocation_id,
        "trace": context.trace_context.trace_parent[:35],
        "url": req.url,
    }
    return func.HttpResponse(
        json.dumps(answer), status_code=202, mimetype="application/json", headers={"Set-Cookie": "a=1; Path=/"}
    )


@app.route(route="text", methods=["GET"])
async def text(req: func.HttpRequest) -> str:
    await asyncio.sleep(0)
    return "plain"


@app.route(route="admin-only", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
def admin_only(req: func.HttpRequest) -> str:
    return "admin"


@app.route(route="boom", methods=["GET"])
def boom(req: func.HttpRequest) -> func.HttpResponse:
    raise RuntimeError("this handler always fails")


@app.route(route="pid", methods=["GET"])
def pid(req: func.HttpRequest) -> str:
    return str(os.getpid())


@app.route(route="sleep/{seconds:double}", methods=["POST"])
def sleep(req: func.HttpRequest) -> str:
    record(kind="sleeping")
    time.sleep(float(req.route_params["seconds"]))
    return "slept"


@app.timer_trigger(arg_name="timer", schedule="%TICK_SCHEDULE%", run_on_startup=True)
def tick(timer: func.TimerRequest) -> None:
    record(kind="tick", past_due=timer.past_due)


@app.timer_trigger(arg_name="timer", schedule="%NO_SUCH_SETTING%")
def unscheduled(timer: func.TimerRequest) -> None:
    record(kind="unscheduled")


@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *")
def switched_off(timer: func.TimerRequest) -> None:
    record(kind="switched_off")


@app.service_bus_queue_trigger(arg_name="message", queue_name="%JOBS_QUEUE%", connection="ServiceBusConnection")
def on_message(message: func.ServiceBusMessage, context: func.Context) -> None:
    body = message.get_body().decode()
    record(
        kind="message",
        body=body,
        message_id=message.message_id,
        delivery_count=message.delivery_count,
        correlation_id=message.correlation_id,
        properties=message.application_properties,
        enqueued_is_naive=message.enqueued_time_utc is None or message.enqueued_time_utc.tzinfo is None,
        never_sent=[message.locked_until, message.time_to_live, message.dead_letter_reason, message.state],
    )
    if body == "fail":
        raise RuntimeError("poison")
    if body.startswith("sleep "):
        time.sleep(float(body.removeprefix("sleep ")))


@app.service_bus_queue_trigger(
    arg_name="message", queue_name="%JOBS_QUEUE%/$DeadLetterQueue", connection="ServiceBusConnection"
)
async def on_dead_letter(message: func.ServiceBusMessage) -> None:
    record(
        kind="dead_letter",
        body=message.get_body().decode(),
        message_id=message.message_id,
        properties=message.user_properties,
    )
