"""What pages are put together from: numbers, bars, pages of lists, forms, timelines, shared reads."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from starlette.datastructures import Headers

from core.models import JobStatus, TaskStatus
from core.models.dashboard import AttemptMark, PulseCell, StageProgress, TaskBar
from core.models.schedule import TickRecord
from core.models.view import JobSummary, Page, StageDetail
from coremachine.cli.progress import stage_cells
from infrastructure.queries import InvalidCursor
from jobs.parameter_schema import to_json_schema
from tests.unit.triggers.fakes import SUMMARY
from triggers.problems import ProblemError
from triggers.ui import texts, timeline
from triggers.ui.bars import bar_label, bar_parts, failure_budget, job_row, stage_cards
from triggers.ui.cron_words import cron_words
from triggers.ui.guard import check_same_site
from triggers.ui.paging import Chain
from triggers.ui.recent import SECONDS, RecentReads
from triggers.ui.schedule_pages import fold_ticks
from triggers.ui.schema_form import make_fields, read_values

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NO_COUNTS = dict.fromkeys(TaskStatus, 0)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "\u2013"),
        (0.0804, "80 ms"),
        (1.23, "1.2 s"),
        (59.2, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (100_000, "1 d 3 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds, shown):
    assert texts.duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(2, "just now"), (59, "59 s ago"), (7300, "2 h ago"), (-90, "in 1 min"), (200_000, "2 d ago")],
)
def test_ages_have_one_unit(seconds, shown):
    assert texts.ago(NOW - timedelta(seconds=seconds), NOW) == shown


def test_short_lists_are_one_line_of_json_and_long_values_are_cut():
    assert texts.pretty_json({"a": [1, 2], "b": []}) == '{\n  "a": [1, 2],\n  "b": []\n}'
    assert texts.pretty_json("x" * 30_000).endswith("more characters: the API has the whole value")


def test_the_parts_of_a_bar_are_side_by_side():
    parts = bar_parts(8, {"done": 4, "failed": 0, "running": 2})
    assert [(part.kind, part.x, part.width) for part in parts] == [("done", 0, 50), ("running", 50, 25)]
    assert bar_parts(None, {"done": 4}) == []
    assert bar_label(8, {"done": 4, "failed": 0}) == "4 done of 8"


def test_a_job_in_the_list_shows_its_present_stage():
    job = JobSummary.model_validate(SUMMARY)
    row = job_row(job, StageProgress(2, "reply", 10, 4, 1, 6, 2), (0, 0), NOW + timedelta(minutes=1))
    assert (row.stage, row.count, row.failed, row.seconds) == ("2/2 reply", "6 / 10", 1, pytest.approx(59.3, abs=0.1))
    assert [part.kind for part in row.parts] == ["done", "failed", "cancelled", "running"]
    uncounted = job_row(job, StageProgress(2, "reply", 9, 0, 0, 0, 0, is_counted=False), (0, 0), NOW)
    assert uncounted.count == "9 tasks"


def test_a_stage_without_tasks_is_shown_in_words():
    job, empty = JobSummary.model_validate(SUMMARY), StageProgress(2, "reply", 0, 0, 0, 0, 0)
    (card,) = stage_cards({"stages": [{}]}, (stage(expected_count=0, failed_count=0, counts=NO_COUNTS),), {}, NOW)
    assert (card.count, card.label) == ("no tasks", "no tasks")
    for progress in (empty, replace(empty, is_counted=False)):
        row = job_row(job, progress, (0, 0), NOW)
        assert (row.count, row.label) == ("no tasks", "no tasks")
    completed = job_row(job.model_copy(update={"status": JobStatus.COMPLETED}), None, (0, 0), NOW)
    assert completed.count == "no tasks"


def stage(**fields) -> StageDetail:
    given = {
        "stage": 1,
        "name": "greet",
        "task_type": "t",
        "parallelism": "single",
        "status": "processing",
        "expected_count": 100,
        "failed_count": 3,
        "counts": {**NO_COUNTS, TaskStatus.COMPLETED: 40, TaskStatus.FAILED: 3, TaskStatus.PROCESSING: 2},
        "created_at": NOW - timedelta(seconds=120),
        "planned_at": NOW - timedelta(seconds=120),
        "finished_at": None,
    }
    return StageDetail.model_validate(given | fields)


def test_a_stage_shows_its_rate_and_when_the_rest_is_done():
    (first, later) = stage_cards({"stages": [{}, {"name": "reply"}]}, (stage(),), {1: 30}, NOW)
    assert (first.count, first.speed) == ("43 / 100", "30.0 tasks/min · about 1 min 54 s left")
    assert (later.name, later.status) == ("reply", "later")


def test_a_rate_of_few_tasks_is_that_of_the_whole_stage():
    """Two slots of long tasks end in pairs: the last minute has two of them, or four."""
    for recent in (2, 4):
        (card,) = stage_cards({"stages": [{}]}, (stage(),), {1: recent}, NOW)
        assert card.speed == "21.5 tasks/min · about 2 min 39 s left"


def test_a_task_that_ended_after_the_count_gives_a_rate():
    begun = stage(counts={**NO_COUNTS, TaskStatus.PROCESSING: 2})
    (card,) = stage_cards({"stages": [{}]}, (begun,), {1: 1}, NOW)
    assert card.speed.startswith("0.5 tasks/min")


def test_a_stage_counts_the_tasks_that_have_ended_as_the_commands_do():
    ended = stage(counts={**NO_COUNTS, TaskStatus.COMPLETED: 40, TaskStatus.FAILED: 3, TaskStatus.CANCELLED: 57})
    (card,) = stage_cards({"stages": [{}]}, (ended,), {}, NOW)
    assert card.count == "100 / 100 ended"
    assert str(stage_cells(ended.model_dump(mode="json"), 1)[2]).startswith("100/100 ended · ")


@pytest.mark.parametrize(
    ("failure", "shown", "is_spent"),
    [
        ({}, "none may fail", True),
        ({"on_failure": "continue"}, "any number may fail", False),
        ({"on_failure": "tolerate", "max_failed": 5}, "3 of 5 permitted failures", False),
        ({"on_failure": "tolerate", "max_failed": 5, "max_failed_percent": 2.5}, "3 of 2 permitted failures", True),
    ],
)
def test_the_failure_budget_is_the_least_limit(failure, shown, is_spent):
    assert failure_budget(failure, stage()) == (shown, is_spent)


class TestChain:
    LISTS = {"failed": [1, 2, 3], "none": [], "done": [4, 5]}

    def chain(self):
        def fetch(group, limit, cursor):
            begin = int(cursor or 0)
            items = self.LISTS[group][begin : begin + limit]
            more = begin + limit < len(self.LISTS[group])
            return Page(tuple(items), str(begin + limit) if more else None)

        return Chain(list(self.LISTS), fetch)

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 9])
    def test_every_item_comes_once_and_pages_are_full(self, limit):
        found, cursor, sizes = [], None, []
        while True:
            page = self.chain().read(limit, cursor)
            found += page.items
            sizes.append(len(page.items))
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == [1, 2, 3, 4, 5]
        assert all(size == limit for size in sizes[:-1])
        assert sizes[-1] > 0

    @pytest.mark.parametrize("cursor", ["x", "3-", "-1", "1", "\u0662-"])
    def test_a_foreign_cursor_is_refused(self, cursor):
        with pytest.raises(InvalidCursor):
            self.chain().read(2, cursor)


class TestForm:
    SCHEMA = to_json_schema(
        {
            "n": {"type": "int", "default": 3, "min": 1, "max": 9},
            "name": {"type": "str", "required": True, "pattern": "[a-z]+"},
            "kind": {"type": "str", "allowed": ["a", "b"], "nullable": True},
            "flag": {"type": "bool", "default": True},
            "places": {"type": "list", "items": {"type": "str"}, "example": ["x"]},
        }
    )

    def test_fields_come_from_the_schema_required_ones_first(self):
        fields = make_fields(self.SCHEMA, {"n": "7"}, {"name": "expected a name"})
        assert [field.name for field in fields] == ["name", "n", "kind", "flag", "places"]
        assert {field.name: field.kind for field in fields} == {
            "name": "text",
            "n": "integer",
            "kind": "choice",
            "flag": "boolean",
            "places": "json",
        }
        assert (fields[0].error, fields[1].value, fields[1].bounds) == ("expected a name", "7", "whole number, 1 to 9")
        assert (fields[3].value, fields[4].placeholder) == ("true", '["x"]')

    def test_texts_become_values_and_what_is_left_out_stays_out(self):
        form = {"p.n": "4", "p.name": "abc", "p.kind": "b", "p.flag": "false", "p.places": '["u", "v"]', "other": "1"}
        values, errors = read_values(self.SCHEMA, form)
        assert (values, errors) == ({"n": 4, "name": "abc", "kind": "b", "flag": False, "places": ["u", "v"]}, [])
        assert read_values(self.SCHEMA, {}) == ({}, [])

    @pytest.mark.parametrize(
        ("name", "text"), [("n", "four"), ("n", "true"), ("flag", "1"), ("places", "[1,"), ("n", "NaN")]
    )
    def test_what_cannot_be_read_names_the_field(self, name, text):
        values, (error,) = read_values(self.SCHEMA, {f"p.{name}": text})
        assert (values, error.field) == ({}, name)
        assert text in error.found

    def test_fields_of_a_pydantic_model_are_resolved(self):
        schema = {
            "properties": {
                "size": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                "mode": {"$ref": "#/$defs/Mode"},
            },
            "$defs": {"Mode": {"enum": ["fast", "slow"], "type": "string"}},
        }
        assert [field.kind for field in make_fields(schema, {})] == ["integer", "choice"]


class TestGuard:
    def check(self, **headers):
        check_same_site(Headers({name.replace("_", "-"): value for name, value in headers.items()}))

    @pytest.mark.parametrize(
        "headers",
        [
            {"sec_fetch_site": "same-origin"},
            {"origin": "https://app.example", "host": "app.example"},
            {"origin": "https://app.example", "host": "app.example:443"},
            {"origin": "http://127.0.0.1:7071", "host": "127.0.0.1:7071"},
        ],
    )
    def test_a_page_of_the_app_is_answered(self, headers):
        self.check(**headers)

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"host": "app.example"},
            {"sec_fetch_site": "cross-site", "origin": "https://app.example", "host": "app.example"},
            {"sec_fetch_site": "none"},
            {"sec_fetch_site": "same-site"},
            {"origin": "null", "host": "app.example"},
            {"origin": "https://evil.example", "host": "app.example"},
            {"origin": "http://127.0.0.1:9999", "host": "127.0.0.1:7071"},
            {"origin": "https://app.example:bad", "host": "app.example"},
        ],
    )
    def test_any_other_is_refused(self, headers):
        with pytest.raises(ProblemError) as refused:
            self.check(**headers)
        assert (refused.value.status, refused.value.code) == (403, "foreign_origin")


def test_a_read_is_shared_for_a_while_and_an_error_is_not_kept():
    now, calls = [0.0], []
    reads = RecentReads(lambda: now[0])

    def make():
        calls.append(now[0])
        if len(calls) == 1:
            raise LookupError("not there")
        return len(calls)

    with pytest.raises(LookupError, match="not there"):
        reads.get("key", make)
    assert [reads.get("key", make), reads.get("key", make), reads.get("other", make)] == [2, 2, 3]
    now[0] = SECONDS
    assert reads.get("key", make) == 4


def test_what_took_long_is_kept_longer():
    now = [0.0]
    reads = RecentReads(lambda: now[0])

    def make():
        now[0] += 3
        return now[0]

    assert reads.get("key", make) == 3
    now[0] += 29
    assert reads.get("key", make) == 3
    now[0] += 1
    assert reads.get("key", make) == 36


class TestTimeline:
    WINDOW = timeline.window_of(NOW, NOW + timedelta(seconds=10))

    def bar(self, **fields):
        given = {
            "task_id": "s1-a",
            "stage": 1,
            "name": "a",
            "status": TaskStatus.COMPLETED,
            "attempt": 2,
            "interruptions": 0,
            "created_at": NOW,
            "started_at": NOW + timedelta(seconds=5),
            "finished_at": NOW + timedelta(seconds=8),
            "due_at": None,
            "from_run": None,
        }
        return TaskBar(**given | fields)

    def test_a_task_has_its_latest_attempt_and_a_mark_for_each_that_failed(self):
        mark = AttemptMark("s1-a", "retry_scheduled", NOW + timedelta(seconds=2), "OSError")
        own = stage(created_at=NOW, planned_at=NOW)
        drawn = timeline.draw(timeline.RunTimes(self.WINDOW, [own], [self.bar()], [mark]))
        (of_stage, of_task) = drawn.lanes
        assert of_stage.name == "1  greet"
        assert [(block.kind, block.x, block.width) for block in of_task.blocks] == [
            ("waiting", 0, 50),
            ("task-done", 50, 30),
        ]
        assert [(each.kind, each.x, each.title) for each in of_task.marks] == [
            ("retried", 20, "attempt failed, to be retried: OSError")
        ]
        assert drawn.ticks[0] == (0, "0")
        assert all(0 <= x <= 100 for x, _ in drawn.ticks)

    def test_a_stage_begins_with_its_first_task_where_that_began_before_the_plan_was_written(self):
        """The bar of a stage whose tasks ran inline began after them."""
        own = stage(created_at=NOW, planned_at=NOW + timedelta(seconds=6), finished_at=NOW + timedelta(seconds=9))
        kept = self.bar(task_id="s1-b", from_run=1, started_at=NOW)
        (of_stage, of_task, _) = timeline.draw(timeline.RunTimes(self.WINDOW, [own], [self.bar(), kept])).lanes
        assert [(block.kind, block.x, block.width) for block in of_stage.blocks] == [
            ("planning", 0, 50),
            ("stage-running", 50, 40),
        ]
        assert [(block.kind, block.x) for block in of_task.blocks] == [("waiting", 50), ("task-done", 50)]

    def many(self, count, **unusual):
        """A stage's tasks of two seconds each, but for those that are named by their number."""
        fields = {"attempt": 1, "finished_at": NOW + timedelta(seconds=7)}
        return [
            self.bar(task_id=f"s1-{number}", name=f"{number}", **fields | unusual.get(f"n{number}", {}))
            for number in range(count)
        ]

    def test_unusual_tasks_come_first_and_many_usual_ones_are_folded(self):
        bars = self.many(
            30,
            n20={"finished_at": NOW + timedelta(seconds=10)},
            n21={"attempt": 3},
            n22={"status": TaskStatus.FAILED},
            n23={"interruptions": 2, "attempt": 3},
        )
        (drawn,) = timeline.draw(timeline.RunTimes(self.WINDOW, [stage()], bars)).stages
        assert [(lane.name, lane.why) for lane in drawn.tasks[:5]] == [
            ("22", "failed"),
            ("23", "interrupted 2\u00d7"),
            ("21", "retried"),
            ("20", "slow"),
            ("0", ""),
        ]
        assert (len(drawn.tasks), len(drawn.folded)) == (12, 18)

    def test_a_few_more_tasks_are_not_folded(self):
        (drawn,) = timeline.draw(timeline.RunTimes(self.WINDOW, [stage()], self.many(18))).stages
        assert (len(drawn.tasks), len(drawn.folded)) == (18, 0)
        assert {lane.why for lane in drawn.tasks} == {""}

    def test_beside_a_heat_strip_are_the_unusual_tasks_alone(self):
        pulse = [PulseCell(1, 3, 90, 1, 0, 91.0)]
        bars = self.many(2, n0={"finished_at": NOW + timedelta(seconds=8)}, n1={"status": TaskStatus.FAILED})
        (drawn,) = timeline.draw(timeline.RunTimes(self.WINDOW, [stage(expected_count=500)], bars, pulse=pulse)).stages
        assert drawn.heat is not None
        assert [(lane.name, lane.why) for lane in drawn.tasks] == [("1", "failed"), ("0", "slow")]

    @pytest.mark.parametrize("ended", [0, 90])
    def test_a_task_that_has_just_begun_is_not_slow(self, ended):
        """It was named as slow, with 0 ms: it was one of the three that had run longest."""
        pulse = [PulseCell(1, 3, ended, 0, 0, 0.5 * ended), PulseCell(2, 3, 9, 0, 0, 9.0)]
        begun = {"status": TaskStatus.PROCESSING, "finished_at": None, "started_at": self.WINDOW.end}
        bars = self.many(3, n0=begun, n1=begun, n2=begun)
        (drawn,) = timeline.draw(timeline.RunTimes(self.WINDOW, [stage(expected_count=500)], bars, pulse=pulse)).stages
        assert [(lane.name, lane.why) for lane in drawn.tasks] == [("0", ""), ("1", ""), ("2", "")]

    def test_beside_a_heat_strip_of_few_tasks_none_is_slow(self):
        pulse = [PulseCell(1, 3, 9, 1, 0, 20.0)]
        bars = self.many(2, n1={"status": TaskStatus.FAILED})
        (drawn,) = timeline.draw(timeline.RunTimes(self.WINDOW, [stage(expected_count=10)], bars, pulse=pulse)).stages
        assert [(lane.name, lane.why) for lane in drawn.tasks] == [("1", "failed"), ("0", "")]

    def test_a_kept_task_took_no_time_in_this_run(self):
        own = stage(created_at=NOW, planned_at=NOW)
        drawn = timeline.draw(timeline.RunTimes(self.WINDOW, [own], [self.bar(from_run=1)]))
        assert (drawn.lanes[1].blocks, drawn.lanes[1].text) == ((), "kept from run 1")

    def test_many_tasks_are_cells_and_failures_are_seen_among_them(self):
        pulse = [PulseCell(1, 3, 10, 0, 0), PulseCell(1, 4, 1, 1, 0)]
        own = stage(created_at=NOW, planned_at=NOW)
        drawn = timeline.draw(timeline.RunTimes(self.WINDOW, [own], pulse=pulse))
        assert [block.kind for block in drawn.lanes[1].blocks] == ["heat-done-5", "heat-done-1", "heat-failed"]
        assert (drawn.is_heat, drawn.most, drawn.lanes[1].text) == (True, 10, "12 tasks")


def tick(minute, **fields):
    given = {
        "schedule": "nightly",
        "tick_at": NOW + timedelta(minutes=minute),
        "status": "skipped",
        "reason": "overlap",
        "job_type": "t",
        "submission_key": "k",
    }
    return TickRecord.model_validate(given | fields)


def test_equal_ticks_in_a_row_are_one_line():
    made = {"status": "submitted", "reason": None, "submitted_job_id": "a" * 64}
    ticks = [
        tick(9, **made),
        tick(8, **made),
        tick(7),
        tick(6),
        tick(5, reason="missed"),
        tick(3, reason="missed", until_at=NOW + timedelta(minutes=4)),
        tick(2, is_manual=True),
        tick(1, is_manual=True),
        tick(0, status="waiting"),
    ]
    lines = [
        ((line.begin - NOW).total_seconds() / 60, (line.end - NOW).total_seconds() / 60, line.count)
        for line in fold_ticks(ticks)
    ]
    assert lines == [(9, 9, 1), (8, 8, 1), (6, 7, 2), (3, 5, 2), (2, 2, 1), (1, 1, 1), (0, 0, 1)]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/1 * * * *", "every minute"),
        ("5 */1 */1 */1 */1", "every hour at :05"),
        ("*/15 * * * *", "every 15 minutes"),
        ("5 * * * *", "every hour at :05"),
        ("0 */6 * * *", "every 6 hours at :00"),
        ("30 2 * * *", "every day at 02:30"),
        ("0 6,18 * * *", "every day at 06:00 and 18:00"),
        ("0 6 * * 1", "every Monday at 06:00"),
        ("0 6 * * mon,wed,7", "every Monday, Wednesday and Sunday at 06:00"),
        ("0 6 * * 1-5", "Monday to Friday at 06:00"),
        ("0 6 1 * *", "on day 1 of each month at 06:00"),
    ],
)
def test_usual_cron_expressions_are_said_in_words(expression, words):
    assert cron_words(expression) == words


@pytest.mark.parametrize(
    "expression",
    # Steps that are not even, months, a day of the month or of the week, ranges of hours, names for all fields.
    ["*/7 * * * *", "0 6 * 3 *", "0 6 1 * 1", "0 6-9 * * *", "0 6 1-7 * *", "0 6 * * 1#2", "@daily", "5/10 * * * *"],
)
def test_other_cron_expressions_have_no_words(expression):
    assert cron_words(expression) == ""


def test_list_of_known_values_is_a_field_of_choices():
    schema = {
        "properties": {
            "events": {"type": "array", "items": {"$ref": "#/$defs/Event"}, "minItems": 1},
            "days": {"type": "array", "items": {"enum": ["mon", "tue"]}, "default": ["mon"]},
            "more": {"type": "array", "items": {"enum": ["a", "b"]}, "default": []},
            "numbers": {"type": "array", "items": {"enum": [1, 2]}},
        },
        "required": ["events"],
        "$defs": {"Event": {"enum": ["failed", "ended"]}},
    }
    events, days, more, numbers = make_fields(schema, {"events": '["ended"]'})
    assert (events.kind, events.options, events.chosen) == ("choices", ("failed", "ended"), ("ended",))
    assert (days.chosen, more.chosen, numbers.kind) == (("mon",), (), "json")
    # None chosen is a value where one is required, or it differs from the default.
    assert read_values(schema, {}) == ({"events": [], "days": []}, [])
    form = {"p.events:failed": "1", "p.events:ended": "1", "p.days:tue": "1", "p.more:b": "1"}
    assert read_values(schema, form)[0] == {"events": ["failed", "ended"], "days": ["tue"], "more": ["b"]}
    assert make_fields(schema, {"events": "of an earlier release"})[0].chosen == ()


def test_value_that_is_not_in_the_list_is_shown_and_not_left_out():
    schema = {"properties": {"one": {"enum": ["a"]}, "many": {"type": "array", "items": {"enum": ["a", "b"]}}}}
    one, many = make_fields(schema, {"one": "new", "many": '["b", "new"]'})
    assert (one.options, one.value) == (("a", "new"), "new")
    assert (many.options, many.chosen) == (("a", "b", "new"), ("b", "new"))
