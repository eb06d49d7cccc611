"""Which function app a command means."""

import os

import pytest

from coremachine.local.app_folder import BUILT_IN_APP, HalfAnApp, expect_whole_app, find_app, is_app


@pytest.fixture
def app(tmp_path):
    for name in ("function_app.py", "host.json"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path


def test_the_app_is_that_of_the_folder_or_of_the_nearest_above(app):
    assert find_app(app) == find_app(app / "a" / "b") == app


def test_a_folder_with_one_of_the_two_files_is_none(app):
    (app / "host.json").unlink()
    assert find_app(app / "a") is None


def test_a_folder_with_one_of_the_two_files_is_not_passed_over_in_silence(app):
    """`coremachine up` said that there was no app, and ran other job types beside `function_app.py`."""
    expect_whole_app(app)
    expect_whole_app(app / "a")
    (app / "host.json").unlink()
    with pytest.raises(HalfAnApp, match=r"expected host\.json beside function_app\.py, found none"):
        expect_whole_app(app)


def test_the_built_in_app_is_one():
    assert is_app(BUILT_IN_APP)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of somebody else's is made")
def test_somebody_else_s_app_above_is_not_run(app):
    os.chown(app / "function_app.py", 12345, 12345)
    assert find_app(app / "a") is None
    assert find_app(app) == app
