"""The page of the log's records."""

from coremachine.reference.log_table import GROUPS, Record
from coremachine.reference.markdown import code, page, table

_INTRODUCTION = """
Each record's message is one of these names. `checkpoint` groups records for alerts. Records about one job carry
`job_id`, `run`, `stage` and `correlation_id` where they are known; the table lists them only where the record has them
of its own. [Records of state changes](operations.md#records-of-state-changes) explains the fields of attempts.
"""


def render() -> str:
    sections = [
        f"## {title}\n\n"
        + table(["record", "checkpoint", "level", "fields", "meaning"], (_row(*one) for one in group.items()))
        for title, group in GROUPS.items()
    ]
    return page("Log records", "`coremachine/reference/log_table.py`", _INTRODUCTION, *sections)


def _row(name: str, record: Record) -> list[str]:
    return [code(name), code(record.checkpoint), record.level, record.fields.replace(" ", ", "), record.meaning]
