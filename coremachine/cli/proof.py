"""Whether a job's outputs are still what was verified: its tasks' proofs beside the files that are there now."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.errors import Exit
from coremachine.cli.options import JobArgument, LimitOption, OutputOption, UrlOption, wants_json
from coremachine.cli.render import SHORT_ID, error_text, print_json, print_rows, say

COLUMNS = ["name", "file", "values", "valid", "range"]
# Shown where an output has any.
RARE_COLUMNS = ["lost", "allowed", "not_allowed"]
# A multihash of SHA-256, in hexadecimal: its code, its length, and the digest.
_SHA256 = "1220"
_AS_VERIFIED = "as verified"
_CHANGED = ("changed", "missing")


def verify(
    job_id: JobArgument,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look whether the files are there and as large as they were; read none.")
    ] = False,
    limit: LimitOption = 10_000,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Look whether each output is still what was verified, and show what that was.

    Reads each file again and compares its checksum. Exit code 1 if a file is missing or another one, a task failed, or
    a difference from the source is not allowed. Files that this machine cannot see are said, and judged by their proof.

    For example:

        coremachine verify 3f2a9c

        coremachine verify 3f2a9c --quick -o json
    """
    with ApiClient(choose_server(url)) as client:
        job = client.resolve_job_id(job_id)
        tasks = client.list_tasks(job, limit=limit + 1)
        proofs = [proof for task in tasks[:limit] if (proof := _proof_of(client, job, task))]
        for proof in proofs:
            proof["file"] = file_state(proof, quick=quick, sees_files=client.is_on_this_machine)
    if wants_json(output):
        print_json({"value": proofs})
    else:
        rows = [row_of(proof) for proof in proofs]
        rare = [name for name in RARE_COLUMNS if any(row[name] for row in rows)]
        print_rows(rows, COLUMNS + rare, empty="No task of this job has verified an output.")
    _say_what_was_looked_at(proofs, is_cut=len(tasks) > limit, quick=quick)
    if any(is_bad(proof["file"]) for proof in proofs):
        # A rerun of what failed keeps completed tasks, and with them the missing files.
        say(f"What is missing or changed is made again by: coremachine rerun {job[:SHORT_ID]} --all")
    if any(proof["error"] or proof["verification"].get("problems") or is_bad(proof["file"]) for proof in proofs):
        raise typer.Exit(Exit.FAILED)


def _say_what_was_looked_at(proofs: list[Json], *, is_cut: bool, quick: bool) -> None:
    states = [proof["file"] for proof in proofs if proof["file"] is not None]
    bad, unseen = sum(map(is_bad, states)), sum(state.startswith("not checked") for state in states)
    if states:
        how = "size" if quick else "checksum"
        good = len(states) - bad - unseen
        say(f"{good} of {len(states)} files are as verified ({how}), {bad} missing or changed, {unseen} not checked.")
    if is_cut:
        say("The job has more tasks than were looked at: see --limit.")


def is_bad(state: str | None) -> bool:
    """Whether a file is not what was verified."""
    return state is not None and state.startswith(_CHANGED)


def file_state(proof: Json, *, quick: bool, sees_files: bool) -> str | None:
    """What is where the output was put, in words; None for a proof without a file."""
    path = proof.get("path")
    if not isinstance(path, str):
        return None
    if "://" not in path and not sees_files:
        return "not checked: it is on the server's machine"
    try:
        return _size_state(path, proof.get("bytes"), quick=quick) or _content_state(path, proof.get("checksum"))
    except FileNotFoundError:
        return "missing"
    except ImportError as error:
        return f"not checked: {error}"
    except Exception as error:  # noqa: BLE001 - stores raise types of their own
        return f"not checked: {type(error).__name__}: {error}"


def _size_state(path: str, expected: int | None, *, quick: bool) -> str | None:
    """None where the size is right and the content must be looked at."""
    size = _remote_size(path) if "://" in path else Path(path).stat().st_size
    if expected is not None and size != expected:
        return f"changed: {size:,} bytes, {expected:,} when it was verified"
    if not quick:
        return None
    return "not checked: its size was not noted" if expected is None else _AS_VERIFIED


def _content_state(path: str, checksum: str | None) -> str:
    if not (checksum or "").startswith(_SHA256):
        return "not checked: it has no checksum of a kind that is known here"
    return _AS_VERIFIED if f"{_SHA256}{_digest_of(path)}" == checksum else "changed: another checksum"


def _remote_size(url: str) -> int | None:
    filesystem, inner = _filesystem_of(url)
    size = filesystem.info(inner).get("size")
    return None if size is None else int(size)


def _digest_of(path: str) -> str:
    if "://" not in path:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    filesystem, inner = _filesystem_of(path)
    with filesystem.open(inner, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _filesystem_of(url: str) -> tuple[Any, str]:
    import fsspec  # noqa: PLC0415 - an extra

    return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]


def _proof_of(client: ApiClient, job: str, task: Json) -> Json | None:
    """Of a task that verified its output, or of one of the same kind that failed; a list has no results."""
    name = task.get("name") or task["task_id"]
    if task.get("status") == "failed":
        return {"name": name, "verification": {}, "error": task.get("error") or {"message": "it failed"}}
    if task.get("status") != "completed":
        return None
    result = client.get_task(job, task["task_id"]).get("result")
    if not isinstance(result, dict) or not isinstance(result.get("verification"), dict):
        return None
    names = ("path", "checksum", "bytes", "kind")
    kept = {key: result.get(key) for key in names if result.get(key) is not None}
    return {"name": name, **kept, "verification": result["verification"], "error": None}


def row_of(proof: Json) -> Json:
    """One line of the table, in words."""
    found = proof["verification"]
    error = proof["error"]
    return {
        "name": proof["name"],
        "file": proof.get("file"),
        "values": "failed" if error else found.get("values"),
        "valid": _pair(found.get("valid_pixels")),
        "range": _pair(found.get("range")),
        "lost": ", ".join(map(str, found.get("lost") or [])),
        "allowed": "; ".join(map(str, found.get("allowed") or [])),
        "not_allowed": error_text(error).replace(f"{proof['name']}: ", "", 1)
        if error
        else "; ".join(map(str, found.get("problems") or [])),
    }


def _pair(both: Any) -> str:
    """Source and output, once where they are the same."""
    if not isinstance(both, dict):
        return ""
    source, cog = _first_band(both.get("source")), _first_band(both.get("cog"))
    return cog if source in {cog, ""} else f"{source} -> {cog}"


def _first_band(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return ""
    more = f" (+{len(value) - 1} bands)" if len(value) > 1 else ""
    one = value[0]
    text = " to ".join(_number(each) for each in one) if isinstance(one, list) else _number(one)
    return f"{text}{more}"


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
