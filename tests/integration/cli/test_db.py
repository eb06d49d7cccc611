"""`coremachine db` on a real database."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from coremachine.cli.errors import Exit
from coremachine.cli.main import main
from tests.databases import empty_database


@pytest.fixture
def url(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with empty_database(postgres_url, request.node.name) as url:
        yield url


@pytest.mark.parametrize("address", ["garbage", "postgresql://\udcff", "postgresql://a:secret@[::1/x", "host"])
def test_address_that_cannot_be_read_is_not_repeated(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "status", "--database-url", address]) == 2
    told = capsys.readouterr().err
    assert told.strip().endswith("found one that cannot be read; see --database-url")


def test_status_then_migrate_then_status(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "status", "--database-url", url, "-o", "json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert before["database_version"] == 0
    assert before["pending"]
    assert not before["is_current"]
    assert main(["db", "migrate", "--database-url", url, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["applied"]
    assert main(["db", "status", "--database-url", url, "-o", "table"]) == 0
    assert "up to date" in capsys.readouterr().out
    assert main(["db", "migrate", "--database-url", url, "-o", "table"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_plan_is_sql_that_can_be_run_by_hand(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "migrate", "--plan", "--database-url", url]) == 0
    plan = capsys.readouterr().out
    with psycopg.connect(url) as connection:
        connection.execute(plan)  # type: ignore[arg-type]
    assert main(["db", "status", "--database-url", url, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_current"]


def test_schema_that_no_migration_made_is_a_conflict(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("create schema app")
        connection.execute("create table app.jobs (id int)")
    assert main(["db", "migrate", "--database-url", url]) == 4
    assert "schema_versions" in capsys.readouterr().err


def test_no_database_says_where_one_would_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COREMACHINE_DATABASE_URL", raising=False)
    assert main(["db", "status"]) == 6
    assert "coremachine up" in capsys.readouterr().err


def test_verify_says_which_invariants_are_broken(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "migrate", "--database-url", url, "-o", "json"]) == 0
    capsys.readouterr()
    assert main(["db", "verify", "--database-url", url, "-o", "json"]) == 0
    clean = json.loads(capsys.readouterr().out)
    assert clean["checked"] > 20
    assert clean["violations"] == []

    with psycopg.connect(url) as connection:
        connection.execute(
            "insert into app.jobs (job_id, job_type, status, total_stages, definition, correlation_id)"
            " values (repeat('ab', 32), 't', 'failed', 1, '{\"stages\": [1]}', 'c')"
        )
    assert main(["db", "verify", "--database-url", url, "-o", "json"]) == 1
    broken = {each["invariant"]: each for each in json.loads(capsys.readouterr().out)["violations"]}
    assert broken["i3_ended_job_is_over"]["rows"] == [
        {"job_id": "ab" * 32, "run": 1, "status": "failed", "finished_at": None}
    ]
    assert main(["db", "verify", "--database-url", url, "-o", "table"]) == 1
    shown = capsys.readouterr().out
    assert "I3: an ended job has an end time" in " ".join(shown.split())
    assert f"{clean['checked'] - len(broken)} of {clean['checked']} invariants hold" in shown


def test_verify_of_an_empty_database_says_that_it_has_no_tables(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "verify", "--database-url", url]) == 4
    assert "verify" in capsys.readouterr().err


def test_database_that_cannot_hold_every_text_is_refused_with_what_to_do(
    postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with empty_database(postgres_url, "d_latin1", "encoding 'LATIN1' template template0") as url:
        for command in ("status", "migrate"):
            assert main(["db", command, "--database-url", url]) == Exit.CONFLICT
            told = " ".join(capsys.readouterr().err.split())
            assert "expected a database with encoding UTF8, found LATIN1" in told
            assert "template template0" in told
            assert "running?" not in told


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"dbname": "no_such"}, 'database "no_such" does not exist'),
        ({"user": "nobody_here"}, 'role "nobody_here" does not exist'),
    ],
)
def test_connection_that_is_refused_is_told_at_once_and_alone(
    postgres_url: str,
    wrong: dict[str, str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for command in ("status", "migrate"):
        assert main(["db", command, "--database-url", make_conninfo(postgres_url, **wrong)]) == Exit.UNREACHABLE
        shown = " ".join(capsys.readouterr().err.split())
        assert told in shown
        assert "running?" not in shown
    assert [record for record in caplog.records if record.name.startswith("psycopg")] == []


def test_connection_string_that_cannot_be_read_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "status", "--database-url", "host=x hunter2"]) == Exit.USAGE
    shown = capsys.readouterr().err
    assert "libpq connection string" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize("name", ["App", "1a", "a" * 64, "a b", "a\n", 'a"; drop'])
def test_schema_that_settings_would_not_take_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "status", "--schema", name]) == Exit.USAGE
    assert "lower-case PostgreSQL name" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_database_that_refuses_writes_is_told_by_status_and_migrate(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    read_only = make_conninfo(url, options="-c default_transaction_read_only=on")
    assert main(["db", "migrate", "--database-url", read_only]) == Exit.CONFLICT
    assert "default_transaction_read_only = on" in capsys.readouterr().err
    assert main(["db", "migrate", "--database-url", url]) == 0
    assert main(["db", "migrate", "--database-url", read_only]) == Exit.CONFLICT
    assert "every write is refused" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["db", "status", "--database-url", read_only, "-o", "json"]) == 0
    assert "disk is full" in json.loads(capsys.readouterr().out)["refuses_writes"]
    assert main(["db", "status", "--database-url", read_only, "-o", "table"]) == 0
    assert "every write is refused" in capsys.readouterr().out


def test_rules_and_triggers_of_others_are_named_by_status(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "migrate", "--database-url", url]) == 0
    capsys.readouterr()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create rule keep as on update to app.tasks do instead nothing")
        connection.execute("create function nothing() returns trigger language plpgsql as 'begin return null; end'")
        connection.execute("create trigger keep before insert on app.jobs for each row execute function nothing()")
        connection.execute("alter table app.tasks disable trigger free_places")
        connection.execute("alter table app.stages disable trigger all")
    assert main(["db", "status", "--database-url", url, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "found rule keep on app.tasks; run: drop rule keep on app.tasks" in found["refused_rules"]
    assert "alter table app.jobs disable trigger keep" in found["doubtful_triggers"]
    for disabled in (
        "tasks enable trigger free_places",
        "stages enable trigger set_deadlines",
        "stages enable trigger all",
    ):
        assert f"alter table app.{disabled}" in found["doubtful_triggers"]
    assert found["prepared_transactions"] is None
    assert main(["db", "status", "--database-url", url, "-o", "table"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "jobs would not move: expected tables without rules" in shown
    assert "may leave changes or checks out: found trigger keep before each row of app.jobs" in shown


def test_without_a_token_a_person_reads_why(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was the traceback of the library that signs in."""

    def refuse(_client_id: str | None) -> None:
        raise RuntimeError("the endpoint answered 500")

    monkeypatch.setenv("COREMACHINE_DATABASE_AUTH", "entra")
    monkeypatch.setattr("infrastructure.entra.default_credential", refuse)
    assert main(["db", "status", "--database-url", url]) == Exit.UNREACHABLE
    told = capsys.readouterr().err
    assert "expected a token of Entra ID" in told
    assert "the endpoint answered 500" in told


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"COREMACHINE_DATABASE_AUTH": "entre"}, "expected password or entra, found 'entre'"),
        (
            {"COREMACHINE_DATABASE_AUTH": "entra"},
            "expected no password in it, since COREMACHINE_DATABASE_AUTH is entra",
        ),
        ({"COREMACHINE_DATABASE_CLIENT_ID": "1111"}, "expected COREMACHINE_DATABASE_AUTH to be entra with it"),
    ],
)
def test_identity_that_the_app_would_not_take_is_refused(
    given: dict[str, str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anything but `entra` was taken as a password, in silence."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["db", "status", "--database-url", "postgresql://me:hunter2@127.0.0.1:1/x"]) == Exit.USAGE
    told = " ".join(capsys.readouterr().err.split())
    assert shown in told
    assert "hunter2" not in told
