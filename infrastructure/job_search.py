"""Jobs by a text: of an id, a parameter or an error. Each look is bounded, whatever the number of jobs."""

from typing import Literal, LiteralString

from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed
from pydantic import AwareDatetime, TypeAdapter

from core.models.job_filter import JobFilter
from core.models.record import JobId
from core.models.view import JobSummary, Page
from infrastructure.job_filter import conditions_of
from infrastructure.list_columns import list_columns
from infrastructure.postgresql import PostgreSQLRepository
from infrastructure.queries import encode_cursor, make_page, read_cursor

# Jobs whose parameters and errors one search looks through.
MOST_SEARCHED = 50_000
# As many digits of an id are no word or number of a parameter.
_SURE_DIGITS = 8
_HEXADECIMAL = frozenset("0123456789abcdef")
_SEARCH_PLACE = TypeAdapter(tuple[Literal["jobs-searched"], AwareDatetime, JobId])
# Large parameters are not looked through: to read one costs as much as a thousand small ones.
_HAS = (
    "(pg_column_size(j.parameters) <= 8192 and exists (select from jsonb_each_text(j.parameters) p"
    " where position(lower(%s) in lower({})) > 0))"
    " or position(lower(%s) in lower(concat(j.error ->> 'type', ' ', j.error ->> 'message'))) > 0"
)
_HAS_TEXT = SQL(_HAS).format(SQL("p.value"))
_HAS_NAMED_TEXT = SQL(_HAS).format(SQL("concat(p.key, '=', p.value)"))


class JobSearch(PostgreSQLRepository):
    """Reads only."""

    def find_jobs(self, text: str, wanted: JobFilter, *, limit: int, cursor: str | None = None) -> Page[JobSummary]:
        """Jobs with this id or its beginning or this correlation id, and those that have the text, the newest first.

        They have it in a parameter (`name=value` where it has an equals sign) or in their error, in any case. A text is
        looked for in the newest MOST_SEARCHED jobs of the filter after the cursor. A page that has fewer than `limit`
        and a cursor came to that bound.

        Raises:
            InvalidCursor: A `cursor` that this list did not give.
        """
        named = self._search_ids(text, wanted, limit) if cursor is None else []
        if named and (named[0].correlation_id == text or len(text) >= _SURE_DIGITS):
            return Page(tuple(named), None)
        page = self._search_texts(text, wanted, limit, cursor)
        known = {job.job_id for job in named}
        return Page((*named, *(job for job in page.items if job.job_id not in known)), page.next_cursor)

    def _search_ids(self, text: str, wanted: JobFilter, limit: int) -> list[JobSummary]:
        digits = text.lower()
        # A range of the primary key: no digit comes after `g`.
        looks: list[tuple[LiteralString, tuple[str, ...]]] = [
            ("correlation_id = %s", (text,)),
            ("job_id >= %s and job_id < %s || 'g'", (digits, digits)),
        ]
        for condition, values in looks if set(digits) <= _HEXADECIMAL else looks[:1]:
            conditions, parameters = conditions_of(wanted)
            query = self._filled(
                SQL("select {columns} from {jobs} where {where} order by created_at desc, job_id desc limit %s"),
                columns=list_columns(JobSummary),
                where=SQL(" and ").join([SQL(condition), *conditions]),
            )
            rows = self._execute_query("search_jobs", query, [*values, *parameters, limit])
            if rows:
                return [JobSummary.model_validate(row) for row in rows]
        return []

    def _search_texts(self, text: str, wanted: JobFilter, limit: int, cursor: str | None) -> Page[JobSummary]:
        conditions, parameters = conditions_of(wanted)
        if cursor is not None:
            _, at, job_id = read_cursor(_SEARCH_PLACE, cursor)
            conditions.append(SQL("(created_at, job_id) < (%s, %s)"))
            parameters += [at, job_id]
        looked_at = self._filled(
            SQL("(select * from {jobs} where {where} order by created_at desc, job_id desc limit {searched}) j"),
            where=SQL(" and ").join(conditions or [SQL("true")]),
        )
        query = self._filled(
            SQL("select {columns} from {looked_at} where {has_text} order by created_at desc, job_id desc limit %s"),
            columns=list_columns(JobSummary),
            looked_at=looked_at,
            has_text=_HAS_NAMED_TEXT if "=" in text else _HAS_TEXT,
        )
        rows = self._execute_query("search_jobs", query, [*parameters, text, text, limit + 1])
        page = make_page(rows, JobSummary, limit, _search_place)
        if page.next_cursor is not None:
            return page
        last = self._filled(
            SQL("select created_at, job_id from {looked_at} offset {searched} - 1"),
            looked_at=looked_at,
        )
        ends = self._execute_query("search_jobs", last, parameters)
        return Page(page.items, encode_cursor(_search_place(ends[0])) if ends else None)

    def _filled(self, query: SQL, **more: Composable) -> Composed:
        searched = SQL("{}").format(MOST_SEARCHED)
        return query.format(jobs=self._table("jobs"), searched=searched, **more)


def _search_place(row: DictRow) -> bytes:
    return _SEARCH_PLACE.dump_json(("jobs-searched", row["created_at"], row["job_id"]))
