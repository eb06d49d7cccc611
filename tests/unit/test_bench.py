"""The benchmark of our own parts can be loaded: it uses what is nobody's public name, and runs too seldom to tell."""

import importlib

import pytest

from bench.__main__ import read_plan


@pytest.mark.parametrize(
    "module", ["against", "measures", "limits", "commit_latency", "peers.engine", "peers.stack", "peers.floor"]
)
def test_module_can_be_imported(module):
    assert importlib.import_module(f"bench.{module}")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "bench"),
        (["--cloud"], "cloud"),
        (["--only", "stack"], "bench_part"),
        (["--cloud", "--no-measures"], "cloud_part"),
    ],
)
def test_a_run_with_latency_never_replaces_the_figures_of_one_without(arguments, name):
    assert read_plan(arguments)[1] == name
