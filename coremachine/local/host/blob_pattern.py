"""The path of a blob trigger: `container/{name}.csv`, of which the parts in braces are the function's binding data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coremachine.local.host.errors import BlobPathError

# A literal brace is written twice.
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class BlobPattern:
    """Which blobs of a container trigger a function.

    Attributes:
        text: As the app wrote it.
        container: The container's name.
        prefix: What the names of all its blobs begin with.
        name: Matches the whole name of a blob, with a group for each part in braces.
    """

    text: str
    container: str
    prefix: str
    name: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> BlobPattern:
        """Read a path such as `container/{name}`; a container alone means all of its blobs.

        Raises:
            BlobPathError: it has no container, an expression in it, or a brace without its other half.
        """
        container, slash, rest = text.strip("/").partition("/")
        if not container or "{" in container:
            raise BlobPathError(text, "a container's name before the first slash", repr(container))
        if not slash:
            return cls(text, container, "", re.compile(".*", re.DOTALL))
        parts = list(_parts(text, rest))
        prefix = "" if not parts or parts[0][1] else parts[0][0]
        pattern = "".join(f"(?P<{part}>.*)" if is_name else re.escape(part) for part, is_name in parts)
        return cls(text, container, prefix, re.compile(pattern, re.DOTALL))

    def match(self, name: str) -> dict[str, str] | None:
        """The values of the parts in braces, or None for a blob that does not trigger the function."""
        found = self.name.fullmatch(name)
        return None if found is None else found.groupdict()


def _parts(text: str, rest: str) -> list[tuple[str, bool]]:
    """Literals and names of expressions in turn, each with whether it is a name."""
    parts: list[tuple[str, bool]] = []
    literal, names, end = "", set(), 0
    for match in _PART.finditer(rest):
        literal += rest[end : match.start()]
        end = match.end()
        if match[0] in {"{{", "}}"}:
            literal += match[0][0]
            continue
        name = match[1]
        if name is None or not name.isidentifier() or name in names:
            raise BlobPathError(text, "each {name} once, as an identifier in braces", repr(match[0]))
        names.add(name)
        parts += [(literal, False), (name, True)] if literal else [(name, True)]
        literal = ""
    literal += rest[end:]
    return [*parts, (literal, False)] if literal else parts
