"""The JSON Schema of the message that submits a job, for producers in any language."""

from typing import Any

from core.models.message import SUBMISSION_FIELDS, JobQueueMessage

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NEEDS_KEY = ["rerun", "force"]


def submission_schema() -> dict[str, Any]:
    """What a producer may put on the jobs queue. The engine's own fields are not in it."""
    whole = JobQueueMessage.model_json_schema()
    properties = {name: _without_null(whole["properties"][name]) for name in SUBMISSION_FIELDS}
    properties["if_ended"] = {"enum": whole["$defs"]["IfEnded"]["enum"]}
    words = "The weight of its large stages among those of other jobs. Left out: that of its job type."
    properties["priority"] = {"description": words, "enum": whole["$defs"]["JobPriority"]["enum"]}
    properties["parameters"]["description"] = "Those of the job type; GET /api/job-types has their schema."
    properties["tags"]["additionalProperties"] = False
    properties["correlation_id"] |= {"pattern": r"^[\x21-\x7e]{1,128}$"}
    return {
        "$schema": _DIALECT,
        "title": "Submission of a job over the jobs queue",
        "description": "The body of a message with the content type application/json.",
        "type": "object",
        "properties": properties,
        "required": ["job_type", "parameters"],
        "additionalProperties": False,
        # A message may come twice, so what makes something run again has to be recognized.
        "if": {"properties": {"if_ended": {"enum": _NEEDS_KEY}}, "required": ["if_ended"]},
        "then": {"required": ["idempotency_key"]},
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave the field out instead."""
    plain = {name: value for name, value in schema.items() if name not in {"anyOf", "default", "title"}}
    for choice in schema.get("anyOf", []):
        if choice.get("type") != "null" and "$ref" not in choice:
            plain |= choice
    return plain
