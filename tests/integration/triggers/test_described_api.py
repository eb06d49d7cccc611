"""The description holds: generated requests, valid and not, alone and in sequences, against the app in its host.

No answer is a 5xx, has a status, a header or a type that the description lacks, or a body that does not fit its schema.
"""

import subprocess
import sys
from pathlib import Path

import httpx

from .test_running_app import database_url, http, ready  # noqa: F401 - fixtures

CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_every_answer_is_as_described(ready: httpx.Client, tmp_path: Path) -> None:  # noqa: F811
    for number in range(1, 4):
        sent = ready.post("/api/jobs/submit/hello_world", json={"n": number}, headers={"Prefer": "wait=20"})
        assert sent.json()["job"]["status"] == "completed"
    # Paused: it is there to be asked about, and nothing is sent. None is made by what is drawn, for want of a key.
    webhook = {"url": "http://127.0.0.1:9/", "events": ["job.completed"], "paused": True}
    webhook |= {"secret_setting": "COREMACHINE_WEBHOOK_SECRET_TESTS"}
    ready.put("/api/webhooks/described", json=webhook).raise_for_status()
    ready.post("/api/webhooks/described/test").raise_for_status()
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run"]
    done = subprocess.run(
        [*command, str(ready.base_url.join("/api/openapi.json")), "--no-color"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
