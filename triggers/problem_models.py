"""What every answer of an error holds: RFC 9457, with a stable `code` to decide by."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel

_LONGEST_TEXT, _LONGEST_DETAIL, _LONGEST_NAME = 1000, 8000, 300


def _cut(longest: int) -> AfterValidator:
    """Text that can be sent, whatever the request held: encodable, and no longer than people read."""

    def cut(text: str) -> str:
        text = text if len(text) <= longest else f"{text[:longest]}..."
        return text.encode("utf-8", "backslashreplace").decode()

    return AfterValidator(cut)


Name = Annotated[str, _cut(_LONGEST_NAME)]
Text = Annotated[str, _cut(_LONGEST_TEXT)]


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    field: Name
    expected: Text
    found: Text | None = None
    hint: Text | None = None
    message: Text


class Problem(BaseModel):
    """What every answer from 400 up holds. Decide by `code`; `detail` is for people and may change."""

    type: str
    title: str
    status: int
    detail: Annotated[str, _cut(_LONGEST_DETAIL)]
    instance: Name
    code: str
    # The first of what is wrong, and how many more there are.
    errors: list[FieldProblem] | None = None
    more_errors: int | None = None
    # Of a conflict: the job's status, the run that is there instead, and the actions that are allowed.
    job_status: str | None = None
    job_run: int | None = None
    run_url: str | None = None
    allowed_actions: list[str] | None = None
