"""The scripts around a deployment, with stand-ins for Azure's commands and a real PostgreSQL."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from coremachine.local.postgres import LocalPostgres
from tests.databases import folder_of_server
from tests.integration.cli.fake_entra import ENTRA_FUNCTION

INFRA = Path(__file__).parents[3] / "infra"
SCRIPTS = sorted(INFRA.glob("*.sh"))
# What the scripts ask for. `user.type` is that of the test; azd keeps what it is given in a file.
AZ = """#!/bin/sh
case "$*" in
  "account show --query user.type"*) echo "$KIND" ;;
  "account show --query user.name"*) echo 0c4f ;;
  "ad sp show --id 0c4f --query displayName"*) echo "a pipeline" ;;
  "ad signed-in-user show --query userPrincipalName"*) echo "${SIGNED_IN-ann@example.org}" ;;
  "account get-access-token --resource-type oss-rdbms"*) echo "${TOKEN-a-token}" ;;
  *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""
AZD = '#!/bin/sh\n[ "$1 $2" = "env set" ] && echo "$3=$4" >>"$KEPT"\n'
CURL = '#!/bin/sh\necho "${ADDRESS-203.0.113.7}"\n'


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    for name, text in {"az": AZ, "azd": AZD, "curl": CURL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(script: str, commands: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{commands}:{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(commands), "KEPT": str(commands / "kept"), "KIND": "user", **variables}
    command = ["sh", str(INFRA / script)]
    return subprocess.run(
        command, check=False, env=environment, text=True, capture_output=True, timeout=60, cwd=commands
    )


def kept(commands: Path) -> list[str]:
    file = commands / "kept"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_of_the_plain_shell(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(script)], check=True)
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([checker, str(script)], check=True)


def test_the_administrator_is_whoever_deploys(commands: Path) -> None:
    assert run("before_provision.sh", commands).returncode == 0
    assert kept(commands) == [
        "AZURE_PRINCIPAL_NAME=ann@example.org",
        "AZURE_PRINCIPAL_TYPE=User",
        "MIGRATING_ADDRESS=203.0.113.7",
    ]


def test_a_pipeline_is_one_too_and_a_private_network_needs_no_address(commands: Path) -> None:
    assert run("before_provision.sh", commands, KIND="servicePrincipal", PRIVATE_NETWORK="true").returncode == 0
    assert kept(commands) == ["AZURE_PRINCIPAL_NAME=a pipeline", "AZURE_PRINCIPAL_TYPE=ServicePrincipal"]


def test_what_is_set_is_kept(commands: Path) -> None:
    done = run("before_provision.sh", commands, AZURE_PRINCIPAL_NAME="ben", MIGRATING_ADDRESS="198.51.100.1")
    assert done.returncode == 0
    assert kept(commands) == []


def test_a_principal_without_a_name_is_named(commands: Path) -> None:
    done = run("before_provision.sh", commands, SIGNED_IN="")
    assert done.returncode == 1
    assert "AZURE_PRINCIPAL_NAME: expected it from 'az ad signed-in-user show" in done.stderr
    assert kept(commands) == []


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"ADDRESS": "<html>sign in</html>"},
            "MIGRATING_ADDRESS: expected an address such as 203.0.113.7, found '<html>",
        ),
        ({"ADDRESS": "2001:db8::1"}, "MIGRATING_ADDRESS: expected an address such as 203.0.113.7, found '2001:"),
        ({"AZURE_PRINCIPAL_TYPE": "Group"}, "AZURE_PRINCIPAL_NAME: expected the name of the Group, found none"),
        ({"KIND": "robot"}, "expected a user or a servicePrincipal that is signed in, found 'robot'"),
        ({"PRIVATE_NETWORK": "yes"}, "PRIVATE_NETWORK: expected true or false, found 'yes'"),
    ],
)
def test_what_would_fail_in_azure_is_refused_before(commands: Path, variables: dict[str, str], problem: str) -> None:
    done = run("before_provision.sh", commands, **variables)
    assert done.returncode == 1
    assert problem in done.stderr
    assert not [line for line in kept(commands) if line.startswith("MIGRATING_ADDRESS")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_command_that_is_missing_is_named(commands: Path, script: Path) -> None:
    (commands / "az").unlink()
    (commands / "coremachine").write_text("#!/bin/sh\nexit 9\n")
    (commands / "coremachine").chmod(0o755)
    for name in ("cat", "sh"):
        (commands / name).symlink_to(f"/bin/{name}")
    given = {"DATABASE_HOST": "h", "DATABASE_ADMINISTRATOR": "ann", "DATABASE_ROLES": "cm-1-app"}
    done = run(script.name, commands, **given, PATH=str(commands))
    assert (done.returncode, "expected the command az, found none" in done.stderr) == (1, True)


def test_no_token_is_no_empty_password(commands: Path) -> None:
    given = {"DATABASE_HOST": "h", "DATABASE_ADMINISTRATOR": "ann", "DATABASE_ROLES": "cm-1-app", "TOKEN": ""}
    done = run("before_deploy.sh", commands, **given)
    assert done.returncode == 1
    assert "expected a token for the database from az, found none; sign in as ann" in done.stderr


def test_the_schema_is_that_of_the_apps() -> None:
    """Named for the apps in `settings` alone, they found no tables: the script had made those of `app`."""
    text = (INFRA / "main.bicep").read_text()
    assert "output COREMACHINE_SCHEMA string = settings.?COREMACHINE_SCHEMA ?? 'app'\n" in text


def test_nothing_is_migrated_before_there_is_an_environment(commands: Path) -> None:
    done = run("before_deploy.sh", commands, DATABASE_HOST="somewhere")
    assert done.returncode == 1
    assert "DATABASE_ADMINISTRATOR: expected a value of this azd environment, found none" in done.stderr


def by_hand(commands: Path, project: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """The script of a project, with stand-ins that write down what they are asked for."""
    script = commands / "azure.sh"
    for path, template in ((script, "azure.txt"), (commands / "pyproject.toml", "pyproject.txt")):
        text = (INFRA.parent / "coremachine" / "scaffold" / "templates" / template).read_text()
        path.write_text(text.replace("@project@", project).replace("@package@", project.replace("-", "_")))
    (commands / "python").symlink_to(sys.executable)
    for name in ("az", "func", "coremachine"):
        (commands / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"$KEPT"\necho x\n')
        (commands / name).chmod(0o755)
    environment = {"PATH": f"{commands}:/usr/bin:/bin", "KEPT": str(commands / "kept"), **variables}
    command = ["bash", str(script)]
    done = subprocess.run(command, check=False, env=environment, text=True, capture_output=True, timeout=60)
    return done, "\n".join(kept(commands))


def test_the_names_that_all_of_azure_shares_have_the_suffix(commands: Path) -> None:
    """It was cut from the storage account's name if the project's is long: two environments had the same one."""
    (commands / "curl").write_text('#!/bin/sh\ncase "$*" in *ipify*) echo 203.0.113.7 ;; esac\n')
    done, asked = by_hand(commands, "flood-risk-conversion-pipelines", SUFFIX="abc1")
    assert done.returncode == 0, done.stderr
    assert "storage account create --name cmabc1floodriskconversio " in asked
    assert "servicebus namespace create --name flood-risk-conversion-pipelines-abc1-bus " in asked
    assert "--public-access 203.0.113.7 " in asked
    assert "coremachine db grant flood-risk-conversion-pipelines-abc1-id --entra" in asked


@pytest.mark.parametrize(
    ("project", "variables", "problem"),
    [
        ("mine", {}, "SUFFIX: expected 1 to 8 of a-z and 0-9, found ''"),
        ("mine", {"SUFFIX": "A b"}, "SUFFIX: expected 1 to 8 of a-z and 0-9, found 'A b'"),
        ("a" * 45, {"SUFFIX": "abc1"}, "expected names of at most 50 characters"),
        ("mine", {"SUFFIX": "abc1", "MY_ADDRESS": "<html>"}, "MY_ADDRESS: expected this machine's, found '<html>'"),
    ],
)
def test_by_hand_nothing_is_made_with_names_that_azure_refuses(
    commands: Path, project: str, variables: dict[str, str], problem: str
) -> None:
    done, asked = by_hand(commands, project, **variables)
    assert (done.returncode, asked) == (1, "")
    assert problem in done.stderr


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with folder_of_server() as folder, LocalPostgres(folder, keep=False) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute('create role "ann@example.org" login superuser')
            connection.execute(ENTRA_FUNCTION)
            connection.execute("create database coremachine")
        yield url


def test_the_database_is_migrated_and_each_app_gets_its_rights(commands: Path, server: str) -> None:
    """By a token, as the administrator; again before each deployment, whatever settings of ours there are."""
    variables = {
        "DATABASE_HOST": str(conninfo_to_dict(server)["host"]),
        "DATABASE_ADMINISTRATOR": "ann@example.org",
        "DATABASE_ROLES": "cm-1-app cm-1-heavy",
        "PGSSLMODE": "disable",
        "COREMACHINE_DATABASE_AUTH": "entra",
        "COREMACHINE_SCHEMA": "flood",
    }
    for _ in range(2):
        done = run("before_deploy.sh", commands, **variables)
        assert done.returncode == 0, done.stderr
        assert "a-token" not in done.stdout + done.stderr
    for role in ("cm-1-app", "cm-1-heavy"):
        with psycopg.connect(make_conninfo(server, dbname="coremachine", user=role)) as app:
            assert app.execute("select count(*) from flood.jobs").fetchone() == (0,)


def test_a_refused_migration_stops_the_deployment(commands: Path) -> None:
    variables = {"DATABASE_HOST": "/nowhere", "DATABASE_ADMINISTRATOR": "ann", "DATABASE_ROLES": "cm-1-app"}
    done = run("before_deploy.sh", commands, **variables)
    assert done.returncode != 0
    assert "/nowhere" in done.stderr
