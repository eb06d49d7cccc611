"""How a worker begins and ends."""

import io
import logging
import os
import sys

import pytest

from coremachine.local.host.worker import exit_now, warm_up


@pytest.mark.parametrize("closed", [io.StringIO(), None])
def test_a_worker_ends_with_its_status_although_the_app_closed_its_output(monkeypatch, closed):
    """The flush raised, and threads of functions that do not return kept the process."""
    if closed is not None:
        closed.close()
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    monkeypatch.setattr(sys, "stdout", closed)
    exit_now(70)
    assert ended == [70]


@pytest.mark.parametrize("function", ["nowhere.at.all:f", "os:no_such_function", "os:abort_", "builtins:sum"])
def test_a_worker_whose_app_cannot_be_warmed_goes_on(function, caplog):
    warm_up(function)
    assert "worker_not_warmed" in caplog.text
