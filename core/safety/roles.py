"""The four roles of callers, each with all that the ones before it may do, and the keys that carry them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

_KEY = re.compile(r"(?P<role>[a-z]+)(:(?P<name>[A-Za-z0-9._@-]{1,64}))?=(?P<digest>[0-9a-f]{64})")
_PREFIX = "coremachine."


class Role(IntEnum):
    """viewer: look. submitter: and submit. operator: and act on jobs, schedules, dead letters. admin: and delete."""

    VIEWER = 1
    SUBMITTER = 2
    OPERATOR = 3
    ADMIN = 4

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class KeyHolder:
    """Whose key it is. `name` is what the audit log has."""

    role: Role
    name: str


def find_role(text: str) -> Role | None:
    """The role of a word, such as `operator` or `CoreMachine.Operator`, an app role of Entra."""
    word = text.strip().lower().removeprefix(_PREFIX)
    return next((role for role in Role if role.word == word), None)


def digest_of(key: str) -> str:
    """What a setting holds in place of a key: who reads the setting has no key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_role_keys(text: str) -> tuple[Mapping[str, KeyHolder], list[str]]:
    """Holders by the digest of their key, from `role=digest` or `role:name=digest` with commas between; and problems.

    The text is in no problem: it may be a key that somebody took for its digest.
    """
    holders: dict[str, KeyHolder] = {}
    problems: list[str] = []
    for number, part in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        found = _KEY.fullmatch(part)
        role = find_role(found["role"]) if found else None
        if found is None or role is None:
            words = ", ".join(each.word for each in Role)
            problems.append(
                f"entry {number}: expected role=<SHA-256 of the key>, a role of {words}, found another text"
            )
        elif found["digest"] in holders:
            problems.append(f"entry {number}: expected each key once, found the one of an entry before")
        else:
            holders[found["digest"]] = KeyHolder(role, found["name"] or f"{role.word} key")
    return holders, problems
