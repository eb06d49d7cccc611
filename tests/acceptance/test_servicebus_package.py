"""The broker as a package of its own: built from the checkout, and used where nothing of the checkout is."""

import subprocess
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from core.basics.version import VERSION
from tests.acceptance.installed import build_wheel, install
from tests.acceptance.steps import PROJECT_ROOT

pytestmark = pytest.mark.acceptance

CONFIG = '{"UserConfig": {"Namespaces": [{"Name": "mine", "Queues": [{"Name": "orders"}]}]}}'
TEST = """
import importlib.util
import sys

# Before the SDK brings its own.
HEAVY = {"azure", "cryptography", "fastapi", "psycopg", "sqlite3", "typer"} & set(sys.modules)

from azure.servicebus import ServiceBusClient, ServiceBusMessage

from coremachine_servicebus import BrokerThread


def test_a_message_comes_back_when_its_lock_has_ended(servicebus):
    with ServiceBusClient.from_connection_string(servicebus.connection_string, retry_total=0) as client:
        with client.get_queue_sender("orders", keep_alive=0) as sender:
            sender.send_messages(ServiceBusMessage("one"))
        with client.get_queue_receiver("orders", keep_alive=0) as receiver:
            assert [str(each) for each in receiver.receive_messages(1, max_wait_time=10)] == ["one"]
            servicebus.turn_clock(61)
            [again] = receiver.receive_messages(1, max_wait_time=10)
            assert again.delivery_count == 1


def test_the_next_test_finds_no_message(servicebus):
    assert isinstance(servicebus, BrokerThread)
    assert servicebus.counts("orders")["locked"] == 0


def test_it_stands_alone():
    assert not HEAVY
    assert importlib.util.find_spec("coremachine") is None
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"), PROJECT_ROOT / "packages" / "servicebus")


def test_the_package_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        folder = f"coremachine_servicebus-{VERSION}.dist-info"
        metadata = message_from_bytes(archive.read(f"{folder}/METADATA"))
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"coremachine_servicebus", folder}
    assert {"coremachine_servicebus/Config.json", "coremachine_servicebus/py.typed"} <= set(names)
    assert metadata.get_all("Requires-Dist") == ["pydantic<3,>=2.12", 'cryptography>=42; extra == "tls"']
    assert "coremachine-servicebus = coremachine_servicebus.__main__:main" in entry_points
    assert "coremachine_servicebus = coremachine_servicebus.pytest_plugin" in entry_points


def test_its_fixture_and_its_command_work_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    installed = install(wheel, tmp_path / "venv")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "Config.json").write_text(CONFIG)
    (folder / "pytest.ini").write_text("[pytest]\nservicebus_config = Config.json\n")
    (folder / "test_orders.py").write_text(TEST)
    # The plugins of the packages that it borrows are not its own.
    options = ["-q", "-p", "no:cacheprovider", "-p", "coremachine_servicebus.pytest_plugin"]
    done = installed.run_tool("pytest", *options, cwd=folder, code=None, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    command = [str(installed.folder / "bin" / "coremachine-servicebus"), "--amqp-port", "0", "--admin-port", "0"]
    with subprocess.Popen(
        [*command, "--config", "Config.json", "--exit-with-parent"],
        cwd=folder,
        env=installed.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Endpoint=sb://localhost:")
        process.communicate(timeout=30)
    assert process.returncode == 0
