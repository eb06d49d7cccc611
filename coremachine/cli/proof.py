"""What was verified of a job's outputs, from the results of its tasks."""

from typing import Any

import typer

from coremachine.cli.client import ApiClient, Json, choose_url
from coremachine.cli.errors import Exit
from coremachine.cli.options import JobArgument, LimitOption, OutputOption, UrlOption, wants_json
from coremachine.cli.render import error_text, print_json, print_rows

COLUMNS = ["name", "values", "valid", "range", "lost", "allowed", "not_allowed"]


def verify(
    job_id: JobArgument,
    limit: LimitOption = 1000,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show what was verified of each output: values, valid pixels and metadata, compared with the source.

    Exit code 1 if a task failed, or a difference is not allowed.

    For example: coremachine verify 3f2a9c -o json
    """
    with ApiClient(choose_url(url)) as client:
        job = client.resolve_job_id(job_id)
        proofs = [proof for task in client.list_tasks(job, limit=limit) if (proof := _proof_of(client, job, task))]
    if wants_json(output):
        print_json({"value": proofs})
    else:
        print_rows([row_of(proof) for proof in proofs], COLUMNS, empty="No task of this job has verified an output.")
    if any(proof["error"] or proof["verification"].get("problems") for proof in proofs):
        raise typer.Exit(Exit.FAILED)


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
    kept = {key: result.get(key) for key in ("path", "checksum", "kind") if result.get(key) is not None}
    return {"name": name, **kept, "verification": result["verification"], "error": None}


def row_of(proof: Json) -> Json:
    """One line of the table, in words."""
    found = proof["verification"]
    error = proof["error"]
    return {
        "name": proof["name"],
        "values": "failed" if error else found.get("values"),
        "valid": _pair(found.get("valid_pixels")),
        "range": _pair(found.get("range")),
        "lost": ", ".join(map(str, found.get("lost") or [])),
        "allowed": "; ".join(map(str, found.get("allowed") or [])),
        "not_allowed": error_text(error) if error else "; ".join(map(str, found.get("problems") or [])),
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
