"""Checks of what a job's parameters point at: does the source exist, can the folder be written?

A job lists them as dicts: `{"type": "source_exists", "param": "source", "suffixes": [".tif"], "min_files": 1}`.
"""

import glob
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core.advancing.unchecked import say_unchecked
from core.basics.canonical import shown
from core.safety.credentials import redacted_start
from core.safety.safe_log import safe_logger
from jobs.functions import function_problems
from jobs.outside import OUTSIDE, Unknown
from jobs.parameters import ParameterError, ParameterErrors, nearest_name_hint

log = safe_logger(__name__)

ResourceValidator = Callable[[Mapping[str, Any], Mapping[str, Any]], None]

_SERVER = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.:-]{0,60}://[^/?#]{0,300}")
_LONGEST_TEXT = 300
_validators: dict[str, ResourceValidator] = {}


class ResourceInvalid(ValueError):
    """A parameter points at something that is missing or unusable."""

    def __init__(self, field: str, expected: str, found: str, hint: str | None = None) -> None:
        self.error = ParameterError(field, expected, found, hint)
        super().__init__(self.error.message)

    def __reduce__(self) -> tuple[type["ResourceInvalid"], tuple[str, str, str, str | None]]:
        return type(self), (self.error.field, self.error.expected, self.error.found, self.error.hint)


def resource_validator(name: str) -> Callable[[ResourceValidator], ResourceValidator]:
    """Registers a function `(parameters, config) -> None` that raises ResourceInvalid under a name."""

    def register(function: ResourceValidator) -> ResourceValidator:
        problems = function_problems(f"resource validator {name!r}", function, ("parameters", "config"))
        if problems:
            raise TypeError(problems[0])
        if name in _validators:
            raise ValueError(f"expected a new resource validator name, found {name!r} twice; rename one of them")
        _validators[name] = function
        return function

    return register


def run_resource_validators(validators: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> None:
    """Runs all validators in order, on validated parameters, in threads and seconds of their own (`jobs.outside`).

    A validator whose parameter is absent or None is skipped: whether it is required is for the schema to say. One that
    cannot tell in time refuses nothing: what it would have found, the work finds.

    Raises:
        ParameterErrors: with what every failed validator found.
        LookupError: a validator is not registered, or names no parameter.
    """
    errors: list[ParameterError] = []
    done_with: set[str] = set()
    until = time.monotonic() + OUTSIDE.seconds
    for config in validators:
        function, field = _validator_of(config), config["param"]
        # What is refused, or could not be checked, is not looked at further: it may be where nobody should look.
        if parameters.get(field) is None or field in done_with:
            continue
        check = partial(function, parameters, config)
        outcome = OUTSIDE.run(_place_of(parameters[field]), check, until - time.monotonic())
        if outcome is not None:
            done_with.add(field)
        if isinstance(outcome, Unknown):
            log.warning("resource_not_checked", extra={"parameter": field, "reason": outcome.reason})
            say_unchecked(field, outcome.reason)
        elif isinstance(outcome, ResourceInvalid):
            errors.append(outcome.error)
        elif outcome is not None:
            errors.append(_unforeseen(field, config["type"], outcome))
    if errors:
        raise ParameterErrors(errors)


def _place_of(value: Any) -> str:
    """The server of an address; one name for all that is on this machine."""
    match = _SERVER.match(value) if isinstance(value, str) else None
    return match[0] if match else "this machine"


def _unforeseen(field: str, validator: str, error: BaseException) -> ParameterError:
    """What a validator raised that it should not have, as a person can read it."""
    hint = "check the value; the log has the trace"
    log.warning("resource_validator_failed", exc_info=error, extra={"parameter": field, "validator": validator})
    return ParameterError(field, f"a value that {validator} can check", _text_of(error), hint)


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error of a library that cannot say what it is
        text = "without a text"
    return f"{type(error).__name__}: {redacted_start(text, _LONGEST_TEXT)}"


@resource_validator("source_exists")
def source_exists(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """The source (local path or fsspec URL) exists, with `min_files` (1) files ending in one of `suffixes`.

    The source may be a pattern (`*`, `?`, `[..]`). Folders inside it count too, unless `recursive` is False, or the
    parameter that it names is.
    """
    field = config["param"]
    source = parameters[field]
    suffixes = tuple(suffix.lower() for suffix in config.get("suffixes", ()))
    wanted = config.get("min_files", 1)
    recursive = config.get("recursive", True)
    if isinstance(recursive, str):
        recursive = bool(parameters.get(recursive))
    try:
        found = _count_files(source, suffixes, wanted, recursive=recursive)
    except FileNotFoundError as error:
        hint = "check the path, and that this host can see it"
        raise ResourceInvalid(field, "an existing file or folder", f"nothing at {shown(source, 200)}", hint) from error
    except (ImportError, OSError, ValueError) as error:
        hint = "check the URL's scheme, its package and the access rights"
        raise ResourceInvalid(field, "a readable file or folder", _text_of(error), hint) from error
    if found < wanted:
        kind = f"files ending in {', '.join(suffixes)}" if suffixes else "files"
        raise ResourceInvalid(
            field, f"at least {wanted} {kind}", f"{found} in {shown(source, 200)}", "add files to the source"
        )


@resource_validator("folder_writable")
def folder_writable(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """The local folder can be written, or its missing part created; a URL's rights show only in a write."""
    field = config["param"]
    target = parameters[field]
    if "://" in target and not target.startswith("file://"):
        return
    folder = Path(target.removeprefix("file://")).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ResourceInvalid(field, "a folder", f"the file {str(existing)!r}", "name another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        hint = "grant write access or name another folder"
        raise ResourceInvalid(field, "a writable folder", f"no write access to {str(existing)!r}", hint)


def registered_validators() -> Mapping[str, ResourceValidator]:
    """All resource validators by their names."""
    return MappingProxyType(_validators)


def find_unknown_validators(validators: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a job's `resource_validators` themselves, for the check at import."""
    problems = []
    for config in validators:
        try:
            _validator_of(config)
        except LookupError as error:
            problems.append(f"resource_validators: {error.args[0]}")
    return problems


def _validator_of(config: Mapping[str, Any]) -> ResourceValidator:
    name = config.get("type")
    if name not in _validators:
        raise LookupError(f"expected a resource validator, found {name!r}; {nearest_name_hint(str(name), _validators)}")
    if "param" not in config:
        raise LookupError(
            f"expected the key 'param' in the resource validator {name!r}, found {sorted(config)}; add it"
        )
    return _validators[name]


def _count_files(source: str, suffixes: tuple[str, ...], enough: int, *, recursive: bool) -> int:
    """Matching files, counted no further than needed: a source may hold millions."""
    count = 0
    for name in _find_names(source, recursive=recursive):
        count += not suffixes or name.lower().endswith(suffixes)
        if count >= enough:
            break
    return count


def _find_names(source: str, *, recursive: bool) -> Iterator[str]:
    if "://" in source and not source.startswith("file://"):
        yield from _find_remote_names(source, recursive=recursive)
        return
    path = Path(source.removeprefix("file://"))
    if path.is_file():
        yield path.name
    elif any(mark in source for mark in "*?[") and not path.exists():
        yield from glob.iglob(source.removeprefix("file://"), recursive=True)  # noqa: PTH207 - the folder may be a pattern, too
    elif not path.is_dir():
        raise FileNotFoundError(source)
    else:
        for _, _, files in os.walk(path, onerror=_raise):
            yield from files
            if not recursive:
                break


def _find_remote_names(source: str, *, recursive: bool) -> Iterator[str]:
    # Local folders need no fsspec, and a job without URLs does not pay for its import.
    import fsspec  # noqa: PLC0415

    system, path = fsspec.core.url_to_fs(source)
    if any(mark in path for mark in "*?["):
        yield from system.glob(path)
    elif system.isfile(path):
        yield path
    elif not system.exists(path):
        raise FileNotFoundError(source)
    else:
        for _, _, files in system.walk(path, maxdepth=None if recursive else 1, on_error="raise"):
            yield from files


def _raise(error: OSError) -> None:
    raise error
