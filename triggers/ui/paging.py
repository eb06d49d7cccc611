"""Lists that show some statuses first: pages of one group after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.models.view import Page
from infrastructure.queries import InvalidCursor

Item = TypeVar("Item")
Group = TypeVar("Group")


@dataclass(frozen=True)
class Chain(Generic[Group, Item]):
    """Groups in the order in which they are shown; `fetch` gives a page (group, limit, cursor) of one of them."""

    groups: Sequence[Group]
    fetch: Callable[[Group, int, str | None], Page[Item]]

    def read(self, limit: int, cursor: str | None) -> Page[Item]:
        """A full page where there is enough, over the ends of groups.

        Raises:
            InvalidCursor: A `cursor` that this list did not give.
        """
        group, place = self._parse(cursor)
        items: list[Item] = []
        while group < len(self.groups) and len(items) < limit:
            page = self.fetch(self.groups[group], limit - len(items), place)
            items += page.items
            if page.next_cursor is not None:
                return Page(tuple(items), f"{group}-{page.next_cursor}")
            group, place = group + 1, None
        return Page(tuple(items), self._find_next(group))

    def _find_next(self, group: int) -> str | None:
        rest = range(group, len(self.groups))
        found = next((each for each in rest if self.fetch(self.groups[each], 1, None).items), None)
        return None if found is None else f"{found}-"

    def _parse(self, cursor: str | None) -> tuple[int, str | None]:
        if cursor is None:
            return 0, None
        number, dash, place = cursor.partition("-")
        if not dash or not number.isascii() or not number.isdigit() or int(number) >= len(self.groups):
            raise InvalidCursor(cursor)
        return int(number), place or None
