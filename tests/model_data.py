"""PostgreSQL's data, made once for all processes of a run of tests: those of each server are a copy.

Dozens of tests start a server, most of them as a part of a whole stack. `initdb` takes most of a second of a processor
each time, a copy a sixth of that.
"""

import os
import tempfile
from pathlib import Path

import pytest

from coremachine.local.postgres import MODEL_VARIABLE, LocalPostgres, find_binaries
from coremachine.local.postgres_account import find_account
from coremachine.testing.database import folder_for_servers, prefix_of_folders


def make_model(config: pytest.Config) -> None:
    """Beside what else happens: a server that starts before it is there has data from `initdb`."""
    if not hasattr(os, "fork") or MODEL_VARIABLE in os.environ:
        return
    folder = tempfile.TemporaryDirectory(prefix=prefix_of_folders(), dir=folder_for_servers())
    model = Path(folder.name) / "data"
    os.environ[MODEL_VARIABLE] = str(model)
    process = os.fork()
    if process == 0:
        try:
            make_data(model)
        finally:
            os._exit(0)  # without it, each server's data are made by `initdb`
    config.add_cleanup(folder.cleanup)
    config.add_cleanup(lambda: os.waitpid(process, 0))


def make_data(folder: Path) -> None:
    """As a first start does, without a server."""
    binaries = find_binaries()
    LocalPostgres(folder, keep=False)._initialize(binaries, find_account(folder, binaries))
