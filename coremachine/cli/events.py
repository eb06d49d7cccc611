"""A job's events in words."""

from rich.text import Text

from coremachine.cli.client import Json
from coremachine.cli.render import duration_text, error_text, visible

# What `detail` has of an error, and what is shown in another way.
_ERROR_FIELDS = frozenset({"type", "message", "retryable", "attempt", "traceback", "at", "log", "delay_seconds"})


def sentence_of(event: Json) -> Text:
    """An event for people: where, what, and what goes with it."""
    detail: Json = event.get("detail") or {}
    place = f"stage {event['stage']} " if event.get("stage") else ""
    task = f"{visible(event['task_id'])} " if event.get("task_id") else ""
    name = visible(str(event["event"]))
    is_bad = "failed" in name or "forced" in name
    style = "red" if is_bad else "yellow" if "retry" in name or "interrupted" in name else "bold"
    text = Text.assemble((place, "dim"), task, (name, style))
    if detail.get("attempt"):
        text.append(f" attempt {detail['attempt']}", style="dim")
    if detail.get("type") or detail.get("message"):
        text.append(f" {visible(error_text(detail))}")
    if detail.get("delay_seconds") is not None:
        text.append(f", again in {duration_text(float(detail['delay_seconds']))}", style="dim")
    rest = {key: value for key, value in detail.items() if key not in _ERROR_FIELDS and value not in (None, {}, [])}
    for key, value in rest.items():
        text.append(f" {visible(key)}=", style="dim").append(visible(str(value)[:200]))
    return text
