"""The examples: each has a job, tests and a page, and is as short as the pages of authors promise."""

import importlib
import sys
from pathlib import Path

import pytest

from jobs.base import is_job_class
from jobs.registry import Registry

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")
# Half of what the same jobs needed with stages as dicts, a planner and a summary of their own.
MOST_LINES = {"log_analytics": 51, "thumbnails": 38, "csv_to_parquet": 37}


@pytest.mark.parametrize("name", NAMES)
def test_example_is_whole(name, monkeypatch):
    """Its one job is found with its handlers, as an app finds it."""
    monkeypatch.syspath_prepend(str(EXAMPLES / name))
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    (job,) = [value for value in vars(module).values() if is_job_class(value)]
    assert Registry([job], [], ["tasks"]).job_types == (name,)
    assert (EXAMPLES / name / f"test_{name}.py").is_file()
    assert f"coremachine submit {name} " in (EXAMPLES / name / "README.md").read_text()
    assert f"({name}/README.md)" in (EXAMPLES / "README.md").read_text()


@pytest.mark.parametrize("name", MOST_LINES)
def test_example_is_short(name):
    assert len((EXAMPLES / name / f"{name}.py").read_text().splitlines()) <= MOST_LINES[name]
