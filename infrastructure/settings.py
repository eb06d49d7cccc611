"""The app's settings: environment variables, read once, checked as a whole."""

import os
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from core.app_queues import (
    DEFAULT_JOBS_QUEUE,
    DEFAULT_SWEEP_SCHEDULE,
    DEFAULT_TASK_QUEUES,
    JOBS_QUEUE,
    find_queue_problems,
    find_route_problems,
    how_to_add_queue,
    read_names,
    read_task_queues,
    read_task_routes,
)
from core.basics.canonical import MOST_JSONB_BYTES, MOST_VALUE_BYTES
from core.errors import QueueNotFound
from core.running.task_slots import DEFAULT_SLOTS
from core.safety.roles import read_role_keys
from core.safety.safe_text import bounded_text, brief_text
from core.webhooks.targets import NETWORKS_SETTING, read_networks

SCHEMA_NAME = r"^[a-z_][a-z0-9_]{0,62}$"
# Fields of which exactly one is to be set.
ONE_IS_REQUIRED = ("service_bus_connection", "service_bus_namespace")
_NOT_SHOWN = "something else (not shown, since it may hold a secret)"


class AppMode(StrEnum):
    """Which triggers this app has."""

    STANDALONE = "standalone"  # HTTP, jobs queue, task queues, timers
    PLATFORM = "platform"  # HTTP, jobs queue, timers
    WORKER = "worker"  # task queues


class DatabaseAuth(StrEnum):
    """How the database knows the app."""

    PASSWORD = "password"  # noqa: S105 - the name of a way, not a password
    ENTRA = "entra"  # a token of the app's identity in place of a password


_LONGEST_PROBLEM = 1000


class SettingsError(ValueError):
    """Settings that cannot be used. `problems` has a line for each, without anything secret."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = [bounded_text(problem, _LONGEST_PROBLEM) for problem in problems]
        super().__init__("\n".join(self.problems))


def _pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    queues, problems = read_task_queues(value)
    if problems:
        raise SettingsError(problems)
    return queues


def _routes(value: object) -> object:
    if not isinstance(value, str):
        return value
    routes, problems = read_task_routes(value)
    if problems:
        raise SettingsError(problems)
    return routes


def _names(value: object) -> object:
    return read_names(value) if isinstance(value, str) else value


def _check_role_keys(value: str) -> str:
    _, problems = read_role_keys(value)
    if problems:
        raise SettingsError([f"COREMACHINE_ROLE_KEYS: {problem}" for problem in problems])
    return value


def _check_networks(value: str) -> str:
    try:
        read_networks(value)
    except ValueError as error:
        raise SettingsError([f"{NETWORKS_SETTING}: expected networks such as 10.1.0.0/16, found {error}"]) from error
    return value


def _parts_of(connection_string: str) -> dict[str, str]:
    parts = (part.partition("=") for part in connection_string.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in parts}


def _is_connection_string(parts: Mapping[str, str]) -> bool:
    has_key = bool(parts.get("sharedaccesskeyname") and parts.get("sharedaccesskey"))
    return parts.get("endpoint", "").startswith("sb://") and (has_key or bool(parts.get("sharedaccesssignature")))


_RealName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([\w\-./]*[A-Za-z0-9])?$", max_length=260)]


def _check_one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a character that is none to be read")
    return value


_OneLine = Annotated[str, AfterValidator(_check_one_line)]
_TaskQueues = Annotated[
    Mapping[str, str],
    BeforeValidator(_pairs),
    AfterValidator(lambda pairs: MappingProxyType(dict(pairs))),
    PlainSerializer(dict),
]


_TaskRoutes = Annotated[
    Mapping[str, str],
    BeforeValidator(_routes),
    AfterValidator(lambda pairs: MappingProxyType(dict(pairs))),
    PlainSerializer(dict),
]


class Settings(BaseSettings):
    """All settings, under the names that the code uses; `load_settings` reads them from their variables.

    A field's description is what is expected of its variable.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: SecretStr = Field(
        alias="COREMACHINE_DATABASE_URL",
        description="a PostgreSQL URL or libpq connection string, such as postgresql://user@host/database",
    )
    database_auth: DatabaseAuth = Field(
        DatabaseAuth.PASSWORD, alias="COREMACHINE_DATABASE_AUTH", description="password or entra"
    )
    database_client_id: str | None = Field(
        None,
        alias="COREMACHINE_DATABASE_CLIENT_ID",
        description="the client id of the user-assigned identity that is the database's user",
    )
    schema_name: str = Field(
        "app",
        alias="COREMACHINE_SCHEMA",
        pattern=SCHEMA_NAME,
        description="a lower-case PostgreSQL name of at most 63 characters",
    )
    pool_size: int = Field(
        4, alias="COREMACHINE_POOL_SIZE", ge=1, le=100, description="a number of connections from 1 to 100"
    )
    connection_max_lifetime_seconds: float = Field(
        1800.0,
        alias="COREMACHINE_CONNECTION_MAX_LIFETIME_SECONDS",
        ge=60,
        le=3600,
        description="seconds from 60 to 3600 (an Entra token lives about an hour)",
    )
    jobs_queue: _RealName = Field(
        DEFAULT_JOBS_QUEUE, alias="COREMACHINE_JOBS_QUEUE", description="the name of a Service Bus queue"
    )
    # As in a variable: pydantic-settings checks and converts defaults too.
    task_queues: _TaskQueues = Field(
        DEFAULT_TASK_QUEUES,  # type: ignore[arg-type]
        alias="COREMACHINE_TASK_QUEUES",
        description="logical=real queue names with commas between",
    )
    task_routes: _TaskRoutes = Field(
        "",  # type: ignore[arg-type]
        alias="COREMACHINE_TASK_ROUTES",
        description="task_type=logical queue names with commas between",
    )
    app_mode: AppMode = Field(
        AppMode.STANDALONE, alias="COREMACHINE_APP_MODE", description="standalone, platform or worker"
    )
    worker_queues: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        (),
        alias="COREMACHINE_WORKER_QUEUES",
        description="logical names of COREMACHINE_TASK_QUEUES, with commas between",
    )
    app_name: _OneLine = Field(
        "local",
        validation_alias=AliasChoices("COREMACHINE_APP_NAME", "WEBSITE_SITE_NAME"),
        max_length=100,
        description="a name of at most 100 characters, on one line",
    )
    release: _OneLine = Field(
        "",
        alias="COREMACHINE_RELEASE",
        max_length=100,
        description="a name of at most 100 characters on one line for the release of your code, such as its commit",
    )
    task_threads: int = Field(
        DEFAULT_SLOTS, alias="COREMACHINE_TASK_THREADS", ge=1, le=64, description="a number of tasks from 1 to 64"
    )
    task_processes: int = Field(
        0,
        alias="COREMACHINE_TASK_PROCESSES",
        ge=0,
        le=64,
        description="a number of processes from 1 to 64; 0 is the number of cores",
    )
    max_value_bytes: int = Field(
        MOST_VALUE_BYTES,
        alias="COREMACHINE_MAX_VALUE_BYTES",
        ge=1024,
        le=MOST_JSONB_BYTES,
        description="how large one result, one set of parameters or one summary may be, in bytes of its JSON, from "
        f"1024 to {MOST_JSONB_BYTES} (beyond it there are values that PostgreSQL cannot hold)",
    )
    check_threads: int = Field(
        8,
        alias="COREMACHINE_CHECK_THREADS",
        ge=1,
        le=64,
        description="a number of threads from 1 to 64, which look whether sources and folders of submissions are there",
    )
    check_seconds: float = Field(
        5.0,
        alias="COREMACHINE_CHECK_SECONDS",
        ge=0.1,
        le=60,
        description="seconds from 0.1 to 60, after which a submission is accepted without that look",
    )
    role_keys: Annotated[str, AfterValidator(_check_role_keys)] = Field(
        "",
        alias="COREMACHINE_ROLE_KEYS",
        max_length=20_000,
        description="role=digest or role:name=digest with commas between; a role is viewer, submitter, operator or "
        "admin, or for some job types submitter@flood_*; a digest is the SHA-256 of a key in 64 hexadecimal digits",
    )
    entra_roles: bool = Field(
        False, alias="COREMACHINE_ENTRA_ROLES", description="true, where app roles of Entra decide who may do what"
    )
    audit_reads: bool = Field(
        False,
        alias="COREMACHINE_AUDIT_READS",
        description="true, where looks at jobs are to be in the audit log, too",
    )
    webhook_key: SecretStr | None = Field(
        None,
        alias="COREMACHINE_WEBHOOK_KEY",
        min_length=32,
        description="a random text of at least 32 characters, which secrets of webhooks are made from",
    )
    webhook_networks: Annotated[str, AfterValidator(_check_networks)] = Field(
        "",
        alias="COREMACHINE_WEBHOOK_NETWORKS",
        max_length=10_000,
        description="networks such as 10.1.0.0/16 with commas between, which webhooks may reach too",
    )
    raster_roots: str = Field(
        "",
        alias="COREMACHINE_RASTER_ROOTS",
        max_length=10_000,
        description="folders and URL prefixes, separated by commas, that the flood risk job may use; see its document",
    )
    jobs: str = Field(
        "jobs.all_jobs:build_registry",
        alias="COREMACHINE_JOBS",
        pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$",
        description="a package, whose modules have the job classes and handlers; or package.module:function, a "
        "function that takes the logical queue names and returns a Registry",
    )
    unknown_work_patience_seconds: float = Field(
        21600.0,
        alias="COREMACHINE_UNKNOWN_WORK_PATIENCE_SECONDS",
        ge=1,
        le=31 * 86400,
        description="seconds from 1 to 2678400 for which work waits for a release that knows it, before it fails",
    )
    sweep_schedule: str = Field(
        DEFAULT_SWEEP_SCHEDULE,
        alias="COREMACHINE_SWEEP_SCHEDULE",
        pattern=r"^\S+( \S+){5}$",
        description="an NCRONTAB expression of six fields, such as */30 * * * * *",
    )
    retention_days: float | None = Field(
        None,
        alias="COREMACHINE_RETENTION_DAYS",
        gt=0,
        le=36_500,
        description="a number of days up to 36500 after which ended jobs are deleted; left out, they are kept",
    )
    lease_stand_in_seconds: float = Field(
        1800.0,
        alias="COREMACHINE_LEASE_STAND_IN_SECONDS",
        ge=0,
        le=86_400,
        description="seconds from 0 to 86400: how long the leases of a blocked process are kept; 0 for not at all",
    )
    fault: str = Field(
        "",
        alias="COREMACHINE_FAULT",
        description="for tries of outages: a name of core.basics.faults.FAULT_POINTS, where the process is to end",
    )
    service_bus_connection: SecretStr | None = Field(
        None,
        alias="ServiceBusConnection",
        description="Endpoint=sb://...;SharedAccessKeyName=...;SharedAccessKey=... as the portal shows it",
    )
    service_bus_namespace: str | None = Field(
        None,
        alias="ServiceBusConnection__fullyQualifiedNamespace",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]+$",
        description="a host name such as my-namespace.servicebus.windows.net",
    )
    service_bus_client_id: str | None = Field(
        None,
        alias="ServiceBusConnection__clientId",
        description="the client id of a user-assigned identity",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` hands over, so that the mapping given to it is all there is."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [
            *self._database_problems(),
            *find_queue_problems(self.jobs_queue, self.task_queues, self.worker_queues),
            *find_route_problems(self.task_routes, self.task_queues),
            *self._service_bus_problems(),
        ]
        if problems:
            raise SettingsError(problems)
        return self

    def to_environment(self) -> dict[str, str]:
        """The variables that give these settings, secrets too: for a process that is to work with the same."""
        found = {variables_of(field)[0]: getattr(self, name) for name, field in type(self).model_fields.items()}
        return {variable: _as_text(value) for variable, value in found.items() if value not in (None, "", (), {})}

    def queue_name(self, logical: str) -> str:
        """The real name of `jobs` or of a task queue.

        Raises:
            QueueNotFound: No queue is called that.
        """
        try:
            return self.queue_names[logical]
        except KeyError:
            known = ", ".join(self.queue_names)
            raise QueueNotFound(logical, f"expected one of {known}; {how_to_add_queue(logical)}") from None

    @property
    def queue_names(self) -> Mapping[str, str]:
        """Real names by logical names, the jobs queue first."""
        return MappingProxyType({JOBS_QUEUE: self.jobs_queue, **self.task_queues})

    @property
    def served_queues(self) -> tuple[str, ...]:
        """Logical names of the task queues that this app takes messages from; a platform app takes none."""
        if self.app_mode is AppMode.PLATFORM:
            return ()
        return self.worker_queues or tuple(self.task_queues)

    @property
    def slots(self) -> int:
        """How many tasks a process of this app runs at once; 0 if it runs none."""
        return self.task_threads if self.served_queues else 0

    @property
    def read_queues(self) -> tuple[str, ...]:
        """Logical names of all queues that this app takes messages from."""
        return self.served_queues if self.app_mode is AppMode.WORKER else (JOBS_QUEUE, *self.served_queues)

    def _database_problems(self) -> list[str]:
        try:
            has_password = _has_password(self.database_url.get_secret_value())
        except ValueError:
            return [_problem(type(self).model_fields["database_url"], _NOT_SHOWN)]
        return _identity_problems(self.database_auth, self.database_client_id, has_password=has_password)

    def _service_bus_problems(self) -> list[str]:
        connection, namespace = (getattr(self, name) for name in ONE_IS_REQUIRED)
        if (connection is None) == (namespace is None):
            problem = (
                "ServiceBusConnection, ServiceBusConnection__fullyQualifiedNamespace: expected one of them, "
                f"found {'neither' if connection is None else 'both'}; set the first to a connection string, "
                "or the second to the namespace's host name to use a managed identity"
            )
            return [problem]
        parts = {} if connection is None else _parts_of(connection.get_secret_value())
        if connection is not None and not _is_connection_string(parts):
            return [_problem(type(self).model_fields["service_bus_connection"], _NOT_SHOWN)]
        if parts.get("entitypath"):
            problem = (
                "ServiceBusConnection: expected the connection string of the namespace, found that of the entity "
                f"{brief_text(repr(parts['entitypath']))}; remove EntityPath, and give the key to all queues of the app"
            )
            return [problem]
        return []


def _has_password(url: str) -> bool:
    """Whether the connection string has one. Raises ValueError if it cannot be read."""
    import psycopg  # noqa: PLC0415 - slow to import for those who only read names
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        return bool(conninfo_to_dict(url).get("password"))
    except psycopg.ProgrammingError as error:
        raise ValueError from error


def _identity_problems(auth: DatabaseAuth, client_id: str | None, *, has_password: bool) -> list[str]:
    if client_id is not None and auth is not DatabaseAuth.ENTRA:
        problem = (
            "COREMACHINE_DATABASE_CLIENT_ID: expected COREMACHINE_DATABASE_AUTH to be entra with it, "
            f"found {auth}; set that to entra, or remove the client id"
        )
        return [problem]
    if auth is DatabaseAuth.ENTRA and has_password:
        problem = (
            "COREMACHINE_DATABASE_URL: expected no password in it, since COREMACHINE_DATABASE_AUTH is entra, "
            "found one; remove it, and name the identity as the user"
        )
        return [problem]
    return []


def read_database_identity(environ: Mapping[str, str], url: str) -> tuple[DatabaseAuth, str | None]:
    """How to sign in to the database, and with which client id, for programs that need no other settings.

    Args:
        url: One that cannot be read is left to the connection, which names the reason.

    Raises:
        SettingsError: A variable cannot be used, or does not go together with the others.
    """
    auth_field, client_id_field = (Settings.model_fields[name] for name in ("database_auth", "database_client_id"))
    given = environ.get(str(auth_field.alias), "").strip() or DatabaseAuth.PASSWORD
    if given not in set(DatabaseAuth):
        raise SettingsError([_problem(auth_field, brief_text(repr(given)))])
    auth, client_id = DatabaseAuth(given), environ.get(str(client_id_field.alias), "").strip() or None
    try:
        has_password = _has_password(url)
    except ValueError:
        has_password = False
    if problems := _identity_problems(auth, client_id, has_password=has_password):
        raise SettingsError(problems)
    return auth, client_id


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. Empty variables count as not set.

    Args:
        environ: Read in place of the process's environment.

    Raises:
        SettingsError: Names every variable that is wrong, what was expected, what was found and what to do.
    """
    source = os.environ if environ is None else environ
    known = {name: field for field in Settings.model_fields.values() for name in variables_of(field)}
    # Without blanks around them, as `triggers.app_shape` reads them.
    values: dict[str, Any] = {name: source[name].strip() for name in known if source.get(name, "").strip()}
    unreadable = [name for name, value in values.items() if not _is_text(value)]
    if unreadable:
        raise SettingsError([_problem(known[name], "bytes that are no UTF-8") for name in unreadable])
    try:
        return Settings(**values)
    except ValidationError as error:
        # A mapping with two wrong entries is one problem.
        problems = list(dict.fromkeys(line for details in error.errors() for line in _explain(details, known, values)))
    # Outside of the handler: what pydantic raised holds the values, secret ones too.
    raise SettingsError(problems)


def _is_text(value: str) -> bool:
    """Whether it is text at all: the bytes of a variable may be anything."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return ",".join(f"{logical}={real}" for logical, real in value.items())
    return ",".join(value) if isinstance(value, tuple) else str(value)


def variables_of(field: FieldInfo) -> list[str]:
    choices = field.validation_alias
    return [str(choice) for choice in choices.choices] if isinstance(choices, AliasChoices) else [str(choices)]


def _explain(details: ErrorDetails, known: Mapping[str, FieldInfo], values: Mapping[str, Any]) -> list[str]:
    raised = details.get("ctx", {}).get("error")
    if isinstance(raised, SettingsError):
        return raised.problems
    field = known[str(details["loc"][0])]
    name = next((name for name in variables_of(field) if name in values), None)
    if name is None:
        return [_problem(field, "nothing")]
    is_secret = "Secret" in str(field.annotation)
    found = _NOT_SHOWN if is_secret else brief_text(repr(values[name]))
    return [_problem(field, f"{found} ({raised})" if raised else found)]


def _problem(field: FieldInfo, found: str) -> str:
    variables = variables_of(field)
    default = field.default
    if default is PydanticUndefined:
        remedy = "set it"
    elif default is None or default == ():
        remedy = "fix it or remove it"
    else:
        remedy = f"fix it, or remove it to use {default}"
    return f"{' or '.join(variables)}: expected {field.description}, found {found}; {remedy}"
