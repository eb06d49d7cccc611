"""The whole host on small apps: HTTP, ASGI, timers, timeouts, restarts, shutdown."""

import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from coremachine.local.host import supervisor
from coremachine.local.host.errors import HostStartError
from coremachine.local.host.protocol import EXIT_NOT_SPARE
from coremachine.local.host.supervisor import HostSupervisor

from .conftest import NO_BROKER, SETTINGS, wait_until


def client(host: HostSupervisor) -> httpx.Client:
    return httpx.Client(base_url=host.url, timeout=20)


def test_http_function_sees_the_request_and_shapes_the_response(shared_host):
    host = shared_host().supervisor
    with client(host) as http:
        headers = {"X-Test": "v", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        response = http.post("/API/Echo/Bob?x=1&x=2&empty=", content=b"hi", headers=headers)
        assert response.status_code == 202
        assert response.headers["content-type"] == "application/json"
        assert response.cookies["a"] == "1"
        assert response.json() == {
            "body": "hi",
            "function": "echo",
            "header": "v",
            "method": "POST",
            "params": {"x": "1,2"},
            "route": {"name": "Bob", "count": "3"},
            "thread_has_id": True,
            "trace": "00-0af7651916cd43dd8448eb211c80319c",
            "url": f"{host.url}/API/Echo/Bob?x=1&x=2&empty=",
        }
        assert http.get("/api/echo/Bob").status_code == 404
        assert http.post("/api/echo/Bob7").status_code == 404
        text = http.get("/api/text")
        assert (text.status_code, text.text) == (200, "plain")
        assert text.headers["content-type"] == "text/plain; charset=utf-8"


def test_failing_function_answers_500_and_the_log_has_the_traceback(shared_host):
    host = shared_host()
    with client(host.supervisor) as http:
        response = http.get("/api/boom")
    assert (response.status_code, response.json()["code"]) == (500, "function_failed")
    # The answer does not wait for the log.
    log = wait_until(lambda: "raise RuntimeError" in (text := host.log) and text, "the traceback", 30)
    assert "[worker 0]" in log
    assert "RuntimeError: this handler always fails" in log
    assert 'in boom\n        raise RuntimeError("this handler always fails")' in log


def test_function_with_a_missing_setting_is_named_and_the_others_run(shared_host):
    host = shared_host()
    with client(host.supervisor) as http:
        status = http.get("/admin/host/status").json()
        names = [function["name"] for function in http.get("/admin/functions").json()]
        assert http.get("/admin/functions/nosuch").status_code == 404
    assert status["state"] == "Running"
    assert "'unscheduled'" in status["errors"][0]
    assert "'NO_SUCH_SETTING'" in status["errors"][0]
    assert names == ["echo", "text", "admin_only", "boom", "pid", "sleep", "tick", "on_message", "on_dead_letter"]
    assert "'NO_SUCH_SETTING'" in host.log_file.read_text()


def test_functions_are_run_by_hand(shared_host):
    host = shared_host()
    ticks = len(host.sample_log.wait_for("tick"))
    with client(host.supervisor) as http:
        assert http.post("/admin/functions/tick", json={}).status_code == 202
        assert http.post("/admin/functions/on_message", json={"input": "by hand"}).status_code == 202
        assert http.post("/admin/functions/on_message", json={"input": 7}).status_code == 400
        assert http.post("/admin/functions/switched_off", json={}).status_code == 404
    host.sample_log.wait_for("tick", ticks + 1)
    assert host.sample_log.wait_for("message")[0]["body"] == "by hand"


def test_keys_are_asked_for_when_authorization_is_on(start_host):
    host = start_host(enable_auth=True, settings={"LOCAL_HOST_MASTER_KEY": "mk", "LOCAL_HOST_FUNCTION_KEY": "fk"})
    with client(host) as http:
        refused = http.get("/api/text")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert http.get("/api/text?code=fk").status_code == 200
        assert http.get("/api/text", headers={"x-functions-key": "fk"}).status_code == 200
        assert http.get("/api/admin-only?code=fk").status_code == 401
        assert http.get("/api/admin-only?code=mk").status_code == 200
        assert http.post("/api/echo/Bob").status_code == 202
        assert http.get("/admin/host/status").status_code == 401
        assert http.get("/admin/host/status?code=mk").status_code == 200
        assert http.get("/admin/host/keys?code=fk").status_code == 401
        key = http.get("/admin/functions/TEXT/keys?code=mk").json()["keys"][0]["value"]
        assert http.get(f"/api/text?code={key}").status_code == 200
        assert http.get("/admin/functions/nothing/keys?code=mk").status_code == 404
        assert http.put("/admin/host/keys/default?code=mk", json={"value": "new"}).status_code == 200
        assert [http.get(f"/api/text?code={each}").status_code for each in ("fk", "new")] == [401, 200]


def test_more_requests_than_allowed_are_told_to_come_again(start_host, sample_log):
    host = start_host(settings={"AzureFunctionsJobHost__extensions__http__maxOutstandingRequests": "1"})
    with client(host) as http:
        first = threading.Thread(target=lambda: httpx.post(f"{host.url}/api/sleep/2", timeout=20))
        first.start()
        sample_log.wait_for("sleeping")
        refused = http.get("/api/text")
        first.join()
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert refused.headers["retry-after"] == "1"
        assert http.get("/api/text").status_code == 200


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/broken-name", "response_cannot_be_sent path=/broken-name"),
        ("/broken-status", "response_cannot_be_sent path=/broken-status"),
        ("/broken-header", "Header values must not contain newline characters"),
    ],
)
def test_answer_that_cannot_be_sent_is_500_and_said_in_the_log(shared_host, path, said):
    host = shared_host("asgi_app")
    with client(host.supervisor) as http:
        refused = http.get(path)
    assert (refused.status_code, refused.json()["code"]) == (500, "function_failed")
    assert said in host.log


def test_text_that_is_no_unicode_is_500_and_said_in_the_log(shared_host):
    host = shared_host("rough_app")
    with client(host.supervisor) as http:
        refused = http.post("/api/half-a-pair")
    assert (refused.status_code, refused.json()["code"]) == (500, "function_failed")
    assert "response_cannot_be_sent path=/api/half-a-pair" in host.log


def test_host_that_is_open_to_the_network_says_so(start_host, monkeypatch, caplog):
    monkeypatch.setattr("coremachine.local.host.supervisor.is_loopback_address", lambda _address: False)
    start_host("asgi_app")
    assert any("host_open_to_network" in message and "--enable-auth" in message for message in caplog.messages)


def test_asgi_application_is_served_below_an_empty_prefix(start_host):
    host = start_host("asgi_app", workers=2)
    with client(host) as http:
        assert http.get("/items/7?q=x").json() == {"item_id": 7, "q": "x"}
        assert http.get("/items/seven").status_code == 422
        assert http.get("/nowhere").status_code == 404
        created = http.post("/items", json={"a": 1})
        assert (created.status_code, created.json()) == (201, {"received": {"a": 1}, "path": "/items"})


def test_timers_fire_in_one_worker_and_on_startup_once(start_host, sample_log):
    host = start_host(workers=2, settings={"TICK_SCHEDULE": "* * * * * *"})
    records = sample_log.wait_for("tick", 4)
    assert len({record["pid"] for record in records}) == 1
    assert records[0]["pid"] in host.worker_pids


def test_timers_move_to_another_worker_when_theirs_dies(start_host, sample_log):
    host = start_host(workers=2, settings={"TICK_SCHEDULE": "* * * * * *"})
    leader = sample_log.wait_for("tick")[0]["pid"]
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: sample_log.records("tick")[-1]["pid"] != leader, "a tick in another worker")
    wait_until(lambda: len(host.worker_pids) == 2 and leader not in host.worker_pids, "the dead worker replaced")


def test_run_on_startup_does_not_repeat_when_a_worker_is_replaced(start_host, sample_log, tmp_path):
    """The new one makes the app ready before it receives: messages waited in it while it imported the engine."""
    host = start_host(warm_up="function_app:warm_up")
    leader = sample_log.wait_for("tick")[0]["pid"]
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: host.worker_pids not in ([], [leader]), "the worker replaced")
    wait_until(lambda: (tmp_path / "host.log").read_text().count("timers_started") == 2, "a new leader")
    assert len(sample_log.records("tick")) == 1
    assert [record["pid"] for record in sample_log.records("warm")] == host.worker_pids


def test_timer_that_was_missed_fires_at_once_as_past_due(start_host, sample_log, tmp_path):
    status = '{"Last": "2026-01-01T00:00:00+00:00", "Next": "2026-01-01T01:00:00+00:00", "LastUpdated": ""}'
    (tmp_path / "state" / "timers").mkdir(parents=True)
    (tmp_path / "state" / "timers" / "tick.json").write_text(status)
    start_host(state_dir=tmp_path / "state")
    assert sample_log.wait_for("tick")[0]["past_due"] is True


def test_worker_with_an_overdue_function_is_replaced(start_host, tmp_path):
    host = start_host(settings={"AzureFunctionsJobHost__functionTimeout": "00:00:02"})
    before = host.worker_pids
    with client(host) as http:
        assert http.post("/api/sleep/60").status_code == 500
        # The socket outlives the worker: the next request waits for the new one.
        assert int(http.get("/api/pid").text) not in before
    assert "function_timeout function=sleep" in (tmp_path / "host.log").read_text()


def test_stop_lets_a_request_finish(start_host, sample_log):
    host = start_host()
    answers = []
    with client(host) as http:
        request = threading.Thread(target=lambda: answers.append(http.post("/api/sleep/0.7").text))
        request.start()
        sample_log.wait_for("sleeping")
        host.stop()
        request.join()
    assert answers == ["slept"]
    assert host.worker_pids == []


def test_stop_gives_up_what_outlasts_the_grace_period(start_host, sample_log, tmp_path):
    settings = {"AzureFunctionsJobHost__functionTimeout": "-1"}
    host = start_host(grace_seconds=0.5, settings=settings)
    answers = []
    with client(host) as http:
        request = threading.Thread(target=lambda: answers.append(http.post("/api/sleep/60").status_code))
        request.start()
        sample_log.wait_for("sleeping")
        host.stop()
        request.join()
    assert answers == [500]
    assert "grace_period_over in_flight=1" in (tmp_path / "host.log").read_text()


def test_workers_are_replaced_by_new_ones(start_host, sample_log, tmp_path):
    """What runs for longer than the grace is given up; the timers go to a new worker; nobody is left."""
    settings = {"TICK_SCHEDULE": "* * * * * *", "AzureFunctionsJobHost__functionTimeout": "-1"}
    host = start_host(workers=2, settings=settings)
    sample_log.wait_for("tick")
    before = host.worker_pids
    # A handler that ended the group of a program that it had started ended the host, and again after each start.
    assert [os.getpgid(pid) for pid in before] == before
    answers = []
    with client(host) as http:
        request = threading.Thread(target=lambda: answers.append(http.post("/api/sleep/60").status_code))
        request.start()
        sample_log.wait_for("sleeping")
        host.replace_workers(0.2)
        host.wait_ready(120)
        request.join()
        assert int(http.get("/api/pid").text) in host.worker_pids
    assert answers == [500]
    assert set(before).isdisjoint(host.worker_pids)
    wait_until(lambda: sample_log.records("tick")[-1]["pid"] in host.worker_pids, "a tick in a new worker")
    host.stop()
    assert not any(psutil.pid_exists(pid) for pid in before)
    assert "worker_died" not in (tmp_path / "host.log").read_text()


def test_a_worker_that_could_not_load_the_app_is_replaced_at_once(start_host, tmp_path):
    app = tmp_path / "app"
    shutil.copytree(Path(__file__).parent / "sample_app", app)
    good = (app / "function_app.py").read_text()
    host = start_host(str(app))
    (app / "function_app.py").write_text(good + "\ndef broken(:\n")
    host.replace_workers(0.2)
    with pytest.raises(HostStartError, match="SyntaxError"):
        host.wait_ready(120)
    (broken,) = host.worker_pids
    with client(host) as http:
        assert "SyntaxError" in http.get("/api/text").json()["detail"]
    assert host.worker_pids == [broken]  # not started again and again
    (app / "function_app.py").write_text(good)
    before = children()
    host.fill_spares(("colorsys",))
    (spare,) = children() - before
    host.replace_workers(0.2)
    host.wait_ready(120)
    assert host.worker_pids == [spare]


def test_a_spare_worker_that_has_the_user_s_files_is_not_taken(start_host, tmp_path, caplog):
    """It would run the app as it was when it was imported."""
    app = tmp_path / "app"
    shutil.copytree(Path(__file__).parent / "sample_app", app)
    (app / "mine.py").touch()
    host = start_host(str(app))
    before = children()
    host.fill_spares(("mine",))
    (spare,) = children() - before
    wait_until(lambda: psutil.Process(spare).status() == psutil.STATUS_ZOMBIE, "the spare worker ended")
    with caplog.at_level(logging.INFO, "coremachine.local.host"):
        host.replace_workers(0.2)
        host.wait_ready(120)
    assert spare not in host.worker_pids
    assert f"spare_worker_ended exit_status={EXIT_NOT_SPARE}" in caplog.text
    known = children()
    host.fill_spares(("mine",))
    assert children() <= known


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_worker_ends_with_its_supervisor(tmp_path, sample_log):
    """A supervisor that is killed cannot stop its workers: they notice by themselves."""
    command = [
        sys.executable,
        "-m",
        "coremachine.local.host",
        "--app-dir",
        str(Path(__file__).parent / "sample_app"),
        "--port",
        "0",
    ]
    environment = {**os.environ, **SETTINGS, "SAMPLE_LOG": str(sample_log.path), "ServiceBusConnection": NO_BROKER}
    with (tmp_path / "out.log").open("wb") as output:
        host = subprocess.Popen([*command, "--workers", "1"], env=environment, stdout=output, stderr=output)
    worker = sample_log.wait_for("tick")[0]["pid"]
    host.kill()
    host.wait()

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    wait_until(is_gone, "the worker gone")


def test_interrupt_stops_the_command_cleanly(tmp_path, sample_log):
    command = [
        sys.executable,
        "-m",
        "coremachine.local.host",
        "--app-dir",
        str(Path(__file__).parent / "sample_app"),
        "--port",
        "0",
        "--verbose",
    ]
    environment = {**os.environ, **SETTINGS, "SAMPLE_LOG": str(sample_log.path)}
    with (tmp_path / "out.log").open("wb") as output:
        host = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    sample_log.wait_for("tick")
    host.send_signal(signal.SIGINT)
    assert host.wait(20) == 0
    assert "host_stopped" in (tmp_path / "out.log").read_text()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('no such luck')", "no such luck"),
        ("import sys\nsys.exit('leave')", "SystemExit: leave"),
        ("import os\nos._exit(9)", "3 times while it loaded, last with status 9"),
        ("import threading\nthreading.Event().wait()", "did not end within 1 s: it was at function_app.py, line 2"),
    ],
)
def test_app_that_cannot_be_loaded_is_reported_and_answered(tmp_path, source, reason):
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    (tmp_path / "function_app.py").write_text(source)
    supervisor = HostSupervisor(tmp_path, port=0, workers=1, log_file=tmp_path / "host.log", load_seconds=1.0)
    supervisor.start()
    try:
        with pytest.raises(HostStartError, match=reason):
            supervisor.wait_ready(120)
        with client(supervisor) as http:
            answer = http.get("/api/anything")
        assert (answer.status_code, answer.json()["code"]) == (503, "app_cannot_be_loaded")
        assert reason in answer.json()["detail"]
    finally:
        supervisor.stop()


def test_port_in_use_is_refused_with_what_to_do(shared_host):
    host = shared_host().supervisor
    second = HostSupervisor(Path(__file__).parent / "sample_app", port=host.port, environment=SETTINGS)
    with pytest.raises(HostStartError, match="choose another port"):
        second.start()


@pytest.mark.parametrize(("way", "status"), [("exit", "3"), ("raise", "1"), ("return", "0")])
@pytest.mark.parametrize("function", ["fork", "fork-async"])
def test_child_that_a_function_forks_ends_where_the_function_does(shared_host, function, way, status):
    host = shared_host("rough_app")
    pids = host.supervisor.worker_pids
    with client(host.supervisor) as http:
        assert [http.post(f"/api/{function}/{way}").text for _ in range(3)] == [status] * 3
    assert host.supervisor.worker_pids == pids
    assert host.log.count("forked_child_left_function") == 3


def test_function_that_keeps_the_interpreter_is_ended_by_function_timeout(start_host, tmp_path, caplog, monkeypatch):
    """Its worker's own watch is a thread, and has no interpreter to run in."""
    monkeypatch.setattr(supervisor, "_KILL_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(supervisor, "_BLOCKED_SECONDS", 1.5)
    caplog.set_level("INFO")  # at which a new worker's silence is reported
    pipe = tmp_path / "never"
    os.mkfifo(pipe)
    host = start_host("rough_app", settings={"AzureFunctionsJobHost__functionTimeout": "00:00:02"})
    (blocked,) = host.worker_pids
    with client(host) as http, pytest.raises(httpx.TransportError):
        http.post("/api/block", content=bytes(pipe))
    with client(host) as http:
        # The socket outlives the worker: the next request waits for the new one.
        assert int(http.get("/api/pid").text) != blocked
    assert "worker_blocked" in caplog.text
    assert "exit_status=-9" in caplog.text


def test_new_connections_go_to_the_workers_that_run(start_host, tmp_path, caplog):
    """One of them was accepted by the worker without an interpreter, and waited with it."""
    caplog.set_level("INFO")  # at which a new worker's silence is reported
    pipe = tmp_path / "gate"
    os.mkfifo(pipe)
    host = start_host("rough_app", workers=2, settings={"AzureFunctionsJobHost__functionTimeout": "-1"})
    answers = []
    with client(host) as http:
        block = functools.partial(http.post, "/api/block", content=bytes(pipe), timeout=120)
        request = threading.Thread(target=lambda: answers.append(block().text))
        request.start()
        wait_until(lambda: "worker_blocked" in caplog.text, "the host to notice")
        others = {httpx.get(f"{host.url}/api/pid", timeout=10).text for _ in range(50)}
        pipe.write_bytes(b"")
        request.join()
    assert len(others) == 1
    assert others | set(answers) == {str(pid) for pid in host.worker_pids}
