"""Errors that SQL writes and errors that Python writes have one shape."""

from core.errors import Failure


def test_errors_of_sql_and_of_python_have_the_same_fields(engine):
    (row,) = engine.query("select app.stored_error('T', 'm', true, 2, '2026-01-01 00:00+00') as error")
    stored = Failure("T", "m", retryable=True).to_json(2)
    assert row["error"] == {**stored, "at": row["error"]["at"]}
    assert row["error"]["at"].startswith("2026-01-01T00:00:00")


def test_delay_of_a_retry_doubles_up_to_its_cap_and_has_full_jitter(engine):
    """Without jitter a whole fan-out came back in the same second (lesson D20)."""
    rows = engine.query(
        'select attempt, array_agg(app.retry_delay(\'{"base_delay_seconds": 4, "max_delay_seconds": 30}\','
        " attempt)) as delays from unnest(array[1, 2, 3, 4, 5, 2000000000]) attempt, generate_series(1, 200)"
        " group by attempt order by attempt"
    )
    for row, ceiling in zip(rows, (4, 8, 16, 30, 30, 30), strict=True):
        assert min(row["delays"]) >= 0
        assert ceiling / 2 < max(row["delays"]) <= ceiling
        assert len(set(row["delays"])) > 100
