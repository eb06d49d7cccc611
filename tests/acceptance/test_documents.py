"""The documents' commands on a real stack: the tutorial as it is written, and the other pages' commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from coremachine.cli.main import main
from coremachine.local.stack import LocalStack
from tests.acceptance.steps import PROJECT_ROOT
from tests.documents import Block, blocks, commands, commands_of

pytestmark = pytest.mark.acceptance

TUTORIAL = [block for block in blocks() if block.path.name == "first-job.md"]
# The beginning of a job's id, as pages write it.
JOB_ID = r"\b(?:72aff3\w*|3f2a9c|JOB_ID|JOB)\b"
# They only look.
LOOKS = (
    "dead list",
    "db status",
    "db verify",
    "events",
    "explain",
    "failures",
    "job-types",
    "list",
    "runs",
    "status",
    "tasks",
)
LEAST_COMMANDS = 15


def stack_with(folder: Path, **settings: str) -> LocalStack:
    path = os.pathsep.join([str(folder), str(PROJECT_ROOT)])
    environment = {"COREMACHINE_SWEEP_SCHEDULE": "* * * * * *", "PYTHONPATH": path, **settings}
    ports = {"http_port": 0, "amqp_port": 0, "admin_port": 0}
    return LocalStack(folder / "stack", workers=1, environment=environment, **ports)


def run(script: str, folder: Path, stack: LocalStack) -> subprocess.CompletedProcess[str]:
    """A block's commands in a shell, as a reader with the environment at hand types them."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {"PATH": path, "COREMACHINE_URL": stack.url, "COREMACHINE_DATABASE_URL": stack.info.database_url}
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env={**os.environ, **given},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def typed(folder: Path, stack: LocalStack, monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """Runs a command as `run` does, without a process of its own: each would import everything anew, in a second."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COREMACHINE_URL", stack.url)
    monkeypatch.setenv("COREMACHINE_DATABASE_URL", stack.info.database_url)

    def run_words(words: Iterable[str]) -> tuple[int, str, str]:
        program, *arguments = words
        assert program == "coremachine"
        capfd.readouterr()
        status = main(arguments)
        return status, *capfd.readouterr()

    return run_words


def test_the_tutorial_does_what_it_shows(tmp_path):
    """Each block of commands, in order; where the page shows a job's result behind it, that is what comes out."""
    (job,) = (block for block in TUTORIAL if "class WordCountJob" in block.text)
    (tmp_path / "first_job.py").write_text(job.text, encoding="utf-8")
    job_id, checked = "", 0
    with stack_with(tmp_path, COREMACHINE_JOBS="first_job:build_registry") as stack:
        for block, shown in with_output():
            script = re.sub(JOB_ID, job_id, block.text.replace("source .venv/bin/activate\n", ""))
            done = run(script, tmp_path, stack)
            assert done.returncode == (1 if " failed ·" in shown else 0), f"{block}: {done.stdout}{done.stderr}"
            found = re.search(r'"job_id": "(\w{64})"', done.stdout)
            job_id = job_id or (found[1] if found else "")
            for result in re.findall(r"^result (\{.*\})$", shown, re.MULTILINE):
                assert json.loads(done.stdout)["result"] == json.loads(result), str(block)
                checked += 1
    assert checked >= 2


def with_output() -> Iterator[tuple[Block, str]]:
    """The tutorial's blocks of commands for the running stack, each with the block behind it that shows what comes."""
    for block, following in zip(TUTORIAL, [*TUTORIAL[1:], None], strict=True):
        typed = list(commands_of(block.text))
        is_for_stack = typed and all(words[0] == "coremachine" and words[1] != "up" for words in typed)
        if not block.language and is_for_stack:
            is_output = following is not None and not following.language and not list(commands_of(following.text))
            yield block, following.text if following is not None and is_output else ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def stack(folder) -> Iterator[LocalStack]:
    with stack_with(folder) as running:
        yield running


@pytest.fixture(scope="module")
def job_id(folder, stack) -> str:
    done = run("coremachine submit hello_world -p n=5 --wait --strict", folder, stack)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["job_id"])


def test_commands_that_look_work_as_written(typed, job_id):
    """`explain`, `tasks`, `db verify` and the others of all pages, about a job that is there."""
    looking = {command.words for command in commands() if " ".join(command.words[1:]).startswith(LOOKS)}
    lines = {tuple(re.sub(JOB_ID, job_id, word) for word in words) for words in looking}
    needs_job = {"events", "explain", "failures", "runs", "status", "tasks"}
    lines = {words for words in lines if words[1] not in needs_job or job_id in words}
    assert len(lines) >= LEAST_COMMANDS
    for words in sorted(lines):
        status, shown, said = typed(words)
        assert status == 0, f"{words}: {shown}{said}"


def test_submissions_work_as_written(typed, folder):
    (folder / "parameters.json").write_text('{"n": 6}', encoding="utf-8")
    submissions = {command.words for command in commands() if command.words[1:3] == ("submit", "hello_world")}
    assert len(submissions) > 3
    for words in sorted(submissions):
        status, shown, said = typed(words)
        assert status == 0, f"{words}: {shown}{said}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_requests_with_curl_work_as_written(folder, stack):
    plain = [block for block in blocks() if not (block.language or block.reason)]
    asked = [block for block in plain if "curl" in block.text and "127.0.0.1" in block.text]
    assert asked
    for block in asked:
        script = block.text.replace("http://127.0.0.1:7071", stack.url).replace(
            "curl ", "curl --fail --silent --show-error "
        )
        done = run(script, folder, stack)
        assert done.returncode == 0, f"{block}: {done.stderr}"
        answer = json.loads(done.stdout)
        assert answer.get("job_id") or answer.get("name") or "value" in answer, block
