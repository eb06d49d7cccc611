"""Files of this package that pages load: only those that are named, with their types."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from fastapi import Response

from triggers.problems import ProblemError


def answer_with_file(folder: Path, types: Mapping[str, str], name: str, page: str) -> Response:
    """One of the files of a page. Raises ProblemError (404) for a name without a type."""
    if name not in types:
        raise ProblemError(404, "not_found", f"There is no {name!r} here; {page}.")
    return Response(read_file(folder / name), media_type=types[name])


@lru_cache(maxsize=16)
def read_file(path: Path) -> bytes:
    """Read once for a process."""
    return path.read_bytes()
