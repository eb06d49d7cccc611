"""The Celery application: `celery -A bench.peers.celery_app worker` and its client import it."""

import os
from typing import Any

from celery import Celery, Task, chord

from bench.workload import RESULT, summarize

app = Celery("bench", broker=os.environ["BENCH_REDIS_URL"], backend=os.environ["BENCH_REDIS_URL"])
app.conf.update(
    worker_prefetch_multiplier=16,
    worker_send_task_events=False,
    task_send_sent_event=False,
    task_acks_late=False,
    result_expires=3600,
    result_chord_join_timeout=600,
    broker_connection_retry_on_startup=True,
)


@app.task(bind=True)
def seed(self: Task, n: int) -> Any:
    return self.replace(chord((work.si(index) for index in range(n)), collect.s()))


@app.task(bind=True)
def seed_chunks(self: Task, n: int) -> Any:
    """A message for each hundred of tasks, as the batched contender of CoreMachine has."""
    return self.replace(chord(work.chunks(((index,) for index in range(n)), 100).group(), collect_chunks.s()))


@app.task
def collect_chunks(chunks: list[list[dict[str, str]]]) -> dict[str, int]:
    return summarize(result for chunk in chunks for result in chunk)


@app.task
def work(index: int) -> dict[str, str]:
    del index
    return RESULT


@app.task
def collect(results: list[dict[str, str]]) -> dict[str, int]:
    return summarize(results)
