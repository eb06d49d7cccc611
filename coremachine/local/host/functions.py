"""The index: what function_app.py registers, checked and with its settings resolved."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func
from azure.functions.decorators.function_app import FunctionRegister

from coremachine.local.host.errors import AppLoadError, FunctionIndexError, MissingSettingError, ScheduleError
from coremachine.local.host.ncrontab import Schedule, parse_schedule
from coremachine.local.host.routes import RouteTemplate
from coremachine.local.host.settings import is_disabled, resolve_references

HTTP, SERVICE_BUS, TIMER = "httpTrigger", "serviceBusTrigger", "timerTrigger"
_TRIGGERS = (HTTP, SERVICE_BUS, TIMER)


@dataclass(frozen=True)
class HttpTrigger:
    """A route below the prefix; without methods it answers all of them."""

    route: RouteTemplate
    methods: frozenset[str]
    auth_level: str


@dataclass(frozen=True)
class ServiceBusTrigger:
    """A queue, or a topic's subscription, and the name of the setting with its address."""

    connection: str
    queue_name: str
    topic_name: str
    subscription_name: str
    is_dead_letter: bool
    data_type: str
    auto_complete: bool | None

    @property
    def entity(self) -> str:
        path = self.queue_name or f"{self.topic_name}/Subscriptions/{self.subscription_name}"
        return path + ("/$DeadLetterQueue" if self.is_dead_letter else "")


@dataclass(frozen=True)
class TimerTrigger:
    """A schedule; use_monitor keeps its last and next time across restarts."""

    schedule_text: str
    schedule: Schedule
    run_on_startup: bool
    use_monitor: bool


Trigger = HttpTrigger | ServiceBusTrigger | TimerTrigger


@dataclass(frozen=True)
class IndexedFunction:
    """One function that can be invoked."""

    name: str
    handler: Callable[..., Any]
    is_async: bool
    trigger_type: str
    trigger_parameter: str
    trigger: Trigger
    context_parameter: str | None
    has_return: bool
    wants_raw: bool
    raw_bindings: tuple[dict[str, Any], ...]
    directory: Path


@dataclass(frozen=True)
class AppIndex:
    """All functions that run, by name in order of registration; and those that do not, with the reason."""

    functions: dict[str, IndexedFunction]
    disabled: tuple[str, ...]
    errors: tuple[FunctionIndexError, ...]


def load_app(app_dir: Path, environment: Mapping[str, str]) -> FunctionRegister:
    """Import function_app.py (or PYTHON_SCRIPT_FILE_NAME) and return its one app object.

    Raises:
        AppLoadError: the file is missing, its import fails, or it has none or several app objects at top level.
    """
    module = _import_script(app_dir, environment.get("PYTHON_SCRIPT_FILE_NAME", "function_app.py"))
    apps = {id(value): value for value in vars(module).values() if isinstance(value, FunctionRegister)}
    if len(apps) != 1:
        raise AppLoadError(f"{module.__file__}: expected exactly one FunctionApp at top level, found {len(apps)}")
    return next(iter(apps.values()))


def _import_script(app_dir: Path, script: str) -> ModuleType:
    path = app_dir / script
    if not path.is_file():
        raise AppLoadError(f"{path} does not exist: an app directory needs this file")
    if str(app_dir) not in sys.path:
        sys.path.insert(0, str(app_dir))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise AppLoadError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as exc:
        raise AppLoadError(f"importing {path} failed: {type(exc).__name__}: {exc}") from exc
    return module


def index_app(app_dir: Path, environment: Mapping[str, str]) -> AppIndex:
    """Load the app and index each function; one that cannot be indexed does not keep the others from running.

    Raises:
        AppLoadError: the app as a whole cannot be loaded.
    """
    app = load_app(app_dir, environment)
    try:
        registered = app.get_functions()  # not idempotent: a second call reports every name as a duplicate
    except ValueError as exc:
        raise AppLoadError(f"{app_dir}: {exc}") from exc
    functions: dict[str, IndexedFunction] = {}
    disabled: list[str] = []
    errors: list[FunctionIndexError] = []
    for function in registered:
        name = function.get_function_name() or ""
        if is_disabled(name, environment):
            disabled.append(name)
            continue
        try:
            functions[name] = _index_function(function, name, app_dir, environment)
        except FunctionIndexError as exc:
            errors.append(exc)
    return AppIndex(functions=functions, disabled=tuple(disabled), errors=tuple(errors))


def _index_function(function: Any, name: str, app_dir: Path, environment: Mapping[str, str]) -> IndexedFunction:
    bindings = tuple(json.loads(text) for text in function.get_raw_bindings())
    triggers = [binding for binding in bindings if binding["type"].lower().endswith("trigger")]
    if len(triggers) != 1 or triggers[0]["type"] not in _TRIGGERS:
        found = ", ".join(binding["type"] for binding in triggers) or "none"
        raise FunctionIndexError(name, f"expected one trigger out of {', '.join(_TRIGGERS)}, found {found}")
    raw = triggers[0]
    for binding in bindings:
        if binding is not raw and binding["type"] != "http":
            raise FunctionIndexError(name, f"the binding {binding['type']!r} is not supported by the local host")
    handler = function.get_user_function()
    context_parameter, annotation = _check_parameters(handler, name, raw["name"])
    return IndexedFunction(
        name=name,
        handler=handler,
        is_async=inspect.iscoroutinefunction(handler),
        trigger_type=raw["type"],
        trigger_parameter=raw["name"],
        trigger=_trigger(raw, name, environment),
        context_parameter=context_parameter,
        has_return=any(binding["name"] == "$return" for binding in bindings),
        # A plain str or bytes parameter selects the worker's raw binding: the body, and no metadata.
        wants_raw=raw["type"] != HTTP and annotation in (str, bytes),
        raw_bindings=bindings,
        directory=app_dir,
    )


def _check_parameters(handler: Callable[..., Any], name: str, trigger_parameter: str) -> tuple[str | None, Any]:
    """The name of the context parameter, if there is one, and the trigger parameter's type."""
    parameters = inspect.signature(handler).parameters
    try:
        hints = typing.get_type_hints(handler)
    except Exception as exc:
        raise FunctionIndexError(name, f"its annotations cannot be resolved: {exc}") from exc
    # By name, as in the real worker: a parameter of this type under another name is one without a binding.
    context = "context" if "context" in parameters and trigger_parameter != "context" else None
    if context and hints.get(context, func.Context) is not func.Context:
        raise FunctionIndexError(name, f"its parameter 'context' must be a func.Context, found {hints[context]!r}")
    unbound = [p for p in parameters if p not in {context, trigger_parameter}]
    if unbound:
        raise FunctionIndexError(name, f"parameters without a binding: {', '.join(unbound)}")
    if trigger_parameter not in parameters:
        raise FunctionIndexError(name, f"its trigger needs a parameter named {trigger_parameter!r}")
    return context, hints.get(trigger_parameter)


def _trigger(raw: dict[str, Any], name: str, environment: Mapping[str, str]) -> Trigger:
    used_by = f"its {raw['type']}"
    try:
        if raw["type"] == HTTP:
            return HttpTrigger(
                route=RouteTemplate.parse(resolve_references(raw["route"], environment, used_by)),
                methods=frozenset(method.upper() for method in raw.get("methods") or ()),
                auth_level=(raw.get("authLevel") or "FUNCTION").lower(),
            )
        if raw["type"] == TIMER:
            return _timer_trigger(raw, environment, used_by)
        return _service_bus_trigger(raw, environment, used_by, name)
    except (MissingSettingError, ScheduleError) as exc:
        raise FunctionIndexError(name, str(exc)) from exc


def _timer_trigger(raw: dict[str, Any], environment: Mapping[str, str], used_by: str) -> TimerTrigger:
    text = resolve_references(raw["schedule"], environment, used_by)
    monitor = raw.get("useMonitor")
    return TimerTrigger(
        schedule_text=text,
        schedule=parse_schedule(text),
        run_on_startup=bool(raw.get("runOnStartup")),
        use_monitor=True if monitor is None else bool(monitor),
    )


def _service_bus_trigger(
    raw: dict[str, Any], environment: Mapping[str, str], used_by: str, name: str
) -> ServiceBusTrigger:
    if (raw.get("cardinality") or "ONE").upper() != "ONE":
        raise FunctionIndexError(name, "cardinality 'many' is not supported by the local host: use cardinality 'one'")
    if raw.get("isSessionsEnabled"):
        raise FunctionIndexError(name, "sessions are not supported by the local host")
    connection = raw["connection"]
    if not (environment.get(connection) or environment.get(f"{connection}__fullyQualifiedNamespace")):
        raise FunctionIndexError(
            name, f"neither app setting {connection!r} nor {connection + '__fullyQualifiedNamespace'!r} is set"
        )
    names = {
        key: resolve_references(raw.get(key) or "", environment, used_by)
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
    )
