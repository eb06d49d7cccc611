"""The example in docs/howto/write-a-job.md is a job: it passes the checks and runs."""

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from core.errors import PERMANENT_EXCEPTIONS
from jobs.base import is_job_class
from jobs.parameters import ParameterErrors
from jobs.registry import Registry

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "write-a-job.md").read_text()


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The page's only Python block, as a module."""
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    path = tmp_path / "checksums_example.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("checksums_example", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.log"):
        (folder / name).write_text(name)
    return folder


def test_the_example_passes_the_class_checks_and_fits_its_handlers(example):
    assert is_job_class(example.ChecksumsJob)
    registry = Registry([example.ChecksumsJob], example.HANDLERS, ["tasks"])
    assert registry.job_types == ("checksums",)


def test_the_example_is_about_as_long_as_the_page_says(example):
    assert len(Path(example.__file__).read_text().splitlines()) <= 110


def test_the_example_runs(example, run_job, folder):
    registry = Registry([example.ChecksumsJob], example.HANDLERS, ["tasks"])
    run = run_job(registry, "checksums", {"folder": str(folder), "suffix": ".txt"})
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in ("a.txt", "b.txt")]
    assert run.status == "completed"
    assert run.summary == {
        "files": 2,
        "failed": 0,
        "sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "unread": {},
    }


def test_a_file_that_cannot_be_read_is_told_with_its_reason(example, run_job, folder):
    (folder / "empty.txt").touch()
    registry = Registry([example.ChecksumsJob], example.HANDLERS, ["tasks"])
    run = run_job(registry, "checksums", {"folder": str(folder)})
    assert run.status == "completed_with_errors"
    assert (run.summary["files"], run.summary["failed"]) == (3, 1)
    assert run.summary["unread"] == {"empty.txt": "empty.txt is empty; remove it or fill it"}


def test_more_failures_than_tolerated_fail_the_job(example, run_job, folder):
    for index in range(4):
        (folder / f"empty{index}.txt").touch()
    registry = Registry([example.ChecksumsJob], example.HANDLERS, ["tasks"])
    assert run_job(registry, "checksums", {"folder": str(folder)}).status == "failed"


def test_a_folder_that_is_not_there_is_refused_at_submit(example, tmp_path):
    with pytest.raises(ParameterErrors, match="folder: expected an existing file or folder"):
        example.ChecksumsJob.validate_job_parameters({"folder": str(tmp_path / "nowhere")})


def test_the_page_names_every_permanent_error():
    errors = {error.__name__ for error in PERMANENT_EXCEPTIONS}
    assert {name for name in errors if f"`{name}" not in PAGE} == set()
