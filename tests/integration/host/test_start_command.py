"""`coremachine functions start` as a user runs it: what it shows, how it ends, how it loads an app anew."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from .conftest import wait_until

SOURCE = """
import azure.functions as func

app = func.FunctionApp()

@app.route(route="greet/{name}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def greet(req: func.HttpRequest) -> str:
    return f"hello {req.route_params['name']}"

@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *")
def yearly(timer: func.TimerRequest) -> None: ...

@app.timer_trigger(arg_name="timer", schedule="%NO_SUCH%")
def unset(timer: func.TimerRequest) -> None: ...
"""


class Command:
    """The command in a folder, and what it has written."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._log = folder.parent / "output.log"
        command = [sys.executable, "-m", "coremachine", "functions", "start", "--port", "0", *options]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str, count: int = 1) -> str:
        def is_there() -> bool:
            assert self.process.poll() is None or self.output.count(text) >= count, self.output
            return self.output.count(text) >= count

        wait_until(is_there, text, 120)
        return self.output

    @property
    def url(self) -> str:
        return re.search(r"http://127\.0\.0\.1:\d+", self.wait_for("Ctrl-C ends it"))[0]

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def app(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "host.json").write_text(
        '{"version": "2.0", "extension": {}, "extensions": {"http": {"routPrefix": "x"}}}'
    )
    (folder / "function_app.py").write_text(SOURCE)
    return folder


@pytest.fixture
def start(app):
    commands = []

    def run(folder: Path = app, *options: str) -> Command:
        commands.append(Command(folder, *options))
        return commands[-1]

    yield run
    for command in commands:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()


def test_functions_are_shown_with_their_addresses_and_loaded_anew(start, app):
    command = start(app, "--reload")
    output = command.wait_for("Ctrl-C ends it")
    url = command.url
    assert f"greet: [GET] {url}/api/greet/{{name}}" in output
    assert "yearly: timerTrigger 0 0 0 1 1 *" in output
    assert re.search(r"not run function 'unset'.*'NO_SUCH'", output)
    assert "'extensions.http.routprefix' is unknown" in output
    assert httpx.get(f"{url}/api/greet/Bob", timeout=30).text == "hello Bob"
    (app / "function_app.py").write_text("def broken(:\n")
    command.wait_for("requests get 503 until a file is saved")
    assert "SyntaxError" in httpx.get(f"{url}/api/greet/Bob", timeout=30).json()["detail"]
    (app / "function_app.py").write_text(SOURCE.replace("hello", "good day"))
    command.wait_for("Ctrl-C ends it", 2)
    assert httpx.get(f"{url}/api/greet/Bob", timeout=30).text == "good day Bob"
    assert command.interrupt() == 0


def test_app_that_cannot_be_loaded_ends_the_command_with_the_reason(start, app):
    (app / "function_app.py").write_text("import no_such_package\n")
    command = start()
    assert command.process.wait(120) == 1
    last = command.output.splitlines()[-1]
    assert "no_such_package" in last
    assert "requirements.txt" in last


def test_folder_without_an_app_is_refused_with_what_to_do(start, tmp_path):
    command = start(tmp_path / "app" / "..")
    assert command.process.wait(120) == 3
    assert "--app-dir" in command.output
