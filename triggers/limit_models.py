"""What the endpoints about limits take and answer."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from core.models.fields import Reason, expectation
from core.models.limit import AtOnce, Rate


def _read_rate(value: Any) -> Any:
    try:
        return Rate.model_validate(Rate.read(value)) if isinstance(value, str) else value
    except ValueError as error:
        raise expectation("a rate such as '100/min', '10/s', '5/30s' or '1000/day'", repr(value)[:60]) from error


class PutLimit(BaseModel):
    """A limit as it is to be from now on, whatever stages declare; what is left out or null is not limited."""

    model_config = ConfigDict(extra="forbid", strict=True)

    at_once: AtOnce | None = Field(
        default=None, description="How many tasks may run at a time, over all jobs and apps; 0 lets none begin."
    )
    rate: Annotated[
        Annotated[Rate, Field(strict=False)] | None,
        BeforeValidator(_read_rate, json_schema_input_type=str | None),
    ] = Field(default=None, description="How many may begin in any such time: `100/min`, `10/s`, `5/30s`, `1000/day`.")
    reason: Reason | None = None


class LimitHolding(BaseModel):
    """A stage whose tasks hold places."""

    job_id: str
    run: int
    stage: int
    count: int = Field(description="How many of its tasks do.")


class LimitAnswer(BaseModel):
    """A limit, and how it is used now."""

    name: str
    at_once: int | None = Field(description="How many tasks may run at a time; null: any number.")
    rate: str | None = Field(description="How many may begin in a time, such as 100/min; null: any number.")
    is_edited: bool = Field(description="Whether an operator chose the numbers; else stages declare them.")
    held: int = Field(description="How many places are held: by tasks that run, or were cut off and may still run.")
    reserved: int = Field(description="How many places are kept for tasks whose message was sent.")
    begun: int = Field(
        description="How many tasks began in the last period of the rate, which counts twentieths of it."
    )
    waiting: int = Field(description="How many stages wait for it.")
    next_at: datetime | None = Field(description="When a rate that is used up lets the next task begin.")
    edited_by: str | None
    edited_at: datetime | None
    reason: str | None
    holders: list[LimitHolding] = Field(
        description="The stages that hold places, those with most of them first; at most 20."
    )


class ForgottenLimit(BaseModel):
    """The limit whose numbers are left to its declarations."""

    name: str
