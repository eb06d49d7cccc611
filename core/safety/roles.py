"""The four roles of callers, each with all that the ones before it may do, and the keys that carry them.

A role is for all job types, or for some of them: `submitter@flood_*`. One that is for some is no role anywhere else.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

_PATTERNS = r"[A-Za-z0-9_.*-]{1,100}(\|[A-Za-z0-9_.*-]{1,100}){0,19}"
_KEY = re.compile(rf"(?P<role>[a-z]+(@{_PATTERNS})?)(:(?P<name>[A-Za-z0-9._@-]{{1,64}}))?=(?P<digest>[0-9a-f]{{64}})")
_ROLE = re.compile(rf"(?P<word>[A-Za-z.]+)(@(?P<patterns>{_PATTERNS}))?")
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
class Grant:
    """A role, for job types that fit one of the patterns; a star is any characters. None: for everything."""

    role: Role
    patterns: tuple[str, ...] | None = None

    def covers(self, job_type: str) -> bool:
        return self.patterns is None or any(_fits(job_type, pattern) for pattern in self.patterns)


@dataclass(frozen=True)
class KeyHolder:
    """Whose key it is. `name` is what the audit log has."""

    grant: Grant
    name: str


@dataclass(frozen=True)
class Grants:
    """All that a caller was given."""

    each: tuple[Grant, ...] = ()

    @property
    def highest(self) -> Role | None:
        """The highest role, for whatever it is."""
        return max((grant.role for grant in self.each), default=None)

    @property
    def everywhere(self) -> Role | None:
        """The highest role that is for everything."""
        return max((grant.role for grant in self.each if grant.patterns is None), default=None)

    def role_for(self, job_type: str) -> Role | None:
        """The highest role for jobs of a type."""
        return max((grant.role for grant in self.each if grant.covers(job_type)), default=None)

    @property
    def has_limits(self) -> bool:
        """Whether a role is for some job types alone."""
        return any(grant.patterns is not None for grant in self.each)

    @property
    def patterns(self) -> tuple[str, ...] | None:
        """Of the job types that the caller may look at; None: all."""
        if self.everywhere is not None:
            return None
        return tuple(dict.fromkeys(pattern for grant in self.each for pattern in grant.patterns or ()))


def find_grant(text: str) -> Grant | None:
    """Of `operator` or `submitter@flood_*|hello_world`; of an app role of Entra, `CoreMachine.Operator`, as well."""
    found = _ROLE.fullmatch(text.strip())
    if found is None:
        return None
    word = found["word"].lower().removeprefix(_PREFIX)
    role = next((role for role in Role if role.word == word), None)
    patterns = found["patterns"]
    return None if role is None else Grant(role, None if patterns is None else tuple(patterns.split("|")))


def _fits(text: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def digest_of(key: str) -> str:
    """What a setting holds in place of a key: who reads the setting has no key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_role_keys(text: str) -> tuple[Mapping[str, KeyHolder], list[str]]:
    """Holders by the digest of their key, from `role=digest` or `role:name=digest` with commas between, and problems.

    A role may have job types: `submitter@flood_*:name=digest`.

    The text is in no problem: it may be a key that somebody took for its digest.
    """
    holders: dict[str, KeyHolder] = {}
    problems: list[str] = []
    for number, part in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        found = _KEY.fullmatch(part)
        grant = find_grant(found["role"]) if found else None
        if found is None or grant is None:
            words = ", ".join(each.word for each in Role)
            problems.append(
                f"entry {number}: expected role=<SHA-256 of the key>, a role of {words}, found another text"
            )
        elif found["digest"] in holders:
            problems.append(f"entry {number}: expected each key once, found the one of an entry before")
        else:
            holders[found["digest"]] = KeyHolder(grant, found["name"] or f"{grant.role.word} key")
    return holders, problems
