"""What a shell offers for job types and job ids: those of the server that the command would ask.

A shell asks while somebody types: an answer that does not come soon, or is none, offers nothing and writes nothing.
"""

import typer

SECONDS = 1.0
_NEWEST = 100
# Enough to name a job; what is typed beyond it is completed to the whole id.
_SHORT = 12


def complete_job_type(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Job types that begin so, each with what it does."""
    rows = _look(ctx, "job-types")
    found = [(str(row.get("job_type")), str(row.get("description") or "")) for row in rows]
    return [(name, text) for name, text in found if name.startswith(incomplete)]


def complete_job_id(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of the newest jobs that begin so, each with its type and status."""
    found = [(str(row.get("job_id")), f"{row.get('job_type')} {row.get('status')}") for row in _look(ctx, "jobs")]
    length = _SHORT if len(incomplete) < _SHORT else None
    return [(job_id[:length], text) for job_id, text in found if job_id.startswith(incomplete)]


def _look(ctx: typer.Context, kind: str) -> list[dict[str, object]]:
    from coremachine.cli.client import ApiClient, choose_server  # noqa: PLC0415 - commands import this module
    from coremachine.cli.errors import CliError  # noqa: PLC0415
    from coremachine.cli.options import note_profile  # noqa: PLC0415

    note_profile(ctx.find_root().params.get("profile"))
    try:
        with ApiClient(choose_server(ctx.params.get("url"))) as client:
            if kind == "jobs":
                return client.look_at_jobs(limit=_NEWEST, timeout_seconds=SECONDS)
            return client.look_at_job_types(timeout_seconds=SECONDS)
    except CliError:  # what is wrong is reported by the command itself
        return []
