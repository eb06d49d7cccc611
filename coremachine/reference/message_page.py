"""The message that submits a job, from its JSON Schema."""

import json
from collections.abc import Iterator

from core.models.message_schema import submission_schema
from coremachine.reference.json_schema import bounds_of, type_of
from coremachine.reference.markdown import code, page, table

_INTRODUCTION = """
A producer submits a job with a JSON message on the jobs queue.
[Submit jobs](../howto/submit-jobs.md#from-a-queue-producer) has the code. The app serves this schema at
`GET /api/messages/submission`. A message that does not fit becomes a dead letter at its first delivery, with the
reason. A field that the schema does not have is ignored with a warning in the log, so that a producer may be newer
than the app.
"""


def render() -> str:
    schema = submission_schema()
    return page(
        "The submission message",
        "`core/models/message_schema.py`",
        _INTRODUCTION,
        table(["field", "type", "required", "meaning"], _rows(schema)),
        "## JSON Schema",
        f"```json\n{json.dumps(schema, indent=2)}\n```",
    )


def _rows(schema: dict[str, object]) -> Iterator[list[str]]:
    properties, required = schema["properties"], schema["required"]
    assert isinstance(properties, dict)  # noqa: S101 - for mypy: our own schema
    assert isinstance(required, list)  # noqa: S101
    for name, field in properties.items():
        kind = " ".join(filter(None, [type_of(field), bounds_of(field)]))
        yield [code(name), kind, "yes" if name in required else "", str(field.get("description", ""))]
