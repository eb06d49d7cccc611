"""Settings are read once and checked as a whole; what is wrong is said with the name of its variable."""

import re

import pytest
from pydantic import ValidationError

from core.errors import QueueNotFound
from infrastructure.settings import AppMode, DatabaseAuth, Settings, SettingsError, load_settings, variables_of

SECRET = "v3ry-s3cret"  # noqa: S105 - looked for in errors
CONNECTION = f"Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=app;SharedAccessKey={SECRET}"
GIVEN = {"COREMACHINE_DATABASE_URL": f"postgresql://app:{SECRET}@host/database", "ServiceBusConnection": CONNECTION}


def problems(**variables):
    with pytest.raises(SettingsError) as caught:
        load_settings(GIVEN | variables)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None, "what pydantic raised holds the values"
    return caught.value.problems


def test_defaults():
    settings = load_settings(GIVEN)

    assert settings.database_auth is DatabaseAuth.PASSWORD
    assert settings.app_mode is AppMode.STANDALONE
    assert (settings.schema_name, settings.pool_size, settings.task_threads) == ("app", 4, 8)
    assert settings.connection_max_lifetime_seconds == 1800
    assert dict(settings.queue_names) == {
        "jobs": "coremachine-jobs",
        "tasks": "coremachine-tasks",
        "raster": "coremachine-raster-tasks",
    }
    assert settings.served_queues == ("tasks", "raster")
    assert settings.app_name == "local"
    assert settings.sweep_schedule == "*/30 * * * * *"
    assert settings.jobs == "jobs.all_jobs:build_registry"


def test_everything_can_be_set():
    settings = load_settings(
        {
            "COREMACHINE_DATABASE_URL": "host=db user=identity dbname=app",
            "COREMACHINE_DATABASE_AUTH": "entra",
            "COREMACHINE_DATABASE_CLIENT_ID": "id-of-database",
            "COREMACHINE_SCHEMA": "other",
            "COREMACHINE_POOL_SIZE": "2",
            "COREMACHINE_CONNECTION_MAX_LIFETIME_SECONDS": "600",
            "COREMACHINE_JOBS_QUEUE": "j",
            "COREMACHINE_TASK_QUEUES": " light = l , heavy=h/1,",
            "COREMACHINE_APP_MODE": "worker",
            "COREMACHINE_WORKER_QUEUES": "heavy, heavy",
            "COREMACHINE_APP_NAME": "worker-1",
            "COREMACHINE_TASK_THREADS": "1",
            "COREMACHINE_SWEEP_SCHEDULE": "0 * * * * *",
            "COREMACHINE_JOBS": "my_jobs.all:build_registry",
            "ServiceBusConnection__fullyQualifiedNamespace": "x.servicebus.windows.net",
            "ServiceBusConnection__clientId": "id",
        }
    )

    assert settings.database_url.get_secret_value() == "host=db user=identity dbname=app"
    assert settings.database_auth is DatabaseAuth.ENTRA
    assert (settings.schema_name, settings.pool_size, settings.task_threads) == ("other", 2, 1)
    assert settings.connection_max_lifetime_seconds == 600
    assert dict(settings.queue_names) == {"jobs": "j", "light": "l", "heavy": "h/1"}
    assert settings.app_mode is AppMode.WORKER
    assert settings.served_queues == ("heavy",)
    assert settings.app_name == "worker-1"
    assert settings.jobs == "my_jobs.all:build_registry"
    assert settings.sweep_schedule == "0 * * * * *"
    assert settings.service_bus_connection is None
    assert settings.service_bus_namespace == "x.servicebus.windows.net"
    assert (settings.database_client_id, settings.service_bus_client_id) == ("id-of-database", "id")


def test_an_identity_for_the_database_needs_it_to_take_tokens():
    (problem,) = problems(COREMACHINE_DATABASE_CLIENT_ID="id")
    assert problem.startswith(
        "COREMACHINE_DATABASE_CLIENT_ID: expected COREMACHINE_DATABASE_AUTH to be entra with it, "
    )
    assert "found password" in problem


def test_the_process_environment_is_read_when_no_mapping_is_given(monkeypatch):
    monkeypatch.setenv("COREMACHINE_POOL_SIZE", "7")
    assert load_settings(GIVEN).pool_size == 4, "a mapping is all there is"
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    assert load_settings().pool_size == 7


def test_empty_variables_count_as_not_set():
    assert load_settings(GIVEN | {"COREMACHINE_POOL_SIZE": " ", "ServiceBusConnection__clientId": ""}).pool_size == 4


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"WEBSITE_SITE_NAME": "site"}, "site"),
        ({"WEBSITE_SITE_NAME": "site", "COREMACHINE_APP_NAME": "mine"}, "mine"),
    ],
)
def test_app_name_falls_back_to_the_site(variables, name):
    assert load_settings(GIVEN | variables).app_name == name


def test_a_platform_app_takes_no_tasks():
    assert load_settings(GIVEN | {"COREMACHINE_APP_MODE": "platform"}).served_queues == ()


def test_real_names_by_logical_names():
    settings = load_settings(GIVEN)
    assert settings.queue_name("jobs") == "coremachine-jobs"
    assert settings.queue_name("raster") == "coremachine-raster-tasks"
    with pytest.raises(
        QueueNotFound, match=r"'heavy': expected one of jobs, tasks, raster; add heavy = .* to COREMACH"
    ):
        settings.queue_name("heavy")


def test_blanks_around_a_value_are_none_of_it():
    """The app's shape was that of a worker, without HTTP to say that its mode could not be used."""
    settings = load_settings(GIVEN | {"COREMACHINE_APP_MODE": " worker ", "COREMACHINE_SCHEMA": "other\n"})
    assert (settings.app_mode, settings.schema_name) == (AppMode.WORKER, "other")


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"ServiceBusConnection": f"{CONNECTION};EntityPath=orders"},
            "ServiceBusConnection: expected the connection string of the namespace, found that of the entity 'orders'",
        ),
        (
            {"COREMACHINE_APP_NAME": "a\x1b[31m"},
            "COREMACHINE_APP_NAME or WEBSITE_SITE_NAME: expected a name of at most",
        ),
        ({"COREMACHINE_RELEASE": "1\n2"}, "COREMACHINE_RELEASE: expected a name of at most 100 characters on one line"),
        ({"COREMACHINE_RETENTION_DAYS": "inf"}, "COREMACHINE_RETENTION_DAYS: expected a number of days up to 36500"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(variables, problem):
    (found,) = problems(**variables)
    assert found.startswith(problem)


def test_settings_do_not_change():
    settings = load_settings(GIVEN)
    with pytest.raises(ValidationError, match="frozen"):
        settings.pool_size = 5
    with pytest.raises(TypeError):
        settings.task_queues["more"] = "x"


def test_secrets_are_not_shown():
    """Destructive routes without a key, secrets in rows, pickles (lesson D42)."""
    settings = load_settings(GIVEN)
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_routes_of_task_types():
    settings = load_settings(GIVEN | {"COREMACHINE_TASK_ROUTES": "convert = raster, catalog=tasks,"})
    assert dict(settings.task_routes) == {"convert": "raster", "catalog": "tasks"}
    assert settings.to_environment()["COREMACHINE_TASK_ROUTES"] == "convert=raster,catalog=tasks"
    assert dict(load_settings(GIVEN).task_routes) == {}
    assert "COREMACHINE_TASK_ROUTES" not in load_settings(GIVEN).to_environment()


@pytest.mark.parametrize(("mode", "queues"), [("platform", ("jobs",)), ("worker", ("raster",))])
def test_all_queues_that_an_app_reads(mode, queues):
    variables = {"COREMACHINE_APP_MODE": mode, "COREMACHINE_WORKER_QUEUES": "raster"}
    assert load_settings(GIVEN | variables).read_queues == queues


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("COREMACHINE_DATABASE_URL", "", "expected a PostgreSQL URL .*, found nothing; set it"),
        (
            "COREMACHINE_TASK_ROUTES",
            "convert=gpu",
            "task type 'convert': expected one of the queues tasks, raster, found 'gpu'; name another queue, or add",
        ),
        ("COREMACHINE_TASK_ROUTES", "convert", "expected pairs such as 'my_task_type=raster', found 'convert'"),
        ("COREMACHINE_TASK_ROUTES", "a=tasks,a=raster", "expected each task type once, found 'a' twice"),
        ("COREMACHINE_DATABASE_URL", f"host {SECRET} x", "found something else .not shown"),
        ("COREMACHINE_DATABASE_AUTH", "kerberos", "expected password or entra, found 'kerberos'; .* to use password"),
        ("COREMACHINE_SCHEMA", "a-b", "found 'a-b'; fix it, or remove it to use app"),
        ("COREMACHINE_JOBS", "my-jobs", "expected a package, .*package.module:function, .*, found .my-jobs.; fix it"),
        ("COREMACHINE_POOL_SIZE", "none", "expected a number of connections from 1 to 100, found 'none'"),
        ("COREMACHINE_POOL_SIZE", "0", "expected a number of connections from 1 to 100, found '0'"),
        ("COREMACHINE_CONNECTION_MAX_LIFETIME_SECONDS", "7200", "expected seconds from 60 to 3600 .*, found '7200'"),
        ("COREMACHINE_JOBS_QUEUE", "a b", "expected the name of a Service Bus queue, found 'a b'"),
        ("COREMACHINE_TASK_QUEUES", "tasks", "expected pairs such as 'tasks=coremachine-tasks', found 'tasks'"),
        ("COREMACHINE_TASK_QUEUES", "a=x,a=y", "expected each logical name once, found 'a' twice"),
        ("COREMACHINE_TASK_QUEUES", "A!=x", "expected pairs such as 'tasks=coremachine-tasks', found 'A!=x'"),
        ("COREMACHINE_TASK_QUEUES", ",", "expected pairs such as 'tasks=coremachine-tasks', found ','"),
        (
            "COREMACHINE_TASK_QUEUES",
            "jobs=x",
            "expected other logical names than 'jobs', which COREMACHINE_JOBS_QUEUE names; rename it",
        ),
        ("COREMACHINE_APP_MODE", "both", "expected standalone, platform or worker, found 'both'"),
        (
            "COREMACHINE_WORKER_QUEUES",
            "heavy",
            "expected some of tasks, raster, found heavy; leave it out, or add heavy",
        ),
        ("COREMACHINE_TASK_THREADS", "1000", "expected a number of tasks from 1 to 64, found '1000'"),
        ("COREMACHINE_SWEEP_SCHEDULE", "* * *", r"expected an NCRONTAB expression .*, found '\* \* \*'"),
        ("ServiceBusConnection", f"SharedAccessKey={SECRET}", "expected Endpoint=sb://.*found something else"),
        ("ServiceBusConnection", f"Endpoint=sb://x;SharedAccessKey={SECRET}", "found something else"),
    ],
)
def test_a_problem_names_its_variable(variable, value, problem):
    [found] = problems(**{variable: value})
    assert found.startswith(f"{variable}: ")
    assert re.search(problem, found)


def test_the_site_name_is_named_with_the_variable_it_stands_for():
    [found] = problems(WEBSITE_SITE_NAME="x" * 101)
    assert found.startswith("COREMACHINE_APP_NAME or WEBSITE_SITE_NAME: expected a name of at most 100 characters")


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"ServiceBusConnection": ""}, "found neither"),
        ({"ServiceBusConnection__fullyQualifiedNamespace": "x.servicebus.windows.net"}, "found both"),
        ({"servicebusconnection__fullyqualifiednamespace": "x", "ServiceBusConnection": ""}, "found neither"),
    ],
)
def test_one_way_to_service_bus_is_needed(variables, found):
    [problem] = problems(**variables)
    assert problem.startswith("ServiceBusConnection, ServiceBusConnection__fullyQualifiedNamespace: expected one of")
    assert found in problem


def test_entra_and_a_password_exclude_each_other():
    [problem] = problems(COREMACHINE_DATABASE_AUTH="entra")
    assert problem.startswith("COREMACHINE_DATABASE_URL: expected no password in it")


def test_each_queue_has_one_logical_name():
    [problem] = problems(COREMACHINE_JOBS_QUEUE="Shared", COREMACHINE_TASK_QUEUES="tasks=shared")
    assert "found shared more than once" in problem


def test_all_problems_are_said_at_once():
    found = problems(COREMACHINE_POOL_SIZE="x", COREMACHINE_APP_MODE="x", COREMACHINE_DATABASE_URL="")
    assert [line.split(":")[0] for line in found] == [
        "COREMACHINE_DATABASE_URL",
        "COREMACHINE_POOL_SIZE",
        "COREMACHINE_APP_MODE",
    ]


STRANGE = {
    "byte": "\udcff",
    "bytes": "x\udcff\udcfe",
    "long": "x" * 200_000,
    "digits": "9" * 5000,
    "pairs": "a=b," * 5000,
    "json": "[",
    "nan": "nan",
}


@pytest.mark.parametrize(
    "variable", sorted(name for field in Settings.model_fields.values() for name in variables_of(field))
)
@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE)
def test_whatever_a_variable_holds_is_told_with_its_name_and_in_short(variable, value):
    """Bytes that are no UTF-8 in the database's address were an IndexError at start, a long text was told whole."""
    told = []
    try:
        load_settings(GIVEN | {variable: value})
    except SettingsError as error:
        told = error.problems
    assert all(len(problem) <= 1000 and problem.isprintable() for problem in told)
    assert (variable in "".join(told)) is bool(told)
    assert told or "\udcff" not in value
