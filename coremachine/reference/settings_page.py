"""The app's settings, from the settings model, with what each is for. A test holds the tables against the code."""

from collections.abc import Iterator

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from coremachine.reference.markdown import code, page, table
from infrastructure.settings import ONE_IS_REQUIRED, Settings, variables_of

_INTRODUCTION = """
Settings are environment variables (app settings in Azure, `local.settings.json` on a machine). They are read once, when
the app starts. An app with a setting that cannot be used serves HTTP alone and names the setting there. Empty variables
count as not set. [Before the first production run](../howto/deploy.md#before-the-first-production-run) lists those that
are required in production, and those that are advisable.

`COREMACHINE_APP_MODE` decides what an app does: `standalone` serves HTTP, plans jobs and runs tasks; `platform` serves
HTTP and plans jobs; `worker` runs tasks. The last column names the modes that use a setting.
"""

_EVERY, _PLANS, _RUNS = "all", "standalone, platform", "standalone, worker"
# What a setting is for, and the modes that use it, by the model's field.
MEANINGS = {
    "database_url": ("The PostgreSQL database of the jobs.", _EVERY),
    "database_auth": ("How the app proves its identity to the database.", _EVERY),
    "database_client_id": (
        "The identity for the database, where the app has several; without it `AZURE_CLIENT_ID`, or the system's own.",
        _EVERY,
    ),
    "schema_name": ("The schema of the app's tables and functions.", _EVERY),
    "pool_size": ("The largest number of database connections of one process.", _EVERY),
    "connection_max_lifetime_seconds": ("The age at which a database connection is replaced.", _EVERY),
    "jobs_queue": ("The queue of jobs' steps and submissions.", _EVERY),
    "task_queues": ("The queues of tasks: logical names, which handlers use, and their real names.", _EVERY),
    "task_routes": (
        "Queues of task types, in place of those that their stages and handlers name. The same in every app.",
        _PLANS,
    ),
    "app_mode": ("What the app does.", _EVERY),
    "worker_queues": ("The task queues that this app reads; without it, all.", _RUNS),
    "app_name": ("The app's name in leases, so that it can be seen which app has a task.", _EVERY),
    "release": ("The release of your code, as `coremachine apps` shows it.", _EVERY),
    "task_threads": (
        "A process's slots: the largest number of tasks that it runs at once.",
        _RUNS,
    ),
    "task_processes": (
        "The largest number of tasks that run at once in processes of their own (`isolation='process'`).",
        _RUNS,
    ),
    "max_value_bytes": ("The largest size of one result, one set of parameters or one summary.", _EVERY),
    "check_threads": ("The threads in which resource validators run.", _PLANS),
    "check_seconds": ("The time for all resource validators of one submission.", _PLANS),
    "role_keys": (
        "Keys that carry a role ([Roles](../howto/give-roles.md)). With one, a request needs a role.",
        _PLANS,
    ),
    "entra_roles": ("Whether app roles of Entra count as roles. With it, a request needs a role.", _PLANS),
    "audit_reads": (
        "Whether the audit log has a row `read` where a caller looks at a job: one per caller and job in ten minutes.",
        _PLANS,
    ),
    "raster_roots": ("The places that the flood risk job may read and write.", _EVERY),
    "jobs": (
        "Where job types and handlers are. Without it: `jobs` of `[tool.coremachine]` in `pyproject.toml`.",
        _EVERY,
    ),
    "unknown_work_patience_seconds": ("How long work waits for an app that knows its job type or handler.", _EVERY),
    "sweep_schedule": ("When the janitor looks for work that got stuck.", _PLANS),
    "retention_days": ("The age at which ended jobs are deleted.", _PLANS),
    "webhook_key": (
        "What secrets of webhooks are made from, the same in all apps: [React to events](../howto/react-to-events.md).",
        _PLANS,
    ),
    "webhook_networks": ("Networks that webhooks may reach beside public addresses, also over http.", _PLANS),
    "lease_stand_in_seconds": ("How long the leases of a blocked worker process are renewed by its stand-in.", _RUNS),
    "fault": (
        "Ends the process at a named point of the code, to test what happens then. Never set it in production.",
        _EVERY,
    ),
    "service_bus_connection": ("Service Bus by a connection string.", _EVERY),
    "service_bus_namespace": ("Service Bus by its host name, with the app's managed identity.", _EVERY),
    "service_bus_client_id": (
        "The identity for Service Bus, where the app has several; without it `AZURE_CLIENT_ID`, or the system's own.",
        _EVERY,
    ),
}

# Variables that are no fields of the model: who reads each, its default and meaning.
OTHERS = {
    "COREMACHINE_HTTP_AUTH": (
        "apps with HTTP",
        "`function`",
        "`function`: requests need a function key. `anonymous`: they do not.",
    ),
    "AZURE_CLIENT_ID": (
        "every app",
        "",
        "The identity for everything that has no client id of its own.",
    ),
    "ServiceBusConnection__credential": (
        "Azure's host",
        "",
        "`managedidentity`, beside `ServiceBusConnection__fullyQualifiedNamespace`: the host too uses an identity.",
    ),
    "AzureWebJobsStorage": (
        "the host, storage triggers",
        "",
        "The storage of the host itself, by a connection string.",
    ),
    "AzureWebJobsStorage__accountName": (
        "Azure's host",
        "",
        "The same storage by its name, with an identity, in place of the connection string.",
    ),
    "AzureWebJobsStorage__credential": ("Azure's host", "", "`managedidentity`, beside the name."),
    "AzureWebJobsStorage__clientId": ("Azure's host", "", "The identity, where it is not the system's own."),
    "OTEL_EXPORTER_OTLP_ENDPOINT": (
        "every app",
        "",
        "Where traces, metrics and records go: [Traces and metrics](../howto/trace.md).",
    ),
    "APPLICATIONINSIGHTS_CONNECTION_STRING": (
        "every app with the extra `azure-monitor`",
        "",
        "Where traces, metrics and records go, if there is no endpoint of OTLP.",
    ),
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": (
        "Azure's host, every app with the extra `azure-monitor`",
        "",
        "`Authorization=AAD`: sent with the app's identity: that of `ClientId=...;` before it, or the system's.",
    ),
    "PYTHON_ENABLE_OPENTELEMETRY": (
        "Azure's worker, every app",
        "",
        "`true`: Azure's host leaves records to the worker, and the engine exports them.",
    ),
    "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY": (
        "Azure's worker",
        "",
        "The worker sets OpenTelemetry up for Application Insights, and the engine uses that.",
    ),
    "PYTHON_THREADPOOL_THREAD_COUNT": (
        "every app",
        "",
        "The number of threads for functions; [Threads](operations.md#threads) has the number that the app needs.",
    ),
    "WEBSITE_AUTH_ENABLED": (
        "apps with HTTP",
        "",
        "Set by App Service: the names of built-in authentication are kept as the actor.",
    ),
    "WEBSITE_INSTANCE_ID": (
        "apps with the flood risk job",
        "",
        "Set by App Service: the job then uses no place that `COREMACHINE_RASTER_ROOTS` does not list.",
    ),
    "COREMACHINE_LOG_FORMAT": (
        "the local host, `coremachine serve`",
        "`text`",
        "`json`: one JSON object per line of the log.",
    ),
    "COREMACHINE_WEBHOOK_URL_<NAME>": (
        "apps that send webhooks",
        "",
        "The address of a webhook that names this setting, where the address is itself a secret.",
    ),
    "COREMACHINE_WEBHOOK_SECRET_<NAME>": (
        "apps that send webhooks",
        "",
        "The secret of a webhook that names this setting: `whsec_` and base64.",
    ),
    "COREMACHINE_URL": ("the command line", "the stack of this folder", "The server, where `--url` is not given."),
    "COREMACHINE_UTC": ("the command line", "", "true: times in UTC, as with `--utc`."),
    "COREMACHINE_PROFILE": ("the command line", "", "The profile, where `--profile` is not given."),
    "COREMACHINE_KEY": ("the command line", "", "The key that carries a role on the server."),
    "COREMACHINE_FUNCTION_KEY": ("the command line", "", "The function key for the server's requests."),
}


def render() -> str:
    fields = Settings.model_fields
    return page(
        "Settings",
        "`infrastructure/settings.py` and `coremachine/reference/settings_page.py`",
        _INTRODUCTION,
        table(["variable", "meaning", "expected", "default", "modes"], (_row(name, fields[name]) for name in MEANINGS)),
        "## Other variables",
        table(["variable", "read by", "default", "meaning"], _others()),
    )


def _row(name: str, field: FieldInfo) -> list[str]:
    meaning, modes = MEANINGS[name]
    return [" or ".join(map(code, variables_of(field))), meaning, field.description or "", _default(name, field), modes]


def _default(name: str, field: FieldInfo) -> str:
    if name in ONE_IS_REQUIRED:
        others = (variables_of(Settings.model_fields[other])[0] for other in ONE_IS_REQUIRED if other != name)
        return f"required without {', '.join(map(code, others))}, refused beside it"
    if field.default is PydanticUndefined:
        return "required"
    default = getattr(field.default, "value", field.default)
    return code(default) if default not in {None, "", ()} else "none"


def _others() -> Iterator[list[str]]:
    for name, (reader, default, meaning) in OTHERS.items():
        yield [code(name), reader, default or "none", meaning]
