"""What a dry run shows."""

from rich.markup import escape

from coremachine.cli.client import Json
from coremachine.cli.options import Output, wants_json
from coremachine.cli.render import SHORT_ID, console, count_text, print_json, print_rows, print_whole, visible


def show_draft(draft: Json, output: Output | None) -> None:
    """The job as it would be written, and the tasks of its first stage."""
    if wants_json(output):
        print_json(draft)
        return
    found = draft.get("found_status")
    told = f"is there already, {found}" if found else "would be new"
    job = f"{draft['job_type']} {draft['job_id'][:SHORT_ID]}"
    console().print(f"{escape(visible(job))} {told}; nothing was written", highlight=False)
    print_whole({"parameters": draft.get("parameters") or {}})
    first = draft["first_stage"]
    count = first["task_count"]
    tasks = count_text(count, "task") if first["is_counted"] else f"{count} or more tasks"
    stages = ", ".join(str(stage["name"]) for stage in draft.get("stages") or [])
    console().print(f"stages {escape(visible(stages))}", highlight=False)
    console().print(f"{escape(visible(str(first['name'])))}: {tasks}", highlight=False)
    print_rows(first["tasks"], ["name", "task_type", "queue", "parameters"], empty="No tasks.")
