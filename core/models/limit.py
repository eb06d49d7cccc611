"""Limits: how many tasks run at once and how many begin in a time, over all apps and jobs that name the same limit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from core.basics.keywords import constructor_suggests_names
from core.errors import InvalidParameters
from core.models.refs import StageRef

MOST_NAME_CHARACTERS = 200
# The largest number of limits of one stage: a claim locks all of them.
MOST_PER_STAGE = 8
_UNITS = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
_RATE = re.compile(r"([0-9]{1,9}) ?/ ?([0-9]{1,6})? ?(s|min|h|day)")
_LONGEST_PERIOD = 31 * 86_400
_PLACE = re.compile(r"\{params\.([^{}]+)\}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Frozen):
    """How many tasks may begin in any period of this length. Written as `100/min`, `10/s`, `1000/h` or `5/30s`."""

    count: Annotated[int, Field(ge=0, le=999_999_999)]
    seconds: Annotated[float, Field(ge=1, le=_LONGEST_PERIOD)]

    @classmethod
    def read(cls, value: object) -> object:
        """A rate from its text; its fields are left to the model. Raises ValueError for anything else."""
        if value is None or isinstance(value, Mapping | cls):
            return value
        found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"expected a rate such as '100/min', '10/s', '5/30s' or '1000/day', found {value!r:.60}")
        return {"count": int(found[1]), "seconds": int(found[2] or 1) * _UNITS[found[3]]}

    def __str__(self) -> str:
        for unit, size in reversed(_UNITS.items()):
            if self.seconds % size == 0:
                times = round(self.seconds / size)
                return f"{self.count}/{times if times > 1 else ''}{unit}"
        return f"{self.count}/{self.seconds:g}s"


def check_limit_name(name: str) -> str:
    """Raises ValueError for a name that nobody could write or read."""
    if not name.isprintable() or name != name.strip():
        raise ValueError("expected a name of printable characters, without spaces at its ends")
    return name


LimitName = Annotated[str, Field(min_length=1, max_length=MOST_NAME_CHARACTERS), AfterValidator(check_limit_name)]
AtOnce = Annotated[int, Field(ge=0, le=1_000_000)]
TextRate = Annotated[Rate, BeforeValidator(Rate.read)]


@constructor_suggests_names
class Limit(_Frozen):
    """A limit as a stage declares it. Without `at_once` and `rate` it is whatever its row has; none at first.

    Args:
        name: Its name in all apps; `{params.x}` is replaced by the job's parameter `x`.
        at_once: How many tasks may run at a time; 0 lets none begin.
        rate: How many may begin in a time, such as `100/min`.
    """

    name: LimitName
    at_once: AtOnce | None = None
    rate: TextRate | None = None

    if TYPE_CHECKING:
        # A type checker takes the types of the fields for those of the arguments.
        def __init__(self, *, name: str, at_once: int | None = None, rate: Rate | str | None = None) -> None: ...


def named_limit(value: object) -> object:
    """A name alone is a limit of that name."""
    return {"name": value} if isinstance(value, str) else value


DeclaredLimit = Annotated[Limit, BeforeValidator(named_limit)]


def places_in(name: str) -> list[str]:
    """The parameters of the job that a declared name has in it. Raises ValueError for brackets of another kind."""
    if re.search(r"[{}]", _PLACE.sub("", name)):
        raise ValueError("expected brackets only in places such as {params.server}")
    return _PLACE.findall(name)


def filled_in(limit: Limit, parameters: Mapping[str, Any]) -> Limit:
    """The limit with the job's parameters in its name.

    Raises:
        InvalidParameters: A parameter that the name needs is missing, or makes no name.
    """

    def fill(place: re.Match[str]) -> str:
        value = parameters.get(place[1])
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise InvalidParameters(
                f"parameters.{place[1]}: expected a text or an integer, which names the limit {limit.name!r}, found "
                f"{'nothing' if value is None or value == '' else type(value).__name__}"
            )
        return str(value)

    name = _PLACE.sub(fill, limit.name)
    try:
        check_limit_name(name)
    except ValueError as error:
        raise InvalidParameters(f"the name of the limit {limit.name!r}: {error}, found {name!r:.100}") from None
    if len(name) > MOST_NAME_CHARACTERS:
        raise InvalidParameters(
            f"the name of the limit {limit.name!r}: expected at most {MOST_NAME_CHARACTERS} characters with the job's "
            f"parameters in it, found {len(name)}"
        )
    return limit.model_copy(update={"name": name})


@dataclass(frozen=True, slots=True)
class LimitHolder:
    """A stage whose tasks have places of a limit."""

    job_id: str
    run: int
    stage: int
    count: int

    @property
    def stage_ref(self) -> StageRef:
        return StageRef(self.job_id, self.run, self.stage)


@dataclass(frozen=True, slots=True)
class LimitWaiter:
    """A stage with tasks that wait for a limit, in the order in which they are served."""

    job_id: str
    job_type: str
    run: int
    stage: int


@dataclass(frozen=True)
class LimitFacts:
    """A limit, and how it is used at the time of the look.

    Args:
        held: Tasks that run under it, and some that were cut off and may still run.
        reserved: Tasks whose message was sent, and for which a place is kept for a while.
        begun: How many began in the last period of the rate.
        waiting: Stages with tasks that wait for it.
        next_at: When the rate lets the next task begin; None where it does not hold anything.
        holders: The stages that hold places, those with most of them first.
    """

    name: str
    at_once: int | None
    rate: Rate | None
    is_edited: bool
    held: int
    reserved: int
    begun: int
    waiting: int
    next_at: datetime | None = None
    edited_by: str | None = None
    edited_at: datetime | None = None
    reason: str | None = None
    holders: tuple[LimitHolder, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether no other task may begin now."""
        return (self.at_once is not None and self.held + self.reserved >= self.at_once) or self.is_rate_used_up

    @property
    def is_rate_used_up(self) -> bool:
        return self.rate is not None and self.begun + self.reserved >= self.rate.count

    @property
    def is_closed(self) -> bool:
        """Whether it lets no task begin, ever."""
        return self.at_once == 0 or (self.rate is not None and self.rate.count == 0)
