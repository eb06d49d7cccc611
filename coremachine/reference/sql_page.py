"""The functions of the database, from `sql/functions`."""

from itertools import groupby

from coremachine.reference.markdown import code, first_sentence, page, table
from coremachine.reference.sources import SqlFunction, sql_functions

_INTRODUCTION = """
Each change of a job, a stage or a task is one call of one of these functions. They are in the app's schema
(`COREMACHINE_SCHEMA`). The text above a function in its file has more: its fence (what a row must still be when
it is changed, so that a late call changes nothing), its locks and their order.
"""


def render() -> str:
    sections = [
        f"## {file}\n\n" + table(["function", "returns", "what it does"], map(_row, functions))
        for file, functions in groupby(sql_functions(), key=lambda function: function.file)
    ]
    return page("SQL functions", "`sql/functions`", _INTRODUCTION, *sections)


def _row(function: SqlFunction) -> list[str]:
    return [
        code(f"{function.name}({function.arguments})"),
        code(function.returns),
        first_sentence(function.comment),
    ]
