"""One file a contender. `CONTENDERS` names them all; a module is imported in the contender's own process alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """Who runs the workload.

    Args:
        source: `module:factory` below `bench.peers`.
        after_crash: What is lost or done again when a process is killed.
        is_ours: Whether it is CoreMachine or a part of it.
        largest: The largest n that it is asked for.
        needs: Programs beside Python that it needs on PATH.
    """

    label: str
    source: str
    after_crash: str
    is_ours: bool = False
    largest: int = 10_000
    needs: tuple[str, ...] = ()


_ONE, _HUNDRED = "what runs is repeated", "up to 100 attempts per message that runs are repeated"
_OWN_COUNTER = "; the counter of the fan-in is the benchmark's, and counts it twice or not at all"
_REDIS = "what runs is lost, and all of it with Redis"

CONTENDERS: dict[str, Contender] = {
    "stack1": Contender("CoreMachine, whole stack over HTTP, one task per message", "stack:single", _ONE, is_ours=True),
    "stack": Contender(
        "CoreMachine, whole stack over HTTP, 100 tasks per message",
        "stack:StackPeer",
        _HUNDRED,
        is_ours=True,
        largest=100_000,
    ),
    "engine1": Contender("CoreMachine, engine alone, 1 process", "engine:one", _HUNDRED, is_ours=True, largest=100_000),
    "engine2": Contender(
        "CoreMachine, engine alone, 2 processes", "engine:two", _HUNDRED, is_ours=True, largest=100_000
    ),
    "floor": Contender(
        "floor: the same SQL functions, no engine", "floor:FloorPeer", "all stops", is_ours=True, largest=100_000
    ),
    "dbos_steps": Contender("DBOS, steps", "dbos_peer:steps", "steps in flight are repeated (100 side by side here)"),
    "dbos_queue": Contender("DBOS, queued children", "dbos_peer:queued", _ONE),
    "celery": Contender("Celery chord on Redis", "celery_peer:CeleryPeer", _REDIS, needs=("redis-server",)),
    "celery_chunks": Contender("Celery, chunks of 100", "celery_peer:chunks", _REDIS, needs=("redis-server",)),
    "durabletask": Contender(
        "Durable Task SDK, backend in memory", "durabletask_peer:DurableTaskPeer", "all is lost", largest=1_000
    ),
    "procrastinate": Contender(
        "Procrastinate, counter fan-in", "procrastinate_peer:ProcrastinatePeer", _ONE + _OWN_COUNTER
    ),
    "pgqueuer": Contender(
        "PgQueuer, 100 jobs at a time, counter fan-in",
        "pgqueuer_peer:PgQueuerPeer",
        "about 400 attempts are repeated, half of which had ended" + _OWN_COUNTER,
    ),
    "pgqueuer1": Contender(
        "PgQueuer, one job at a time, counter fan-in", "pgqueuer_peer:one_by_one", _ONE + _OWN_COUNTER
    ),
    "absurd_steps": Contender("absurd, steps", "absurd_peer:steps", "one step is repeated"),
    "absurd_tasks": Contender("absurd, child tasks", "absurd_peer:children", _ONE),
    # The Python SDK takes minutes, at full load, for a handler that waits for 10,000 calls.
    "restate": Contender("Restate", "restate_peer:RestatePeer", _ONE, largest=1_000, needs=("restate-server",)),
    "prefect": Contender(
        "Prefect, task.map", "prefect_peer:PrefectPeer", "the flow stops; a rerun reads cached results", largest=1_000
    ),
}

# Not in the table of contenders: what `bench.measures` asks of ours.
INSTRUMENTS: dict[str, Contender] = {
    "engine8": Contender("CoreMachine, engine alone, 8 messages at a time", "engine:eight", _ONE, is_ours=True),
}
