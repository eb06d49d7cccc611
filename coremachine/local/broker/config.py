"""The broker's configuration, read from the `Config.json` of Microsoft's Service Bus emulator.

Defaults and allowed ranges are the emulator's, so that the same file runs on both.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from coremachine.local.broker.queue import QueueSettings

_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_NAME = r"^[A-Za-z0-9]([\w\-./]*[A-Za-z0-9])?$"


class ConfigError(ValueError):
    """A configuration that cannot be used; names the file and the places in it."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path, self.problems = path, problems
        super().__init__(f"{path}: " + "; ".join(problems))


def parse_duration(text: object) -> float:
    """Seconds of an ISO 8601 duration such as PT1M30S."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or not any(match.groups()):
        raise ValueError(f"expected an ISO 8601 duration such as PT1M, found {text!r}")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def format_duration(seconds: float) -> str:
    return f"PT{seconds:g}S"


def _empty(value: object) -> object:
    if value:
        raise ValueError(f"expected it empty or left out, since the local broker does not forward; found {value!r}")
    return value


def _no_sessions(value: object) -> object:
    if value:
        raise ValueError("expected false, since the local broker has no sessions yet")
    return value


def _no_topics(value: list[object]) -> list[object]:
    if value:
        raise ValueError("expected no topics, since the local broker has only queues yet; remove them")
    return value


_Duration = Annotated[float, BeforeValidator(parse_duration)]
_Forward = Annotated[str | None, AfterValidator(_empty)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _QueueProperties(_Model):
    DeadLetteringOnMessageExpiration: bool = False
    DefaultMessageTimeToLive: Annotated[_Duration, Field(ge=300, le=3600)] = 3600.0
    DuplicateDetectionHistoryTimeWindow: Annotated[_Duration, Field(ge=5, le=300)] = 20.0
    ForwardTo: _Forward = None
    ForwardDeadLetteredMessagesTo: _Forward = None
    LockDuration: Annotated[_Duration, Field(ge=5, le=300)] = 60.0
    MaxDeliveryCount: Annotated[int, Field(ge=1, le=10)] = 3
    RequiresDuplicateDetection: bool = False
    RequiresSession: Annotated[bool, AfterValidator(_no_sessions)] = False


class _Queue(_Model):
    Name: Annotated[str, Field(pattern=_NAME, max_length=260)]
    Properties: _QueueProperties = Field(default_factory=_QueueProperties)

    def settings(self) -> QueueSettings:
        chosen = self.Properties
        return QueueSettings(
            name=self.Name,
            lock_duration_seconds=chosen.LockDuration,
            max_delivery_count=chosen.MaxDeliveryCount,
            default_ttl_seconds=chosen.DefaultMessageTimeToLive,
            dead_letter_on_expiration=chosen.DeadLetteringOnMessageExpiration,
            duplicate_window_seconds=(
                chosen.DuplicateDetectionHistoryTimeWindow if chosen.RequiresDuplicateDetection else None
            ),
        )


class _Namespace(_Model):
    Name: Literal["sbemulatorns"]
    Queues: list[_Queue] = []
    Topics: Annotated[list[object], AfterValidator(_no_topics)] = []


class _UserConfig(_Model):
    Namespaces: Annotated[list[_Namespace], Field(min_length=1, max_length=1)]
    Logging: dict[str, object] = {}


class _File(_Model):
    UserConfig: _UserConfig


@dataclass(frozen=True)
class BrokerConfig:
    """Which queues there are."""

    queues: tuple[QueueSettings, ...]

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
        document = json.loads(_without_comments(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(path, [f"expected a readable file, found: {exc}"]) from exc
    except json.JSONDecodeError as exc:
        raise ConfigError(path, [f"expected JSON, found at line {exc.lineno}, column {exc.colno}: {exc.msg}"]) from exc
    try:
        namespace = _File.model_validate(document).UserConfig.Namespaces[0]
    except ValidationError as exc:
        raise ConfigError(path, [f"{_json_path(each['loc'])}: {each['msg']}" for each in exc.errors()]) from exc
    queues = tuple(queue.settings() for queue in namespace.Queues)
    seen: set[str] = set()
    for index, queue in enumerate(queues):
        if queue.name.lower() in seen:
            where = f"$.UserConfig.Namespaces[0].Queues[{index}].Name"
            raise ConfigError(
                path, [f"{where}: expected a name of its own (case does not matter), found {queue.name!r}"]
            )
        seen.add(queue.name.lower())
    return BrokerConfig(queues)


def _without_comments(text: str) -> str:
    """Blank out comments; line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return _COMMENT_OR_STRING.sub(blank, text)


def _json_path(location: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
