"""An app whose only credential is its identity, on a database that checks each connection's token.

The tokens live for twenty seconds, or until a test ends them: it waits for no clock. A token in PostgreSQL is a role's
password, valid until it expires.
"""

import hashlib
import json
import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from azure.servicebus import TransportType
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from core.models import TaskQueueMessage
from coremachine.client import Client, NotFound
from coremachine.local.broker.certificates import server_context
from coremachine.local.broker.config import default_config_path, load_config
from coremachine.local.broker.queue import Queue
from coremachine.local.broker.server import TlsPorts
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.supervisor import HostSupervisor
from infrastructure.entra import EntraTokens, TokenUnavailable, default_credential
from infrastructure.postgresql import PostgreSQLRepository, create_pool
from infrastructure.service_bus import ServiceBusRepository, connect_with_identity
from tests.databases import clone_template
from tests.token_endpoint import APP_SERVICE_PATH, TENANT, TokenEndpoint, serving
from tests.webhook_receiver import receiver

ROOT = Path(__file__).parents[3]
ROLE = "app_identity"
LIVES_SECONDS = 20.0
# How many tokens one job outlives.
TOKENS = 4
DATABASE = "https://ossrdbms-aad.database.windows.net"
SECRETS = {
    "identity header": "secret-header-" + "h" * 20,
    "bus key": "c2VjcmV0LWJ1cy1rZXk-c2VjcmV0LWJ1cw==",
    "webhook key": "secret-webhook-key-" + "w" * 20,
    "webhook secret": "c2VjcmV0LW9mLWEtd2ViaG9vay1vZi10ZXN0cy0x",
    "address": "secret-signature-in-an-address",
    "role key": "secret-role-key-" + "r" * 20,
    "function key": "secret-function-key-" + "f" * 20,
}


@pytest.fixture(scope="module")
def checked(postgres_url, template_url):
    """A database whose role has to show its password, and what sets that to a token."""
    if "host=/" not in postgres_url and "host=%2F" not in postgres_url:
        pytest.skip("the server is not this test's own")
    with clone_template(template_url) as database, psycopg.connect(database, autocommit=True) as admin:
        role = Identifier(ROLE)
        admin.execute(SQL("drop role if exists {}").format(role))
        admin.execute(SQL("create role {} login superuser").format(role))
        rules = admin.execute("select pg_read_file(current_setting('hba_file'))").fetchone()[0].splitlines()
        ask_for_password = [f"local all {ROLE} scram-sha-256", f"host all {ROLE} all scram-sha-256"]
        write_rules(admin, [*ask_for_password, *rules])

        def set_token(resource, token):
            if resource.rstrip("/") == DATABASE:
                until = Literal((datetime.now(UTC) + timedelta(seconds=LIVES_SECONDS)).isoformat())
                query = SQL("alter role {} password {} valid until {}")
                admin.execute(query.format(role, Literal(token), until))

        yield make_conninfo(database, user=ROLE), set_token, database
        write_rules(admin, rules)
        admin.execute(SQL("drop role {}").format(role))


def write_rules(admin, lines):
    """Who may connect, and how. The server writes its own file, whose user may be another."""
    (place,) = admin.execute("show hba_file").fetchone()
    rules = [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]
    admin.execute(SQL("copy (select unnest({}::text[])) to {}").format(Literal(rules), Literal(place)))
    admin.execute("select pg_reload_conf()")


@pytest.fixture(params=["imds", "workload"])
def endpoint(request, checked, tmp_path, monkeypatch):
    """On a virtual machine the endpoint of IMDS; on Kubernetes Entra itself, which takes the cluster's token."""
    _, set_token, _ = checked
    endpoint = TokenEndpoint(lives_seconds=LIVES_SECONDS, assertion="secret-assertion", on_new=set_token)
    if request.param == "imds":
        with serving(endpoint) as address:
            monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", address)
            yield endpoint
        return
    tls = server_context(tmp_path / "tls")
    (tmp_path / "assertion").write_text(endpoint.assertion)
    with serving(endpoint, tls) as address:
        # As the cluster's webhook sets them, but for the certificate.
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", address)
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        monkeypatch.setenv("AZURE_CLIENT_ID", "id-of-pod")
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "assertion"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "tls" / "ca.pem"))
        yield endpoint


def form_of(endpoint):
    (form,) = {form for form, _, _ in endpoint.asked}
    return form


def expire(admin):
    """The role's present password is not valid any more."""
    admin.execute(SQL("alter role {} valid until '2000-01-01'").format(Identifier(ROLE)))


def expire_and_cut(endpoint, admin):
    """The time of all tokens is over, and connections are lost, as at a failover."""
    endpoint.end_all(lambda: expire(admin))
    # Waits until they have ended: otherwise the next query might still come through.
    admin.execute("select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = %s", (ROLE,))


def test_the_server_refuses_a_token_that_has_expired(checked):
    """Otherwise this file would show nothing."""
    conninfo, set_token, database = checked
    token = "a-token"  # noqa: S105 - until the next token is set
    set_token(DATABASE, token)
    psycopg.connect(conninfo, password=token).close()
    with psycopg.connect(database, autocommit=True) as admin:
        expire(admin)
    for password in (token, "another"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(conninfo, password=password)


def test_each_new_connection_has_a_token_that_is_valid(request, checked, endpoint):
    """Of a user-assigned identity that the settings name."""
    conninfo, _, database = checked
    tokens = EntraTokens(lambda: default_credential("id-of-database"))
    with psycopg.connect(database, autocommit=True) as admin, create_pool(conninfo, password=tokens) as pool:
        repository = PostgreSQLRepository(pool)
        for _ in range(2):
            assert repository._execute("look", "select 1 as one", ()) == [{"one": 1}]
            expire_and_cut(endpoint, admin)
        assert repository._execute("look", "select 1 as one", ()) == [{"one": 1}]
    # One that was just being made may outlive a cut.
    assert len(endpoint.tokens) >= 2
    assert form_of(endpoint) == request.node.callspec.params["endpoint"]
    assert {asked[1:] for asked in endpoint.asked} == {(DATABASE, "id-of-database")}


def test_a_pod_without_a_client_id_in_the_settings_is_the_identity_of_its_account(request, checked, endpoint):
    conninfo, _, _ = checked
    with create_pool(conninfo, password=EntraTokens(default_credential)) as pool:
        assert PostgreSQLRepository(pool)._execute("look", "select 1 as one", ()) == [{"one": 1}]
    expected = {"imds": None, "workload": "id-of-pod"}[request.node.callspec.params["endpoint"]]
    assert {asked[2] for asked in endpoint.asked} == {expected}


def test_a_cluster_that_entra_does_not_know_is_refused_by_name(tmp_path, monkeypatch):
    endpoint = TokenEndpoint(lives_seconds=LIVES_SECONDS, assertion="another")
    (tmp_path / "assertion").write_text("secret-assertion")
    with serving(endpoint, server_context(tmp_path / "tls")) as address:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", address)
        monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "assertion"))
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "tls" / "ca.pem"))
        with pytest.raises(TokenUnavailable, match="assertion of the cluster") as refused:
            EntraTokens(lambda: default_credential("id-of-database"))()
    assert "secret-assertion" not in str(refused.value)


def test_on_a_laptop_it_is_whom_az_has_signed_in(checked, tmp_path, monkeypatch):
    conninfo, set_token, _ = checked
    token = "of-the-signed-in-user"  # noqa: S105 - until the next token is set
    set_token(DATABASE, token)
    answer = {"accessToken": token, "expires_on": int(time.time()) + 3600, "tokenType": "Bearer"}
    program = tmp_path / "az"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    # As people set it who do not want to wait until no endpoint of Azure has answered.
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")
    with create_pool(conninfo, password=EntraTokens(default_credential)) as pool:
        assert PostgreSQLRepository(pool)._execute("look", "select 1 as one", ()) == [{"one": 1}]
    asked = (tmp_path / "asked").read_text()
    assert "account get-access-token" in asked
    assert DATABASE in asked


def test_service_bus_and_storage_have_identities_of_their_own(endpoint, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    with BrokerThread(load_config(default_config_path()), tls=TlsPorts(tmp_path, 0, None)) as broker:
        address = f"sb://localhost:{broker.amqps_port}"
        options = {"connection_verify": str(tmp_path / "ca.pem"), "transport_type": TransportType.Amqp}
        queues = ServiceBusRepository(
            {"tasks": "coremachine-tasks"},
            lambda: connect_with_identity("localhost", "id-of-bus", custom_endpoint_address=address, **options),
        )
        message = TaskQueueMessage(job_id="ab" * 32, job_type="a", stage=1, task_ids=("s1-a",))
        queues.send_messages("tasks", [message])
        assert broker.counts("coremachine-tasks")["active"] == 1
        queues.close()
    assert {(resource.rstrip("/"), client_id) for _, resource, client_id in endpoint.asked} == {
        ("https://servicebus.azure.net", "id-of-bus")
    }
    # As fsspec reads FSSPEC_ABFS.
    options = {"account_name": "floods", "anon": False, "managed_identity_client_id": "id-of-storage"}
    # One of the same options would be kept, with its credential.
    monkeypatch.setitem(fsspec.config.conf, "abfs", {**options, "skip_instance_cache": True})
    system, _ = fsspec.core.url_to_fs("abfs://rasters/a.tif")
    system.sync_credential.get_token("https://storage.azure.com/.default")
    assert endpoint.asked[-1] == (form_of(endpoint), "https://storage.azure.com", "id-of-storage")


@pytest.fixture(scope="module")
def app(checked, tmp_path_factory):
    """The whole app in the Functions host, as in App Service: its identity's endpoint and a secret header.

    All secrets that an app can have are its own, or its callers'.
    """
    conninfo, set_token, database = checked
    endpoint = TokenEndpoint(lives_seconds=LIVES_SECONDS, header=SECRETS["identity header"], on_new=set_token)
    log_file = tmp_path_factory.mktemp("host") / "host.log"
    messages, send = [], Queue.send

    def keep(queue, content, **options):
        messages.append(repr(content))
        return send(queue, content, **options)

    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Queue, "send", keep)
        address = stack.enter_context(serving(endpoint))
        hook = stack.enter_context(receiver())
        broker = stack.enter_context(BrokerThread(load_config(default_config_path())))
        bus = broker.connection_string
        key = dict(part.split("=", 1) for part in bus.split(";") if part)["SharedAccessKey"]
        environment = {
            "COREMACHINE_DATABASE_URL": conninfo,
            "COREMACHINE_DATABASE_AUTH": "entra",
            "COREMACHINE_DATABASE_CLIENT_ID": "id-of-database",
            "COREMACHINE_SWEEP_SCHEDULE": "* * * * * *",
            "COREMACHINE_JOBS": "tests.integration.identity.gated_jobs:build_registry",
            "COREMACHINE_TASK_THREADS": str(TOKENS),
            "ServiceBusConnection": bus.replace(key, SECRETS["bus key"]),
            "IDENTITY_ENDPOINT": f"{address}{APP_SERVICE_PATH}",
            "IDENTITY_HEADER": SECRETS["identity header"],
            "COREMACHINE_WEBHOOK_KEY": SECRETS["webhook key"],
            "COREMACHINE_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "COREMACHINE_WEBHOOK_SECRET_TEAM": f"whsec_{SECRETS['webhook secret']}",
            "COREMACHINE_WEBHOOK_URL_TEAM": f"{hook.url}?sig={SECRETS['address']}",
            # Nobody is there.
            "COREMACHINE_WEBHOOK_URL_GONE": f"http://127.0.0.1:9/hook?sig={SECRETS['address']}",
            "COREMACHINE_ROLE_KEYS": f"admin:tester={hashlib.sha256(SECRETS['role key'].encode()).hexdigest()}",
        }
        host = HostSupervisor(ROOT, port=0, workers=1, environment=environment, log_file=log_file)
        host.start()
        stack.callback(host.stop)
        host.wait_ready(120)
        admin = stack.enter_context(psycopg.connect(database, autocommit=True))
        client = stack.enter_context(Client(host.url, key=SECRETS["function key"], role_key=SECRETS["role key"]))
        yield SimpleNamespace(
            endpoint=endpoint, client=client, admin=admin, host=host, log_file=log_file, messages=messages, hook=hook
        )


def test_one_job_runs_on_while_token_after_token_expires(app, tmp_path):
    """Each of its first tasks outlives the tokens and the connections that it began with."""
    workers = app.host.worker_pids
    secrets = {*SECRETS.values(), *write_webhooks(app.client)}
    submitted = app.client.submit_job("gated", {"folder": str(tmp_path), "gates": TOKENS})
    for number in range(TOKENS):
        wait_for((tmp_path / f"begun-{number}").exists)
        expire_and_cut(app.endpoint, app.admin)
        (tmp_path / f"open-{number}").touch()
        wait_for(lambda: completed_tasks(app.admin) == number + 1)  # noqa: B023 - called at once
    job = app.client.wait_for_job(submitted.job_id, timeout_seconds=60)
    assert job.status == "completed", job
    assert app.admin.execute("select distinct attempt, interruptions from app.tasks").fetchall() == [(1, 0)]
    assert app.host.worker_pids == workers
    assert len(app.endpoint.tokens) > TOKENS
    assert set(app.endpoint.asked) == {("app_service", DATABASE, "id-of-database")}
    delivered = [app.hook.next() for _ in range(2)]
    wait_for(lambda: attempts_to_reach_nobody(app.admin))
    records = app.log_file.read_text()
    assert "password authentication failed" not in records
    assert len(app.messages) > 6
    seen = [*answers(app.client, job), *map(repr, delivered), *app.messages, records]
    expect_no_secrets(app.admin, seen, secrets | set(app.endpoint.tokens))


def write_webhooks(client):
    """One with a secret that is made, shown here and never again; one with both in settings; one to nobody."""
    made = client.put_webhook("made", ["job.completed"], url_setting="COREMACHINE_WEBHOOK_URL_TEAM")
    settings = {"url_setting": "COREMACHINE_WEBHOOK_URL_TEAM", "secret_setting": "COREMACHINE_WEBHOOK_SECRET_TEAM"}
    client.put_webhook("team", ["job.completed"], **settings)
    client.put_webhook("gone", ["job.completed"], url_setting="COREMACHINE_WEBHOOK_URL_GONE")
    return [made.secret.removeprefix("whsec_")]


def answers(client, job):
    """What the API shows afterwards, and what the client says of itself and of a refusal."""
    found = [client.readyz(), job, client.explain_job(job.job_id), client.list_apps(), client.list_queues()]
    lists = [client.list_webhooks(), client.list_limits(), client.list_audit(), client.list_events(job.job_id)]
    lists += [client.list_deliveries(name) for name in ("made", "team", "gone")]
    texts = [repr(each) for listed in lists for each in listed] + [repr(each) for each in found]
    assert "COREMACHINE_WEBHOOK_URL_TEAM" in "".join(texts)
    with pytest.raises(NotFound) as refused:
        client.get_job("0" * 64)
    return [*texts, repr(client), str(refused.value), repr(refused.value)]


def attempts_to_reach_nobody(admin):
    query = "select 1 from app.webhook_deliveries where webhook = 'gone' and reason is not null"
    return admin.execute(query).fetchall()


def completed_tasks(admin):
    query = "select count(*) from app.tasks where status = 'completed' and stage = 1"
    return admin.execute(query).fetchone()[0]


def wait_for(is_so):
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def expect_no_secrets(admin, texts, secrets):
    """Neither in what was answered, sent and logged, nor in any row."""
    tables = admin.execute("select tablename from pg_tables where schemaname = 'app'").fetchall()
    for (table,) in tables:
        query = SQL("select coalesce(jsonb_agg(to_jsonb(t)), '[]')::text from {} t").format(Identifier("app", table))
        texts.append(admin.execute(query).fetchone()[0])
    assert sum(len(json.loads(text)) for text in texts[-len(tables) :]) > 60
    found = [(secret, text[:200]) for text in texts for secret in secrets if secret in text]
    assert found == []
