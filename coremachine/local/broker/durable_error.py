"""The error of durable mode."""

from pathlib import Path


class DurableError(Exception):
    """The file of durable mode cannot be used, or not written any more."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        self.path = path
        super().__init__(f"durable file {path}: expected {expected}, found: {found}")
