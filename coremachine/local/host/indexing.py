"""The index: what an app registers, checked and with its settings resolved.

As in Azure, a function that does not fit its bindings keeps the whole app from loading, and a binding that cannot work
(a setting that is missing, a malformed route) costs one function.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from coremachine.local.host.app_loading import load_app, v1_functions
from coremachine.local.host.blob_pattern import BlobPattern
from coremachine.local.host.errors import (
    AppLoadError,
    BlobPathError,
    FunctionIndexError,
    MissingSettingError,
    RouteTemplateError,
    ScheduleError,
    error_text,
)
from coremachine.local.host.functions import (
    BLOB,
    HTTP,
    QUEUE,
    SERVICE_BUS,
    TIMER,
    AppIndex,
    BlobTrigger,
    HttpTrigger,
    IndexedFunction,
    Input,
    QueueTrigger,
    ServiceBusTrigger,
    TimerTrigger,
    Trigger,
)
from coremachine.local.host.ncrontab import parse_schedule
from coremachine.local.host.outputs import HOST_STORAGE, Output, check_service_bus, check_storage, read_target
from coremachine.local.host.retry import RetryPolicy, parse_retry_policy
from coremachine.local.host.routes import RouteTemplate
from coremachine.local.host.settings import is_disabled, resolve_references
from coremachine.local.host.signature import RETURN, Signature, read_signature

_TRIGGERS = (BLOB, HTTP, QUEUE, SERVICE_BUS, TIMER)
_BLOB = "blob"
SCAN_SOURCE = "LogsAndContainerScan"
# As Azure's host has it.
_NAME = re.compile(r"(?!host\Z)[a-z][a-z0-9_-]{0,127}", re.ASCII | re.IGNORECASE)
_BAD_NAME = (
    "expected a name of 1 to 128 letters of a to z, digits, '_' and '-' that begins with a letter and is not 'host'; "
    "give it one with @app.function_name"
)


def index_app(
    app_dir: Path,
    environment: Mapping[str, str],
    *,
    only: Collection[str] | None = None,
    retry: RetryPolicy | None = None,
) -> AppIndex:
    """Load the app and index each function.

    Args:
        app_dir: Holds function_app.py.
        environment: The app settings.
        only: The names of the functions that run, as `functions` of host.json gives them; None for all.
        retry: The policy of functions that may have one and have none of their own.

    Raises:
        AppLoadError: the app as a whole cannot be loaded.
    """
    try:
        # Not idempotent: a second call reports every name as a duplicate.
        registered = load_app(app_dir, environment).get_functions()
    except ValueError as exc:
        raise AppLoadError(f"{app_dir}: {error_text(exc)}") from exc
    reader = _Reader(app_dir, environment, retry)
    wanted = None if only is None else {name.lower() for name in only}
    for function in registered:
        reader.add(function, is_wanted=wanted is None or str(function.get_function_name()).lower() in wanted)
    reader.warn_of_others(only or ())
    return reader.to_index()


class _Reader:
    """Collects the functions of one app."""

    def __init__(self, app_dir: Path, environment: Mapping[str, str], host_retry: RetryPolicy | None) -> None:
        self._app_dir = app_dir
        self._host_retry = host_retry
        self._environment = environment
        self._functions: dict[str, IndexedFunction] = {}
        self._disabled: list[str] = []
        self._errors: list[FunctionIndexError] = []
        self._warnings: list[str] = []

    def add(self, function: Any, *, is_wanted: bool) -> None:
        name = function.get_function_name() or ""
        bindings = tuple(json.loads(text) for text in function.get_raw_bindings())
        signature = read_signature(name, function.get_user_function(), bindings)
        if not is_wanted or is_disabled(name, self._environment):
            self._disabled.append(name)
            return
        try:
            self._functions[name] = self._index(function, name, bindings, signature)
        except FunctionIndexError as exc:
            self._errors.append(exc)
        except (MissingSettingError, ScheduleError, RouteTemplateError, BlobPathError) as exc:
            self._errors.append(FunctionIndexError(name, str(exc)))
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            # A decorator takes any value, and a generic binding any field: what is no text fails where it is read.
            reason = f"a field of its bindings has a value that cannot be used: {error_text(exc)}"
            self._errors.append(FunctionIndexError(name, reason))

    def warn_of_others(self, wanted: Collection[str]) -> None:
        names = {*self._functions, *self._disabled, *(error.function_name for error in self._errors)}
        known = {name.lower() for name in names}
        self._warnings += [
            f"host.json: functions names {name!r}, which the app does not have"
            for name in wanted
            if name.lower() not in known
        ]
        if old := v1_functions(self._app_dir):
            self._warnings.append(
                f"functions of the v1 programming model are not run beside those of the v2 model: {', '.join(old)}"
            )

    def to_index(self) -> AppIndex:
        return AppIndex(self._functions, tuple(self._disabled), tuple(self._errors), tuple(self._warnings))

    def _index(
        self, function: Any, name: str, bindings: tuple[dict[str, Any], ...], signature: Signature
    ) -> IndexedFunction:
        if not _NAME.fullmatch(name):
            raise FunctionIndexError(name, _BAD_NAME)
        raw = _trigger_binding(name, bindings)
        handler = function.get_user_function()
        return IndexedFunction(
            name=name,
            handler=handler,
            is_async=inspect.iscoroutinefunction(handler),
            trigger_type=signature.inputs[raw["name"]].binding,
            trigger_parameter=raw["name"],
            trigger=self._trigger(raw, name, signature),
            context_parameter=signature.context_parameter,
            raw_bindings=bindings,
            directory=self._app_dir,
            returns=signature.returns,
            inputs=_inputs(name, bindings, raw["name"], signature, self._environment),
            outputs=_outputs(name, bindings, signature, self._environment),
            retry=self._retry(function, name, raw["type"]),
        )

    def _trigger(self, raw: dict[str, Any], name: str, signature: Signature) -> Trigger:
        if raw["type"] == HTTP:
            return _http_trigger(raw, name, self._environment)
        if raw["type"] == TIMER:
            return _timer_trigger(raw, self._environment)
        if raw["type"] == QUEUE:
            connection = raw.get("connection") or HOST_STORAGE
            check_storage(name, "queue", connection, self._environment)
            return QueueTrigger(connection, resolve_references(raw["queueName"], self._environment, "its queueTrigger"))
        if raw["type"] == BLOB:
            return _blob_trigger(raw, self._environment, name, signature)
        trigger = _service_bus_trigger(raw, self._environment, name)
        if trigger.is_batch and trigger.data_type == "UNDEFINED":
            self._warnings.append(
                f"function {name!r} has cardinality 'many' and no data_type: the bodies arrive as text here; set "
                "data_type, since Azure may send them as JSON"
            )
        return trigger

    def _retry(self, function: Any, name: str, trigger_type: str) -> RetryPolicy | None:
        fields = function.get_settings_dict("retry_policy")
        if not fields:
            return self._host_retry if trigger_type == TIMER else None
        try:
            policy = parse_retry_policy(fields)
        except ValueError as exc:
            raise FunctionIndexError(name, str(exc)) from exc
        if trigger_type == TIMER:
            return policy
        self._warnings.append(
            f"function {name!r}: its retry policy is ignored, as in Azure: a {trigger_type} has none; a Service Bus "
            "message is delivered again up to the maxDeliveryCount of its queue, one of a storage queue up to "
            "maxDequeueCount, and a blob is retried up to poisonBlobThreshold of host.json"
        )
        return None


def _trigger_binding(name: str, bindings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    triggers = [binding for binding in bindings if binding["type"].lower().endswith("trigger")]
    if len(triggers) != 1 or triggers[0]["type"] not in _TRIGGERS:
        found = ", ".join(binding["type"] for binding in triggers) or "none"
        raise FunctionIndexError(name, f"expected one trigger out of {', '.join(_TRIGGERS)}, found {found}")
    return triggers[0]


def _inputs(
    name: str,
    bindings: Sequence[dict[str, Any]],
    trigger: str,
    signature: Signature,
    environment: Mapping[str, str],
) -> dict[str, Input]:
    """The input bindings: what is neither the trigger nor an output."""
    inputs = {}
    for binding in bindings:
        parameter = binding["name"]
        if parameter == trigger or parameter not in signature.inputs:
            continue
        if binding["type"] != _BLOB:
            raise FunctionIndexError(name, f"the input binding {binding['type']!r} is not supported by the local host")
        connection = binding.get("connection") or HOST_STORAGE
        check_storage(name, _BLOB, connection, environment)
        bound = signature.inputs[parameter]
        path = resolve_references(binding.get("path") or "", environment, f"its input binding {parameter!r}")
        inputs[parameter] = Input(bound, connection, path, is_text=bound.python_type is str)
    return inputs


def _outputs(
    name: str, bindings: Sequence[dict[str, Any]], signature: Signature, environment: Mapping[str, str]
) -> dict[str, Output]:
    types = dict(signature.outputs)
    if signature.returns is not None:
        types[RETURN] = signature.returns
    return {
        binding["name"]: Output(types[binding["name"]], read_target(name, binding, environment))
        for binding in bindings
        if binding["name"] in types
    }


def _http_trigger(raw: dict[str, Any], name: str, environment: Mapping[str, str]) -> HttpTrigger:
    route = raw.get("route")
    text = name if route is None else resolve_references(route, environment, "its httpTrigger")
    return HttpTrigger(
        route=RouteTemplate.parse(text),
        methods=frozenset(method.upper() for method in raw.get("methods") or ()),
        auth_level=(raw.get("authLevel") or "FUNCTION").lower(),
    )


def _timer_trigger(raw: dict[str, Any], environment: Mapping[str, str]) -> TimerTrigger:
    text = resolve_references(raw["schedule"], environment, "its timerTrigger")
    monitor = raw.get("useMonitor")
    return TimerTrigger(
        schedule_text=text,
        schedule=parse_schedule(text),
        run_on_startup=bool(raw.get("runOnStartup")),
        use_monitor=True if monitor is None else bool(monitor),
    )


def _blob_trigger(raw: dict[str, Any], environment: Mapping[str, str], name: str, signature: Signature) -> BlobTrigger:
    source = raw.get("source") or SCAN_SOURCE
    if str(source).lower() != SCAN_SOURCE.lower():
        raise FunctionIndexError(
            name, f"expected {SCAN_SOURCE} as the source of its blobTrigger, found {source}: not supported locally"
        )
    connection = raw.get("connection") or HOST_STORAGE
    # Receipts are in the host's own account, and a blob that is given up is named in a queue beside the blobs.
    check_storage(name, _BLOB, HOST_STORAGE, environment)
    check_storage(name, _BLOB, connection, environment)
    check_storage(name, "queue", connection, environment)
    is_text = signature.inputs[raw["name"]].python_type is str or str(raw.get("dataType")).upper() == "STRING"
    pattern = BlobPattern.parse(resolve_references(raw["path"], environment, "its blobTrigger"))
    return BlobTrigger(connection, pattern, is_text)


def _service_bus_trigger(raw: dict[str, Any], environment: Mapping[str, str], name: str) -> ServiceBusTrigger:
    connection = raw["connection"]
    check_service_bus(name, connection, environment)
    names = {
        key: resolve_references(raw.get(key) or "", environment, "its serviceBusTrigger")
        for key in ("queueName", "topicName", "subscriptionName")
    }
    last = "queueName" if names["queueName"] else "subscriptionName"
    path, slash, sub_queue = names[last].partition("/$")
    if slash and sub_queue.lower() != "deadletterqueue":
        raise FunctionIndexError(name, f"unknown sub-queue '${sub_queue}': only '$DeadLetterQueue' exists")
    names[last] = path
    return ServiceBusTrigger(
        connection=connection,
        queue_name=names["queueName"],
        topic_name=names["topicName"],
        subscription_name=names["subscriptionName"],
        is_dead_letter=bool(slash),
        data_type=(raw.get("dataType") or "UNDEFINED").upper(),
        auto_complete=raw.get("autoCompleteMessages"),
        is_batch=(raw.get("cardinality") or "ONE").upper() == "MANY",
        has_sessions=bool(raw.get("isSessionsEnabled")),
        max_batch_size=_batch_size(raw, name),
    )


def _batch_size(raw: dict[str, Any], name: str) -> int | None:
    size = raw.get("maxMessageBatchSize")
    if size is None:
        return None
    if not isinstance(size, int) or size < 1:
        raise FunctionIndexError(name, f"maxMessageBatchSize: expected a number of at least 1, found {size!r}")
    return size
