"""One file a contender. `CONTENDERS` names them all; a module is imported in the contender's own process alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """Who runs the workload.

    Args:
        source: `module:factory` below `bench.peers`.
        is_ours: Whether it is CoreMachine or a part of it.
        largest: The largest n that it is asked for.
        needs: Programs beside Python that it needs on PATH.
    """

    label: str
    source: str
    is_ours: bool = False
    largest: int = 10_000
    needs: tuple[str, ...] = ()


CONTENDERS: dict[str, Contender] = {
    "floor": Contender("floor: the same SQL functions, no engine", "floor:FloorPeer", is_ours=True, largest=100_000),
    "engine1": Contender("CoreMachine, engine alone, 1 process", "engine:one", is_ours=True, largest=100_000),
    "engine2": Contender("CoreMachine, engine alone, 2 processes", "engine:two", is_ours=True, largest=100_000),
    "stack1": Contender("CoreMachine, whole stack over HTTP, one task per message", "stack:single", is_ours=True),
    "stack": Contender("CoreMachine, whole stack over HTTP", "stack:StackPeer", is_ours=True, largest=100_000),
    "dbos_steps": Contender("DBOS, steps", "dbos_peer:steps"),
    "dbos_queue": Contender("DBOS, queued children", "dbos_peer:queued"),
    "celery": Contender("Celery chord on Redis", "celery_peer:CeleryPeer", needs=("redis-server",)),
    "procrastinate": Contender("Procrastinate, counter fan-in", "procrastinate_peer:ProcrastinatePeer"),
    "pgqueuer": Contender("PgQueuer, counter fan-in", "pgqueuer_peer:PgQueuerPeer"),
    "absurd_steps": Contender("absurd, steps", "absurd_peer:steps"),
    "absurd_tasks": Contender("absurd, child tasks", "absurd_peer:children"),
    "prefect": Contender("Prefect, task.map", "prefect_peer:PrefectPeer", largest=1_000),
}

# Not in the table of contenders: what `bench.measures` asks of ours.
INSTRUMENTS: dict[str, Contender] = {
    "engine8": Contender("CoreMachine, engine alone, 8 messages at a time", "engine:eight", is_ours=True),
}
