"""The benchmark of our own parts can be loaded: it uses what is nobody's public name, and runs too seldom to tell."""

import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["against", "measures", "limits", "commit_latency", "peers.engine", "peers.stack", "peers.floor"]
)
def test_module_can_be_imported(module):
    assert importlib.import_module(f"bench.{module}")
