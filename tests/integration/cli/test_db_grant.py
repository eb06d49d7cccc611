"""`coremachine db grant`: an app's role can do an app's work, and nothing to the schema."""

import json
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from coremachine.cli.db import open_pool
from coremachine.cli.errors import Exit
from coremachine.cli.main import main
from coremachine.local.postgres import LocalPostgres
from infrastructure.base import PreconditionFailed
from infrastructure.grants import GrantRepository
from tests.databases import folder_of_server
from tests.integration.cli.fake_entra import ENTRA_FUNCTION


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with folder_of_server() as folder, LocalPostgres(folder, keep=False) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ENTRA_FUNCTION)
            connection.execute("create database coremachine")
        yield url


@pytest.fixture
def url(server_url: str) -> str:
    return make_conninfo(server_url, dbname="coremachine")


def test_a_role_or_a_schema_that_is_not_there_is_named(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "grant", "my-app", "--database-url", url]) == Exit.CONFLICT
    assert "expected a role 'my-app', found none; make it, or give --entra" in capsys.readouterr().err
    assert main(["db", "grant", "postgres", "--schema", "nowhere", "--database-url", url]) == Exit.CONFLICT
    assert "expected a schema 'nowhere', found none; run `coremachine db migrate`" in capsys.readouterr().err


def test_an_identity_gets_a_role_that_can_work_and_not_change_the_schema(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also on what a later migration makes; twice is as once."""
    assert main(["db", "migrate", "--database-url", url]) == 0
    capsys.readouterr()
    for is_made in (True, False):
        assert main(["db", "grant", 'my-"app', "--entra", "--database-url", url, "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"role": 'my-"app', "made": is_made, "schema": "app"}
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("create table app.later (id int)")
    with psycopg.connect(make_conninfo(url, user='my-"app'), autocommit=True) as app:
        app.execute("select count(*) from app.jobs")
        app.execute("delete from app.jobs")
        app.execute("select app.check_job_completion('0')")
        app.execute("insert into app.later values (1)")
        for statement in ("drop table app.later", "alter table app.jobs add a int", "create table app.mine (a int)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(statement)


def test_the_server_s_refusal_is_shown(server_url: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An administrator of another kind may not make roles of Entra ID."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("create role nobody login")
    other = make_conninfo(url, user="nobody")
    assert main(["db", "grant", "another", "--entra", "--database-url", other]) == Exit.CONFLICT
    assert "permission denied to create role" in capsys.readouterr().err


def test_a_server_that_is_not_azure_s_is_named(url: str) -> None:
    """The function is in the database `postgres` alone."""
    expected = "a server of Azure with Microsoft Entra authentication.*make the role 'another'.*leave --entra out"
    with open_pool(url) as pool, pytest.raises(PreconditionFailed, match=expected) as caught:
        GrantRepository(pool).make_entra_role("another")
    assert "migrate" not in str(caught.value)
