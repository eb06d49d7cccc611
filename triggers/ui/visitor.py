"""The reader of a page, and what the page may offer. Requests are refused by the gate before the API, not here."""

from dataclasses import dataclass

from fastapi import Request

from core.safety.roles import Role


@dataclass(frozen=True)
class Visitor:
    """Of a request.

    Args:
        has_roles: Whether callers have roles here; without them every caller may do everything.
        role: None: the caller has none.
        key_name: The name of the key that it signed in with; None where it did not.
    """

    has_roles: bool = False
    role: Role | None = None
    key_name: str | None = None

    def may(self, word: str) -> bool:
        """Whether it has the role of this word, or a higher one."""
        return not self.has_roles or (self.role is not None and self.role >= Role[word.upper()])


def visitor_of(request: Request) -> Visitor:
    """As the gate found it."""
    if not hasattr(request.state, "role"):
        return Visitor()
    return Visitor(has_roles=True, role=request.state.role, key_name=request.state.key_name)
