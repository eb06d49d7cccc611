"""Reports where an app's import is when it takes too long."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

from coremachine.local.host.protocol import Channel
from coremachine.local.host.worker_starter import is_own_file


@contextlib.contextmanager
def reporting_long_import(app_dir: Path, seconds: float, channel: Channel) -> Iterator[None]:
    """Send `still_loading` with the place where this thread is, unless the block ends within the time."""
    importing = threading.get_ident()
    timer = threading.Timer(
        seconds, lambda: channel.send({"event": "still_loading", "place": place_of(importing, app_dir)})
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def place_of(thread_id: int, app_dir: Path) -> str:
    """The innermost line of a thread in a file of the app, else the innermost line at all."""
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - the documented way to another thread's stack
    if frame is None:
        return "an unknown place"
    lines = traceback.extract_stack(frame)
    own = [line for line in lines if is_own_file(line.filename, app_dir)]
    line = own[-1] if own else lines[-1]
    name = Path(line.filename).relative_to(app_dir) if own else line.filename
    return f"{name}, line {line.lineno}, in {line.name}"
