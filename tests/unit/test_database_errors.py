"""Texts of the database as people read them."""

from infrastructure.base import DatabaseUnavailable


def test_hint_of_the_database_is_told_without_tabs():
    told = 'connection to "127.0.0.1", port 1 failed: refused\n\tIs the server running?\n\tReally?'
    error = DatabaseUnavailable("get_job", told)
    assert error.reason == 'connection to "127.0.0.1", port 1 failed: refused Is the server running? Really?'
    assert str(error) == f"get_job: {error.reason}"
