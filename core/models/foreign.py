"""Triggers and rules that somebody else put on the engine's tables."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ForeignTrigger:
    """A trigger before each row, or a rule, that may leave out or replace a change without an error.

    Args:
        schema: Of the table.
        function: What a trigger calls, with its schema; None for a rule.
    """

    schema: str
    table: str
    name: str
    function: str | None = None

    @property
    def is_rule(self) -> bool:
        """No rule leaves the engine's statements as they are: with one, the app is not ready."""
        return self.function is None

    @property
    def text(self) -> str:
        if self.is_rule:
            return f"rule {self.name} on {self.schema}.{self.table}"
        return f"trigger {self.name} before each row of {self.schema}.{self.table} (function {self.function})"

    @property
    def advice(self) -> str:
        if self.is_rule:
            return f"run: drop rule {self.name} on {self.schema}.{self.table}"
        return (
            "if it leaves rows out (returns null), make it an after trigger, or run: alter table "
            f"{self.schema}.{self.table} disable trigger {self.name}"
        )


def why_not_ready(found: Iterable[ForeignTrigger]) -> str | None:
    """What is wrong with these rules, and what to do; None where there is none."""
    rules = [each for each in found if each.is_rule]
    if not rules:
        return None
    names = ", ".join(each.text for each in rules)
    return f"expected tables without rules, found {names}; {'; '.join(each.advice for each in rules)}"


def why_doubtful(found: Iterable[ForeignTrigger]) -> str | None:
    """What these triggers might do, and what to do then; None where there is none."""
    triggers = [each for each in found if not each.is_rule]
    if not triggers:
        return None
    names = ", ".join(each.text for each in triggers)
    return f"found {names}; {'; '.join(each.advice for each in triggers)}"
