"""Results as tables for people or JSON for programs."""

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from core.safety.safe_text import brief_text
from coremachine.cli.times import show_time

SHORT_ID = 12
_LONGEST_CELL = 160
_SENTENCE_WIDTH = 30
_MOST_CHARACTERS = 10_000
# Of a pipe or a file, which has none: no text is as long.
_PIPE_WIDTH = 1_000_000
# Up to this number of columns it is a table, however long the texts are.
_FEW_COLUMNS = 3
_COLOURS = {
    "completed": "green",
    "completed_with_errors": "yellow",
    "failed": "red",
    "cancelled": "magenta",
    "cancelling": "magenta",
    "processing": "cyan",
    "pending_retry": "yellow",
}


class SafeConsole(Console):
    """A console whose texts are only texts: names and messages steer no terminal, and `:100:` is no picture in them."""

    def __init__(self, *, file: Any, width: int | None = None, **options: Any) -> None:
        super().__init__(file=file, width=width, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible_lines(segment.text), segment.style)


def console(file: Any = None) -> Console:
    """Made when needed: tests and pipes replace stdout."""
    out = file or sys.stdout
    return SafeConsole(file=out, width=_PIPE_WIDTH if has_no_width(out) else None)


def markup_text(markup: str) -> Text:
    """A text with its colours; its words stay as they are, as on the console."""
    return Text.from_markup(markup, emoji=False)


def has_no_width(file: Any) -> bool:
    """Whether it is no terminal, such as a pipe: nothing is cut there, unless COLUMNS has its width."""
    return not os.environ.get("COLUMNS") and not file.isatty()


def visible(text: str) -> str:
    """The text on one line, with escapes for line breaks, terminal sequences and the like."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def visible_lines(text: str) -> str:
    """The same, with its lines left as they are."""
    return "\n".join(visible(line) for line in text.split("\n"))


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


def say(text: str) -> None:
    """To people, on stderr, beside the result."""
    sys.stderr.write(f"{visible_lines(text)}\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    # Line breaks inside of texts are escapes already: what is left there is the layout.
    sys.stdout.write(visible_lines(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


def print_json_line(value: Any) -> None:
    """For a program that reads as it comes."""
    sys.stdout.write(visible_lines(json.dumps(value, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def print_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    empty: str,
    spare: Sequence[str] = (),
    sentence: str | None = None,
) -> None:
    """A table with one column for each key; `empty` is said when there is nothing.

    Args:
        spare: Columns that a narrow terminal does not get, the first to be left out first. A line names them.
        sentence: The column whose texts are folded where the others need the room, and only then.
    """
    rows = list(rows)
    show = console()
    if not rows:
        show.print(escape(empty))
        return
    left_out: list[str] = []
    shown = list(columns)
    narrow = [{**row, sentence: str(row.get(sentence) or "")[:_SENTENCE_WIDTH]} if sentence else row for row in rows]
    for column in spare:
        if _needed_width(_rows_table(narrow, shown, sentence), show) <= show.width:
            break
        left_out.append(column)
        shown.remove(column)
    show.print(_rows_table(rows, shown, sentence))
    if left_out:
        names = ", ".join(name.replace("_", " ") for name in left_out)
        show.print(f"[dim]left out, since the terminal is narrow: {names}; -o json has all[/dim]")


def _needed_width(table: Table, show: Console) -> int:
    """In characters, so that no text is folded; rich itself stops at the console's width."""
    return Measurement.get(show, show.options.update(max_width=_MOST_CHARACTERS), table).maximum


def _rows_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], sentence: str | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_whole = sentence is not None and column != sentence
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=is_whole)
    for row in rows:
        table.add_row(*(cell(column, row.get(column), is_whole=has_no_width(sys.stdout)) for column in columns))
    return table


def print_whole(value: Any, *, depth: int = 0) -> None:
    """A JSON value for people, with nothing left out: names with their values, and lists of alike objects as tables."""
    show = console()
    for line in _lines_of(value, depth, show.width):
        show.print(line, highlight=False, soft_wrap=isinstance(line, str))


def _lines_of(value: Any, depth: int, width: int) -> Iterator[RenderableType]:
    indent = "  " * depth
    if isinstance(value, Mapping):
        # What fits on a line comes first.
        for name, inner in sorted(value.items(), key=lambda item: _has_parts(item[1])):
            beginning = f"{indent}[bold]{escape(visible(str(name)))}[/bold]"
            yield beginning if _has_parts(inner) else f"{beginning} {_text_of(inner)}"
            if _has_parts(inner):
                yield from _lines_of(inner, depth + 1, width)
    elif isinstance(value, list) and (table := _table_of(value, width - 2 * depth)) is not None:
        yield Padding(table, (0, 0, 0, 2 * depth), expand=False)
    elif isinstance(value, list):
        for each in value:
            yield f"{indent}-" if _has_parts(each) else f"{indent}- {_text_of(each)}"
            if _has_parts(each):
                yield from _lines_of(each, depth + 1, width)
    else:
        yield f"{indent}{_text_of(value)}"


def _has_parts(value: Any) -> bool:
    return isinstance(value, Mapping | list) and bool(value)


def _table_of(rows: Sequence[Any], width: int) -> Table | None:
    """None for what is no table, or too wide to be read as one."""
    if not rows or not all(isinstance(row, Mapping) and row and not any(map(_has_parts, row.values())) for row in rows):
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[_text_of(row.get(name)) for name in names] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(escape(visible(str(name))), overflow="fold")
    for row in texts:
        table.add_row(*row)
    needed = sum(
        max(len(name), *map(len, column)) + 2 for name, column in zip(names, zip(*texts, strict=True), strict=True)
    )
    return table if len(names) <= _FEW_COLUMNS or needed <= width else None


def _text_of(value: Any) -> str:
    if value is None:
        return "[dim]none[/dim]"
    if isinstance(value, float):
        # As people read them; the JSON has all digits.
        return f"{value:.6g}"
    return escape(visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))


def cell(column: str, value: Any, *, is_whole: bool = False) -> str:
    """A value as markup; `is_whole`: nothing of it is cut."""
    if value is None or value == {}:
        return ""
    if column == "status":
        return status_markup(str(value))
    if column == "job_id":
        return escape(visible(str(value) if is_whole else str(value)[:SHORT_ID]))
    if column.endswith("at") and isinstance(value, str):
        return local_time(value)
    text = _plain(value)
    return escape(text if is_whole or len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…")


def _plain(value: Any) -> str:
    """A value on one line: a list of single values without brackets, other parts as JSON."""
    if isinstance(value, list) and not any(isinstance(each, Mapping | list) for each in value):
        return ", ".join(map(_plain, value))
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def status_markup(status: str) -> str:
    colour = _COLOURS.get(status, "default")
    return f"[{colour}]{escape(visible(status))}[/{colour}]"


def local_time(text: str, *, milliseconds: bool = False) -> str:
    """An RFC 3339 instant on this machine's clock (with --utc in UTC), with its zone; its date if that is not today."""
    try:
        return show_time(datetime.fromisoformat(text), milliseconds=milliseconds)
    except (ValueError, OverflowError):
        return escape(visible(text))


def change_text(change: Mapping[str, Any]) -> str:
    """The latest change of a thing as its row has it: `paused 14:30:05 CET by kim (lunch)`."""
    by = f" by {change['actor']}" if change.get("actor") else ""
    why = f" ({change['reason']})" if change.get("reason") else ""
    at = f" {local_time(str(change['at']))}" if change.get("at") else ""
    return f"{escape(visible(str(change.get('action', ''))))}{at}{escape(visible(by + why))}"


def print_fields(found: Mapping[str, Any], *, without: Collection[str] = ()) -> None:
    """Names with their values, a line each; what is empty is left out."""
    show = console()
    for name, value in found.items():
        if value in (None, "", {}, []) or name in without:
            continue
        if name == "last_change":
            text = change_text(value)
        else:
            text = local_time(value) if name.endswith(("_at", "_until")) else escape(_plain(value))
        show.print(f"[bold]{escape(visible(name))}[/bold] {text}", highlight=False, soft_wrap=True)


def count_text(count: int, one: str, many: str | None = None) -> str:
    """`1 task`, `2 tasks`, `1 job matches`, `2 jobs match`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from one RFC 3339 instant to another (None: now)."""
    if start is None:
        return None
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return max(0.0, (until - datetime.fromisoformat(start)).total_seconds())


def seconds_of_run(job: Mapping[str, Any]) -> float | None:
    """How long a job's present run took, or runs until now; None where nobody knows when it began."""
    began = job.get("run_started_at")
    if began is None and job.get("run", 1) == 1:
        began = job.get("created_at")
    return seconds_between(began, job.get("finished_at"))


def duration_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def error_text(error: Mapping[str, Any] | None, *, see: str | None = None) -> str:
    """A stored failure in one line: its type and message, the beginning of a long one, and where to `see` the rest.

    All of it where a line has no width.
    """
    if not error:
        return ""
    kind, message = error.get("type") or error.get("error_type"), error.get("message")
    if message is None:
        return brief_text(json.dumps(error, ensure_ascii=False), see=see)
    told = str(message).strip()
    # `Cancelled: cancelled` without a reason.
    if str(kind).lower() == told.lower():
        return str(kind)
    text = f"{kind}: {told}" if kind else told
    return " ".join(text.split()) if has_no_width(sys.stdout) else brief_text(text, see=see)
