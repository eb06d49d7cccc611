"""Whose output folder it is: a file in it names the parameters that it is made with."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from core.basics.canonical import canonical_json, shown
from jobs.validators import ResourceInvalid, resource_validator

MARKER = ".coremachine-output.json"
# What changes how a job runs and not what it makes: neither its id nor its folder depends on them.
OUTSIDE_ID = frozenset({"stale_results"})
# What the job writes beside the COGs.
FILES = ("collection.json", "summary.json", "quicklook.png", "verification.json")
TABLE = "items.parquet"
FOLDERS = ("cogs", "items")
# Where results go that no source has any more, when that is asked for.
STALE = "stale"


class ForeignOutput(ValueError):
    """The folder holds what this job did not make."""


def digest_of(parameters: Mapping[str, Any]) -> str:
    """The same for the same parameters, whichever job has them."""
    identifying = {name: value for name, value in parameters.items() if name not in OUTSIDE_ID}
    return hashlib.sha256(canonical_json(identifying).encode()).hexdigest()


def check_output(output: str, parameters: Mapping[str, Any]) -> bool:
    """Whether the folder has this job's marker already.

    Raises:
        ForeignOutput: It is of other parameters, or holds files of somebody else's under names that the job writes.
        OutputBlocked: A folder is there where the job writes a file, or a file where it needs a folder.
    """
    from jobs.flood_risk_cog.target import BESIDE, join, names_in, read_text  # noqa: PLC0415 - fsspec, an extra

    check_kinds(output, parameters)
    text = read_text(join(output, MARKER))
    if text is not None:
        found = _read(text)
        if found.get("parameters_sha256") == digest_of(parameters):
            return True
        if not set(FILES) & set(names_in(output)) and not names_in(join(output, "cogs")):
            # A job that never came so far.
            return False
        job_id = str(found.get("job_id"))[:12]
        raise ForeignOutput(f"the results of other parameters, which job {job_id} was given first")
    taken = sorted(set(FILES) & set(names_in(output)))
    results = names_in(join(output, "cogs"))
    if not any(name.endswith(".proof.json") for name in results):
        taken += sorted(f"cogs/{name}" for name in results if name.endswith((".tif", *BESIDE)))[:3]
    if taken and not _is_ours(read_text(join(output, "summary.json"))):
        raise ForeignOutput(f"files that this job did not write: {', '.join(taken)}")
    return False


def check_kinds(output: str, parameters: Mapping[str, Any]) -> None:
    """Refuse folders under names of files that the job writes, and the other way around."""
    from jobs.flood_risk_cog.target import check_file_place, check_folder_place, join  # noqa: PLC0415 - fsspec, an extra

    for name in (*FILES, TABLE, MARKER):
        check_file_place(join(output, name))
    for name in (*FOLDERS, *((STALE,) if parameters.get("stale_results") == "move" else ())):
        check_folder_place(join(output, name))


def mark_output(output: str, parameters: Mapping[str, Any], job_id: str) -> None:
    """Take the folder for this job's parameters.

    Raises:
        ForeignOutput, OutputBlocked: As `check_output`.
    """
    from jobs.flood_risk_cog.target import join, put_text  # noqa: PLC0415 - fsspec, an extra

    if not check_output(output, parameters):
        content = {"job_type": "flood_risk_cog", "job_id": job_id, "parameters_sha256": digest_of(parameters)}
        put_text(json.dumps(content, indent=2, sort_keys=True) + "\n", join(output, MARKER))


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_ours(summary: str | None) -> bool:
    """The release before wrote no marker."""
    return summary is not None and {"collection", "totals", "by_return_period"} <= _read(summary).keys()


@resource_validator("own_output")
def own_output(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """The folder is empty, new, or made by a job of the same parameters."""
    from jobs.flood_risk_cog.remote import without_file_scheme  # noqa: PLC0415 - fsspec, an extra
    from jobs.flood_risk_cog.target import OutputBlocked, blocked_in_words  # noqa: PLC0415 - fsspec, an extra

    field, expected = config["param"], "a folder of this job's own"
    try:
        with blocked_in_words():
            check_output(without_file_scheme(parameters[field]), parameters)
    except ForeignOutput as foreign:
        place = shown(parameters[field], 200)
        raise ResourceInvalid(field, expected, f"{foreign} in {place}", "choose another folder") from foreign
    except OutputBlocked as blocked:
        raise ResourceInvalid(field, expected, str(blocked)) from blocked
    except ImportError:
        # The app that takes submissions may have no raster libraries; the inventory looks again.
        return
