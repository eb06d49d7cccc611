"""The broker's configuration, read from the `Config.json` of Microsoft's Service Bus emulator.

Defaults and allowed ranges are the emulator's, so that the same file works with both.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from coremachine.local.broker.durations import parse_duration
from coremachine.local.broker.rules import CorrelationFilter, Rule
from coremachine.local.broker.sql_action import SqlAction
from coremachine.local.broker.sql_filter import SqlFilter
from coremachine.local.broker.stored import QueueSettings

_COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_NAME = r"^[A-Za-z0-9]([\w\-./]*[A-Za-z0-9])?$"


class ConfigError(ValueError):
    """A configuration that cannot be used; names the file and the places in it."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path, self.problems = path, problems
        super().__init__(f"{path}: " + "; ".join(problems))


def _between(lowest: int, highest: int) -> AfterValidator:
    def check(seconds: float) -> float:
        if not lowest <= seconds <= highest:
            raise ValueError(f"expected a duration of {lowest} to {highest} seconds, found {seconds:g}")
        return seconds

    return AfterValidator(check)


_Duration = Annotated[float, BeforeValidator(parse_duration)]
_Name = Annotated[str, Field(pattern=_NAME, max_length=260)]
_PART_NAME = r"^[A-Za-z0-9]([\w\-.]*[A-Za-z0-9])?$"
_PartName = Annotated[str, Field(pattern=_PART_NAME, max_length=50)]
_TimeToLive = Annotated[_Duration, _between(300, 3600)]
_Window = Annotated[_Duration, _between(5, 300)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _DeliveryProperties(_Model):
    """What queues and subscriptions have in common."""

    DeadLetteringOnMessageExpiration: bool = False
    DefaultMessageTimeToLive: _TimeToLive = 3600.0
    ForwardTo: str | None = None
    ForwardDeadLetteredMessagesTo: str | None = None
    LockDuration: Annotated[_Duration, _between(5, 300)] = 60.0
    MaxDeliveryCount: Annotated[int, Field(ge=1, le=10)] = 3
    RequiresSession: bool = False

    def settings(self, name: str, duplicate_window_seconds: float | None = None) -> QueueSettings:
        return QueueSettings(
            name=name,
            lock_duration_seconds=self.LockDuration,
            max_delivery_count=self.MaxDeliveryCount,
            default_ttl_seconds=self.DefaultMessageTimeToLive,
            dead_letter_on_expiration=self.DeadLetteringOnMessageExpiration,
            duplicate_window_seconds=duplicate_window_seconds,
            requires_session=self.RequiresSession,
            forward_to=self.ForwardTo or None,
            forward_dead_letters_to=self.ForwardDeadLetteredMessagesTo or None,
        )


class _QueueProperties(_DeliveryProperties):
    DuplicateDetectionHistoryTimeWindow: _Window = 20.0
    RequiresDuplicateDetection: bool = False
    EnablePartitioning: bool = False


class _TopicProperties(_Model):
    DefaultMessageTimeToLive: _TimeToLive = 3600.0
    DuplicateDetectionHistoryTimeWindow: _Window = 20.0
    RequiresDuplicateDetection: bool = False
    EnablePartitioning: bool = False


class _Queue(_Model):
    Name: _Name
    Properties: _QueueProperties = Field(default_factory=_QueueProperties)

    def settings(self) -> QueueSettings:
        chosen = self.Properties
        window = chosen.DuplicateDetectionHistoryTimeWindow if chosen.RequiresDuplicateDetection else None
        return chosen.settings(self.Name, window)


class _Correlation(_Model):
    ContentType: str | None = None
    CorrelationId: str | None = None
    Label: str | None = None
    MessageId: str | None = None
    ReplyTo: str | None = None
    ReplyToSessionId: str | None = None
    SessionId: str | None = None
    To: str | None = None
    Properties: dict[str, str | int | float | bool] = {}


class _Sql(_Model):
    SqlExpression: str


class _RuleProperties(_Model):
    FilterType: Literal["Correlation", "Sql"]
    CorrelationFilter: _Correlation | None = None
    SqlFilter: _Sql | None = None
    Action: _Sql | None = None

    @model_validator(mode="after")
    def _has_its_filter(self) -> "_RuleProperties":
        if self.FilterType == "Sql":
            if self.SqlFilter is None:
                raise ValueError("expected a SqlFilter for the FilterType Sql, found none")
            SqlFilter(self.SqlFilter.SqlExpression)
        elif self.CorrelationFilter is None:
            raise ValueError("expected a CorrelationFilter for the FilterType Correlation, found none")
        if self.Action is not None:
            SqlAction(self.Action.SqlExpression)
        return self


class _Rule(_Model):
    Name: _PartName
    Properties: _RuleProperties

    def rule(self) -> Rule:
        chosen = self.Properties
        action = SqlAction(chosen.Action.SqlExpression) if chosen.Action else None
        if chosen.SqlFilter is not None and chosen.FilterType == "Sql":
            return Rule(self.Name, SqlFilter(chosen.SqlFilter.SqlExpression), action)
        wanted = (chosen.CorrelationFilter or _Correlation()).model_dump(exclude_none=True)
        properties = wanted.pop("Properties")
        return Rule(self.Name, CorrelationFilter({k.lower(): v for k, v in wanted.items()}, properties), action)


class _Subscription(_Model):
    Name: _PartName
    Properties: _DeliveryProperties = Field(default_factory=_DeliveryProperties)
    Rules: list[_Rule] = []

    def settings(self) -> "SubscriptionSettings":
        rules = tuple(rule.rule() for rule in self.Rules)
        return SubscriptionSettings(self.Properties.settings(self.Name), rules or None)


class _Topic(_Model):
    Name: _Name
    Properties: _TopicProperties = Field(default_factory=_TopicProperties)
    Subscriptions: list[_Subscription] = []

    def settings(self) -> "TopicSettings":
        chosen = self.Properties
        window = chosen.DuplicateDetectionHistoryTimeWindow if chosen.RequiresDuplicateDetection else None
        settings = QueueSettings(
            name=self.Name, default_ttl_seconds=chosen.DefaultMessageTimeToLive, duplicate_window_seconds=window
        )
        return TopicSettings(settings, tuple(each.settings() for each in self.Subscriptions))


class _Namespace(_Model):
    # The emulator has one name and warns about another; no client sees it.
    Name: str
    Queues: list[_Queue] = []
    Topics: list[_Topic] = []


class _UserConfig(_Model):
    Namespaces: Annotated[list[_Namespace], Field(min_length=1, max_length=1)]
    Logging: dict[str, object] = {}


class _File(_Model):
    UserConfig: _UserConfig


@dataclass(frozen=True)
class SubscriptionSettings:
    """A subscription; without rules it takes every message."""

    settings: QueueSettings
    rules: tuple[Rule, ...] | None = None


@dataclass(frozen=True)
class TopicSettings:
    """A topic and its subscriptions."""

    settings: QueueSettings
    subscriptions: tuple[SubscriptionSettings, ...] = ()


@dataclass(frozen=True)
class BrokerConfig:
    """Which queues and topics there are."""

    queues: tuple[QueueSettings, ...]
    topics: tuple[TopicSettings, ...] = ()

    @classmethod
    def for_queues(
        cls,
        names: Iterable[str],
        *,
        lock_duration_seconds: float = 60.0,
        max_delivery_count: int = 10,
        default_ttl_seconds: float | None = 3600.0,
        dead_letter_on_expiration: bool = False,
        duplicate_window_seconds: float | None = None,
    ) -> "BrokerConfig":
        """Queues of these names with the same settings; the emulator's ranges do not apply."""
        return cls(
            tuple(
                QueueSettings(
                    name=name,
                    lock_duration_seconds=lock_duration_seconds,
                    max_delivery_count=max_delivery_count,
                    default_ttl_seconds=default_ttl_seconds,
                    dead_letter_on_expiration=dead_letter_on_expiration,
                    duplicate_window_seconds=duplicate_window_seconds,
                )
                for name in names
            )
        )


def default_config_path() -> Path:
    """What comes with the broker: the project's own queues, in Microsoft's emulator's terms too."""
    return Path(__file__).with_name("Config.json")


def load_config(path: str | Path) -> BrokerConfig:
    """Read a `Config.json`; comments are allowed.

    Raises:
        ConfigError: It cannot be read, is not JSON, or asks for what the broker or the emulator does not have.
    """
    path = Path(path)
    try:
        text = _without_comments(path.read_text(encoding="utf-8-sig"))
        document = json.loads(text, object_pairs_hook=_unrepeated)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(path, [f"expected a readable file, found: {exc}"]) from exc
    except json.JSONDecodeError as exc:
        raise ConfigError(path, [f"expected JSON, found at line {exc.lineno}, column {exc.colno}: {exc.msg}"]) from exc
    except (RecursionError, ValueError) as exc:
        raise ConfigError(path, [f"expected JSON of such a configuration, found: {exc}"]) from exc
    try:
        namespace = _File.model_validate(document).UserConfig.Namespaces[0]
    except ValidationError as exc:
        raise ConfigError(path, [_problem(each) for each in exc.errors()]) from exc
    problems = [*_repeated_names(namespace), *_missing_targets(namespace)]
    if problems:
        raise ConfigError(path, problems)
    return BrokerConfig(
        tuple(queue.settings() for queue in namespace.Queues), tuple(topic.settings() for topic in namespace.Topics)
    )


def _repeated_names(namespace: _Namespace) -> list[str]:
    """Queues and topics share their names; case does not matter."""
    root = "$.UserConfig.Namespaces[0]"
    named = [(f"{root}.Queues[{index}]", queue.Name) for index, queue in enumerate(namespace.Queues)]
    named += [(f"{root}.Topics[{index}]", topic.Name) for index, topic in enumerate(namespace.Topics)]
    groups = [named]
    for index, topic in enumerate(namespace.Topics):
        where = f"{root}.Topics[{index}].Subscriptions"
        groups.append([(f"{where}[{number}]", each.Name) for number, each in enumerate(topic.Subscriptions)])
        for number, each in enumerate(topic.Subscriptions):
            groups.append([(f"{where}[{number}].Rules[{at}]", rule.Name) for at, rule in enumerate(each.Rules)])
    problems = []
    for group in groups:
        seen: set[str] = set()
        for where, name in group:
            if name.lower() in seen:
                problems.append(f"{where}.Name: expected a name of its own (case does not matter), found {name!r}")
            seen.add(name.lower())
    return problems


def _missing_targets(namespace: _Namespace) -> list[str]:
    """What is forwarded goes to another queue or a topic that exists."""
    root = "$.UserConfig.Namespaces[0]"
    sources: list[tuple[str, str, _DeliveryProperties]] = [
        (f"{root}.Queues[{index}].Properties", queue.Name, queue.Properties)
        for index, queue in enumerate(namespace.Queues)
    ]
    for index, topic in enumerate(namespace.Topics):
        where = f"{root}.Topics[{index}].Subscriptions"
        sources += [(f"{where}[{at}].Properties", "", each.Properties) for at, each in enumerate(topic.Subscriptions)]
    targets = {queue.Name.lower() for queue in namespace.Queues} | {topic.Name.lower() for topic in namespace.Topics}
    problems = []
    for where, name, properties in sources:
        for field in ("ForwardTo", "ForwardDeadLetteredMessagesTo"):
            target = getattr(properties, field)
            if target and target.lower() not in targets - {name.lower()}:
                problems.append(f"{where}.{field}: expected another queue or a topic of this file, found {target!r}")
    return problems


def _unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return found


def _problem(error: ErrorDetails) -> str:
    """A place of the file, with what was expected there and what was found."""
    place, kind, message = _json_path(error["loc"]), error["type"], error["msg"]
    if kind == "value_error":
        return f"{place}: {message.removeprefix('Value error, ')}"
    if kind == "missing":
        return f"{place}: expected a value, found none"
    found = "an unknown key" if kind == "extra_forbidden" else f"{error['input']!r:.100}"
    expected = {
        "extra_forbidden": "one of the keys of Microsoft's emulator",
        "dict_type": "an object",
        "list_type": "a list",
        "model_type": "an object",
        "string_pattern_mismatch": "a name of letters, digits, '.', '-', '_' with a letter or digit at both ends",
        "too_long": "one item",
        "too_short": "one item",
    }
    said = message.removeprefix("Input should be ").removeprefix("String should have ")
    return f"{place}: expected {expected.get(kind, said)}, found {found}"


def _without_comments(text: str) -> str:
    """Blank out comments; line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return _COMMENT_OR_STRING.sub(blank, text)


def _json_path(location: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
