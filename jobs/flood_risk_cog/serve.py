"""A process that converts rasters, one after the other, for the worker that started it; see `process`.

    python -m jobs.flood_risk_cog.serve

A request is a line of JSON, the keywords of `convert_raster`, or of the function of `WORK` that its `work` names.
Answers are `{"step", "share", "waits"}` (with `waits`
the step begins when a line comes back), and at the end `{"result"}` or `{"failure"}`.
"""

import dataclasses
import importlib
import json
import os
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import Any, TextIO

from core.errors import Failure, classify
from jobs.flood_risk_cog.memory import (
    MOST_BYTES,
    TooLittleMemory,
    give_back_memory,
    is_out_of_memory,
    limit_memory,
)
from jobs.flood_risk_cog.scratch import ScratchOwner

# A worker with nothing to convert keeps no process for it.
IDLE_SECONDS = 60.0
# What a raster took is kept for the next one, if that comes soon: the system's pages cost a twentieth of the time.
REST_SECONDS = 1.0
# What else reads rasters: module and function, imported when it is asked for.
WORK = {
    "inspect": ("jobs.flood_risk_cog.inventory", "inspect_all"),
    "draw": ("jobs.flood_risk_cog.quicklook", "draw_as_text"),
    "text": ("jobs.flood_risk_cog.target", "text_of"),
    "base64": ("jobs.flood_risk_cog.target", "base64_of"),
    "tile": ("jobs.flood_risk_cog.tiles", "draw_tile"),
    "values": ("jobs.flood_risk_cog.tiles", "values_at"),
}
SHARE_SECONDS = 0.25


class Worker:
    """The other side, as `report` and as a source of requests."""

    def __init__(self, lines: Any, answers: TextIO) -> None:
        self._lines, self._answers = lines, answers
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._step = ""
        self._told_at = 0.0
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def next_request(self) -> dict[str, Any] | None:
        """None when none came for so long."""
        self._step = ""
        with suppress(queue.Empty):
            return self._messages.get(timeout=REST_SECONDS)
        give_back_memory()
        with suppress(queue.Empty):
            return self._messages.get(timeout=IDLE_SECONDS)
        return None

    def report(self, step: str, share: float) -> None:
        """Tell a step that begins, and wait until the worker lets it begin; or how much of it is done."""
        begins = step != self._step
        if not begins and time.monotonic() - self._told_at < SHARE_SECONDS:
            return
        self._step, self._told_at = step, time.monotonic()
        self.answer({"step": step, "share": share, "waits": begins})
        if begins:
            self._messages.get()

    def answer(self, message: dict[str, Any]) -> None:
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def _read(self) -> None:
        for line in self._lines:
            self._messages.put(json.loads(line))
        # The worker is gone, and nobody waits for this any more. Nothing is in place before its step begins.
        os._exit(0)


def main() -> None:
    # What a library prints is no answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # rasterio imports it for sessions of its own, of which there are none here; it takes a fifth of the start.
    sys.modules.setdefault("boto3", None)  # type: ignore[arg-type]
    worker = Worker(sys.stdin.buffer, answers)
    limit_memory(MOST_BYTES)
    while (request := worker.next_request()) is not None:
        worker.answer(answer_to(request, worker))
    # The thread that reads holds stdin, for which an orderly end of the interpreter would abort the process.
    os._exit(0)


def answer_to(request: dict[str, Any], worker: Worker) -> dict[str, Any]:
    try:
        if "work" in request:
            return {"result": do_work(**request)}
        from jobs.flood_risk_cog.convert import convert_raster  # noqa: PLC0415 - reported where it is missing

        owner = request.pop("owner", None)
        return {"result": convert_raster(**request, owner=owner and ScratchOwner(**owner), report=worker.report)}
    except ImportError as error:
        from jobs.flood_risk_cog.handlers import RasterExtraMissing  # noqa: PLC0415 - it is the other one's module

        return {"failure": fields_of(classify(RasterExtraMissing(error)))}
    except Exception as error:  # noqa: BLE001 - everything is told to the worker, which decides
        if is_out_of_memory(error):
            return {"failure": fields_of(classify(TooLittleMemory(request.get("path", "rasters"))))}
        return {"failure": fields_of(classify(error))}


def do_work(work: str, **keywords: Any) -> dict[str, Any]:
    """What a request of `WORK` asks for."""
    module, name = WORK[work]
    found: dict[str, Any] = getattr(importlib.import_module(module), name)(**keywords)
    return found


def fields_of(failure: Failure) -> dict[str, Any]:
    return dataclasses.asdict(failure)


if __name__ == "__main__":
    main()
