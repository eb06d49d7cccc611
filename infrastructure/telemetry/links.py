"""What a span is connected with, besides its parent."""

from opentelemetry.trace import Link, SpanContext, get_current_span

from core.models import JobRef
from infrastructure.telemetry.ids import stage_span


def message_links() -> list[Link]:
    """To the span that sent the message which is being worked on."""
    found = get_current_span().get_span_context()
    return [Link(found, {"coremachine.link": "message"})] if found.is_valid else []


def previous_stage_links(submission: SpanContext, ref: JobRef, stage: int) -> list[Link]:
    """To the stage whose results are read."""
    if stage == 1:
        return []
    return [Link(stage_span(submission, ref.at_stage(stage - 1)), {"coremachine.link": "previous_stage"})]
