"""absurd: a task with a step for each piece of work, or one that spawns a child task for each."""

import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import psycopg
from absurd_sdk import Absurd
from absurdctl import BUNDLED_SCHEMA_SQL

from bench.processes import Workers
from bench.workload import CHAIN_STAGES, POLL_SECONDS, RESULT, WrongOutcome, check_fan, summarize

PARENTS, CHILDREN = "parents", "children"
WORKER_POLL_SECONDS = 0.01
CLAIM_SECONDS = 600


def make_app(database_url: str, queue: str) -> Absurd:
    """A client of one queue with its tasks. Spawned children go to the other queue, as the documentation asks."""
    app = Absurd(database_url, queue_name=queue)
    if queue == CHILDREN:
        app.register_task("work")(lambda params, _ctx: _work(app, params))
        app.register_task("seed")(lambda params, _ctx: _seed(app, params))
    else:
        app.register_task("fan_of_steps")(fan_of_steps)
        app.register_task("chain_of_steps")(chain_of_steps)
        app.register_task("fan_of_children")(lambda params, ctx: fan_of_children(app, params, ctx))
        app.register_task("chain_of_children")(lambda params, ctx: chain_of_children(app, params, ctx))
    return app


def fan_of_steps(params: dict[str, Any], ctx: Any) -> dict[str, int]:
    n = ctx.step("seed", lambda: params["n"])
    results = [ctx.step(f"work-{index}", lambda: RESULT) for index in range(n)]
    return dict(ctx.step("collect", lambda: summarize(results)))


def chain_of_steps(params: dict[str, Any], ctx: Any) -> dict[str, int]:
    del params
    for index in range(CHAIN_STAGES):
        ctx.step(f"step-{index}", lambda: RESULT)
    return {}


def fan_of_children(app: Absurd, params: dict[str, Any], ctx: Any) -> dict[str, int]:
    _spawn(app, ctx, "seed", [{"event": f"{ctx.task_id}:seed", "n": params["n"]}])
    n = ctx.await_event(f"{ctx.task_id}:seed")["n"]
    _spawn(app, ctx, "work", [{"event": f"{ctx.task_id}:{index}"} for index in range(n)])
    return summarize(ctx.await_event(f"{ctx.task_id}:{index}") for index in range(n))


def chain_of_children(app: Absurd, params: dict[str, Any], ctx: Any) -> dict[str, int]:
    del params
    for index in range(CHAIN_STAGES):
        event = f"{ctx.task_id}:{index}"
        _spawn(app, ctx, "work", [{"event": event}], f"spawn-{index}")
        ctx.await_event(event)
    return {}


def _spawn(app: Absurd, ctx: Any, task: str, calls: list[dict[str, Any]], step: str | None = None) -> None:
    def spawn() -> int:
        for params in calls:
            app.spawn(task, params, queue=CHILDREN)
        return len(calls)

    ctx.step(step or f"spawn-{task}", spawn)


def _work(app: Absurd, params: dict[str, Any]) -> dict[str, str]:
    """The parent waits for an event: with `await_task_result`, which polls, a chain takes four times as long."""
    app.emit_event(params["event"], RESULT, queue_name=PARENTS)
    return RESULT


def _seed(app: Absurd, params: dict[str, Any]) -> dict[str, Any]:
    app.emit_event(params["event"], {"n": params["n"]}, queue_name=PARENTS)
    return params


def make_worker(database_url: str, queue: str, concurrency: int) -> Callable[[Any], Any]:
    app = make_app(database_url, queue)
    options = {"claim_timeout": CLAIM_SECONDS, "concurrency": concurrency, "poll_interval": WORKER_POLL_SECONDS}
    threading.Thread(target=lambda: app.start_worker(**options), daemon=True).start()
    return lambda message: message


class AbsurdPeer:
    """Two worker processes a queue."""

    def __init__(self, kind: str, concurrency: int) -> None:
        self._kind = kind
        self._concurrency = concurrency

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("absurd-sdk", "absurdctl")}

    def prepare(self, database_url: str) -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute(BUNDLED_SCHEMA_SQL)
        self._app = Absurd(database_url, queue_name=PARENTS)
        for queue in (PARENTS, CHILDREN):
            self._app.create_queue(queue)
        self._workers = [Workers(2, make_worker, database_url, PARENTS, self._concurrency)]
        if self._kind == "children":
            self._workers.append(Workers(2, make_worker, database_url, CHILDREN, 4))

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        (outcome,) = self._run(f"fan_of_{self._kind}", {"n": n}, 1)
        seconds = time.perf_counter() - start
        check_fan(outcome, n)
        return seconds

    def run_chain(self) -> float:
        return self.run_many(1)

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        self._run(f"chain_of_{self._kind}", {}, count)
        return time.perf_counter() - start

    def close(self) -> None:
        for workers in self._workers:
            workers.close()
        self._app.close()

    def _run(self, task: str, params: dict[str, Any], count: int) -> list[Any]:
        ids = [self._app.spawn(task, params, queue=PARENTS)["task_id"] for _ in range(count)]
        return [self._wait(task_id) for task_id in ids]

    def _wait(self, task_id: str) -> Any:
        """The library's own wait has pauses of 50 ms and more, which would be most of a chain's time."""
        while True:
            snapshot = self._app.fetch_task_result(task_id, queue_name=PARENTS)
            if snapshot and snapshot.state == "completed":
                return snapshot.result
            if snapshot and snapshot.state in ("failed", "cancelled"):
                raise WrongOutcome(f"expected a completed task, found {snapshot}")
            time.sleep(POLL_SECONDS)


def steps() -> AbsurdPeer:
    return AbsurdPeer("steps", 1)


def children() -> AbsurdPeer:
    return AbsurdPeer("children", 4)
