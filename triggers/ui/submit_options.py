"""What a form of a submission has beside the parameters: tags, a later start, a priority."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from core.models.fields import PriorityText, StartAt
from core.models.job_filter import read_tags
from core.models.record import JobRecord
from core.models.status import JobPriority
from triggers.problems import field_problem
from triggers.ui.schema_form import Field as FormField
from triggers.ui.schema_form import make_fields

# So that none is taken for a parameter.
PREFIX = "o."
_SCHEMA: Mapping[str, Any] = {
    "properties": {
        "tags": {
            "type": "string",
            "maxLength": 8000,
            "description": "To find the job by: one per line, such as team=geo. A job that is there keeps its own.",
        },
        "start_at": {
            "type": "string",
            "format": "date-time",
            "description": "Not before this time. Left out: at once.",
        },
        "priority": {
            "enum": [each.value for each in JobPriority],
            "description": "The weight of its large stages among those of other jobs. Left out: that of its job type.",
        },
    }
}


class Options(BaseModel):
    """The values, checked as those of the API's query."""

    tags: Annotated[dict[str, str], BeforeValidator(read_tags)] = {}
    start_at: StartAt | None = None
    priority: PriorityText | None = None


def texts_of(job: JobRecord) -> dict[str, str]:
    """Those of an earlier job, for one like it. Its time of start is over."""
    tags = "\n".join(f"{name}={value}" for name, value in sorted((job.tags or {}).items()))
    return {"tags": tags, "priority": job.priority.value if job.priority else ""}


def read_texts(form: Mapping[str, str]) -> dict[str, str]:
    """What each field of a form has."""
    return {name: form.get(PREFIX + name, "") for name in _SCHEMA["properties"]}


def read_options(texts: Mapping[str, str]) -> tuple[Options, dict[str, str]]:
    """The values, and what is wrong by field; an empty field is left out."""
    values: dict[str, Any] = {name: text.strip() for name, text in texts.items() if text.strip()}
    if "tags" in values:
        values["tags"] = [line.strip() for line in values["tags"].splitlines() if line.strip()]
    try:
        return Options.model_validate(values), {}
    except ValidationError as error:
        found = [(str(item["loc"][0]), field_problem(item)) for item in reversed(error.errors())]
    return Options(), {name: problem.message.partition(": ")[2] for name, problem in found}


def make_option_fields(texts: Mapping[str, str], wrong: Mapping[str, str]) -> list[FormField]:
    """The fields of the form."""
    return make_fields(_SCHEMA, texts, wrong)
