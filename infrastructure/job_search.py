"""Jobs by a text: of an id, a parameter or an error. Each look is bounded, whatever the number of jobs."""

from dataclasses import replace
from typing import Literal

from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed
from pydantic import AwareDatetime, TypeAdapter

from core.models.bulk import MOST_JOBS_AT_ONCE
from core.models.job_filter import JobFilter
from core.models.record import JobId
from core.models.view import JobSummary, Page
from infrastructure.job_filter import begins_id, conditions_of, has_text
from infrastructure.list_columns import list_columns
from infrastructure.postgresql import PostgreSQLRepository
from infrastructure.queries import encode_cursor, make_page, read_cursor

# Jobs whose parameters and errors one search looks through.
MOST_SEARCHED = 50_000
# As many digits of an id are no word or number of a parameter.
_SURE_DIGITS = 8
_SEARCH_PLACE = TypeAdapter(tuple[Literal["jobs-searched"], AwareDatetime, JobId])


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

    def narrow(self, text: str, wanted: JobFilter) -> JobFilter:
        """A filter of all jobs that `find_jobs` would list page by page, those beyond its bound included."""
        named = self._search_ids(text, wanted, MOST_JOBS_AT_ONCE)
        if named and named[0].correlation_id == text:
            return replace(wanted, correlation_id=text)
        if named and len(text) >= _SURE_DIGITS:
            return replace(wanted, job_ids=tuple(job.job_id for job in named))
        return replace(wanted, text=text)

    def _search_ids(self, text: str, wanted: JobFilter, limit: int) -> list[JobSummary]:
        for condition, values in (SQL("correlation_id = %s"), [text]), begins_id(text):
            conditions, parameters = conditions_of(wanted)
            query = self._filled(
                SQL("select {columns} from {jobs} where {where} order by created_at desc, job_id desc limit %s"),
                columns=list_columns(JobSummary),
                where=SQL(" and ").join([condition, *conditions]),
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
        text_condition, text_values = has_text(text)
        query = self._filled(
            SQL("select {columns} from {looked_at} where {has_text} order by created_at desc, job_id desc limit %s"),
            columns=list_columns(JobSummary),
            looked_at=looked_at,
            has_text=text_condition,
        )
        rows = self._execute_query("search_jobs", query, [*parameters, *text_values, limit + 1])
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
