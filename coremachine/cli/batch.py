"""Many submissions from a file: one JSON object a line."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rich.markup import escape

from core.basics.strict_json import NotAnObject, parse_object
from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.errors import Exit, UsageProblem
from coremachine.cli.options import Output, wants_json
from coremachine.cli.render import SHORT_ID, console, count_text, print_json, visible

MOST_AT_ONCE = 1000
# Below what a server takes in one request.
_MOST_BYTES = 4 * 1024 * 1024
# No server takes a request of such a size.
_LONGEST_LINE = 64 * 1024 * 1024
_SHOWN_PROBLEMS = 20

_Line = tuple[int, Json]


def submit_lines(path: Path, output: Output | None, url: str | None) -> int:
    """Submit each line of the file (- is stdin), up to 1,000 at once: the exit code, 1 if one was refused."""
    outcomes: list[Json] = []
    with ApiClient(choose_server(url)) as client:
        for group in _groups(path):
            answer = client.submit_batch([item for _, item in group])
            for (number, _), outcome in zip(group, answer["value"], strict=True):
                outcomes.append({**outcome, "line": number})
    if not outcomes:
        raise UsageProblem(f"{path}: expected a JSON object on each line, found no line")
    refused = [each for each in outcomes if each.get("job") is None]
    counts = Counter(str(each["job"]["outcome"]) if each.get("job") else "refused" for each in outcomes)
    if wants_json(output):
        print_json({"value": outcomes, "counts": counts})
    else:
        _show(outcomes, refused, counts)
    return int(Exit.FAILED if refused else Exit.OK)


def _show(outcomes: list[Json], refused: list[Json], counts: Counter[str]) -> None:
    told = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    console().print(f"{count_text(len(outcomes), 'submission')}: {told}", highlight=False)
    for each in refused[:_SHOWN_PROBLEMS]:
        detail = str((each.get("problem") or {}).get("detail") or each.get("status"))
        console().print(f"[red]line {each['line']}[/red] {escape(visible(detail))}", highlight=False, soft_wrap=True)
    if len(refused) > _SHOWN_PROBLEMS:
        console().print(f"and {len(refused) - _SHOWN_PROBLEMS} more; -o json has all of them")
    ended = [each for each in outcomes if each.get("job") and each["job"].get("advice")]
    for each in ended[:_SHOWN_PROBLEMS]:
        console().print(
            f"line {each['line']} {each['job']['job_id'][:SHORT_ID]} {escape(visible(each['job']['advice']))}"
        )


def _groups(path: Path) -> Iterator[list[_Line]]:
    group: list[_Line] = []
    size = 0
    for line in _lines(path):
        length = len(json.dumps(line[1]).encode())
        if group and (len(group) == MOST_AT_ONCE or size + length > _MOST_BYTES):
            yield group
            group, size = [], 0
        group.append(line)
        size += length
    if group:
        yield group


def _lines(path: Path) -> Iterator[_Line]:
    """All lines are read before the first is sent: a file that is wrong submits nothing."""
    try:
        if str(path) == "-":
            yield from list(_read(path, sys.stdin.buffer))
            return
        with path.open("rb") as file:
            yield from list(_read(path, file))
    except OSError as error:
        raise UsageProblem(f"{path}: expected a file of JSON lines, found that it cannot be read: {error}") from error


def _read(path: Path, file: BinaryIO) -> Iterator[_Line]:
    for number, text in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), start=1):
        if len(text) > _LONGEST_LINE:
            raise UsageProblem(
                f"{path}, line {number}: expected at most {_LONGEST_LINE:,} bytes, found more; write one job per line"
            )
        if not text.strip():
            continue
        try:
            # As strict as the API: it would refuse the whole batch, and name no line.
            item = parse_object(text)
            json.dumps(item, allow_nan=False)
        except NotAnObject as error:
            raise UsageProblem(f"{path}, line {number}: {error}") from error
        except ValueError as error:
            raise UsageProblem(
                f"{path}, line {number}: expected a JSON object, found a number beyond a float"
            ) from error
        yield number, item
