"""The code in the documents is right: it is compiled, run where it can be, and whole jobs come to their end."""

import inspect
import json
import re
import sys
import tomllib
import types

import pytest
import yaml

from jobs.base import JobBase, is_job_class
from jobs.parameter_schema import to_json_schema
from jobs.registry import Registry
from tests.documents import ROOT, Block, blocks, blocks_of

# Without a language: commands, or what they print.
TEXTS = {"", "bash", "console", "http", "kql", "mermaid", "sh", "text"}
LANGUAGES = TEXTS | {"javascript", "json", "python", "sql", "toml", "yaml"}
PYTHON = [block for block in blocks() if block.language == "python"]


def module_name(block: Block) -> str:
    """As the text before the block says: `Save this as `first_job.py``."""
    before = " ".join(block.path.read_text(encoding="utf-8").splitlines()[: block.line - 1][-3:])
    named = re.findall(r"Save this as `([\w/]+)\.py`", before)
    return named[-1].rpartition("/")[2] if named else f"block_at_line_{block.line}"


def run(block: Block, monkeypatch) -> types.ModuleType:
    """The block as a module that the later ones of its page can import."""
    module = types.ModuleType(module_name(block))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block.text, str(block), "exec"), module.__dict__)  # noqa: S102 - our own document
    return module


def jobs_of(module: types.ModuleType) -> list[type[JobBase]]:
    found = [
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    ]
    return [value for value in found if issubclass(value, JobBase) and is_job_class(value)]


def registry_of(module: types.ModuleType) -> Registry:
    if hasattr(module, "build_registry"):
        return module.build_registry(["tasks", "raster"])
    return Registry(jobs_of(module), getattr(module, "HANDLERS", ()), ["tasks", "raster"])


def sample(job: type[JobBase], folder) -> dict:
    """Parameters for any job of the documents: those that are required are folders of text files."""
    for name in ("one.txt", "two.txt"):
        (folder / name).write_text(f"the file {name}\n")
    return dict.fromkeys(to_json_schema(job.parameters_schema).get("required", ()), str(folder))


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles(block):
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("path", sorted({block.path for block in PYTHON}), ids=lambda path: str(path.relative_to(ROOT)))
def test_python_of_a_page_runs(path, monkeypatch, tmp_path, run_job, request):
    """Blocks in their order, as one reader would type them; what a block tests is tested, too."""
    fixture_of = request.getfixturevalue
    for block in (found for found in PYTHON if found.path == path and found.reason is None):
        module = run(block, monkeypatch)
        for job in jobs_of(module):
            folder = tmp_path / job.job_type
            folder.mkdir()
            ended = run_job(registry_of(module), job.job_type, sample(job, folder))
            assert ended.status == "completed", f"{block}: {ended.report}"
            assert ended.summary
        for name, function in vars(module).items():
            if name.startswith("test_"):
                folder = tmp_path / name
                folder.mkdir()
                asked = inspect.signature(function).parameters
                function(**{fixture: folder if fixture == "tmp_path" else fixture_of(fixture) for fixture in asked})


def test_whole_jobs_are_among_the_blocks_that_run(monkeypatch):
    runnable = [block for block in PYTHON if block.reason is None]
    jobs = {job.job_type for block in runnable if "JobBase)" in block.text for job in jobs_of(run(block, monkeypatch))}
    assert {"checksums", "word_count"} <= jobs


def test_data_can_be_read():
    readers = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
    for block in blocks():
        if block.language in readers:
            readers[block.language](block.text)


def test_commands_are_those_of_any_shell():
    """Sh of Debian and Ubuntu writes a backslash, an x and two digits for `\\x` of printf; all know octal numbers."""
    texts = [block for block in blocks() if block.language in TEXTS]
    assert [str(block) for block in texts if re.search(r"\bprintf [^\n]*\\x", block.text)] == []


def test_times_that_commands_show_have_their_zone():
    without = re.compile(r"(?<![\dT:.-])\d\d:\d\d:\d\d(?:\.\d+)?(?![\d:.]|Z|[+-]\d| [A-Z])")
    shown = [block for block in blocks() if block.language == ""]
    assert [str(block) for block in shown if without.search(block.text)] == []


def test_every_block_is_of_a_language_that_a_test_knows():
    assert [str(block) for block in blocks() if block.language not in LANGUAGES] == []


def test_a_block_that_is_not_run_has_a_reason():
    """Other comments in front of a block are no reason: a misspelt mark is found here."""
    for block in blocks():
        before = block.path.read_text(encoding="utf-8").splitlines()[: block.line - 1]
        comment = next((line for line in reversed(before) if line.strip()), "")
        is_mark = comment.startswith("<!--") and re.search(r"\bnot\b.*\brun\b", comment)
        assert not is_mark or block.reason is not None, f"{block}: expected <!-- not run here: why -->, found {comment}"


def test_blocks_are_found_with_their_language_and_reason():
    text = "a\n\n<!-- not run here: it is an idea -->\n```python\nx = 1\n```\n\n- b\n\n    ```sh\n    make\n    ```\n"
    first, second = blocks_of(ROOT / "README.md", text)
    assert (first.line, first.language, first.text, first.reason) == (4, "python", "x = 1\n", "it is an idea")
    assert (second.language, second.text.strip(), second.reason) == ("sh", "make", None)
