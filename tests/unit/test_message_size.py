"""How many tasks a message names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.advancing.first_window import tasks_per_message


@pytest.mark.parametrize(
    ("mean_seconds", "is_many", "size"),
    [
        (None, False, 1),
        (None, True, 10),
        (0.0, True, 100),
        (0.001, True, 100),
        (0.015, True, 6),
        (0.1, True, 1),
        (1.0, True, 1),
        (600.0, True, 1),
    ],
)
def test_a_message_lasts_a_tenth_of_a_second(mean_seconds, is_many, size):
    assert tasks_per_message(mean_seconds, is_many=is_many) == size


@given(st.none() | st.floats(0, 1e9), st.booleans())
def test_every_chosen_size_fits_a_message(mean_seconds, is_many):
    assert 1 <= tasks_per_message(mean_seconds, is_many=is_many) <= 100


@pytest.mark.parametrize(
    ("mean_seconds", "declared", "size"),
    [(None, 40, 10), (None, 4, 4), (0.001, 40, 40), (0.01, 40, 40), (0.02, 40, 5), (1.0, 40, 1)],
)
def test_what_is_declared_is_the_most(mean_seconds, declared, size):
    assert tasks_per_message(mean_seconds, is_many=True, declared=declared) == size
