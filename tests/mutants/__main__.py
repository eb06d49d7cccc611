"""`python -m tests.mutants [module file]`: says which changes no test notices, and ends with 1 if one has no reason."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .hunt import Hunt

ROOT = Path(__file__).parents[2]
REASONS = Path(__file__).with_name("survivors.toml")
# Pure modules, and the tests that must notice a change.
TARGETS = {
    "core/models/retry.py": ["tests/unit/test_retry.py"],
    "core/advancing/first_window.py": ["tests/unit/test_first_window.py", "tests/unit/test_message_size.py"],
    "core/operating/explain.py": ["tests/unit/test_explain.py", "tests/unit/test_explain_limits.py"],
    "jobs/parameters.py": [
        "tests/unit/test_parameters.py",
        "tests/unit/test_parameter_hints.py",
        "tests/unit/test_author_code.py",
    ],
}


def main(files: list[str]) -> int:
    if len(files) == 1:
        return hunt_in(files[0])
    # Each in a process of its own, since pytest is started once in each.
    command = [sys.executable, "-m", "tests.mutants"]
    return max(subprocess.run([*command, file], cwd=ROOT, check=False).returncode for file in files or TARGETS)


def hunt_in(file: str) -> int:
    hunt = Hunt(file.removesuffix(".py").replace("/", "."))
    options = ["-qq", "-s", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = pytest.main([*options, *TARGETS[file]], plugins=[hunt])
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        sys.stdout.write(f"{file}: pytest ended with {code!r}\n")
        return 2
    known = tomllib.loads(REASONS.read_text(encoding="utf-8")).get(file, {})
    unknown = [mutant for mutant in hunt.survivors if mutant.name not in known]
    gone = set(known) - {mutant.name for mutant in hunt.survivors}
    sys.stdout.write(f"{file}: {hunt.count} mutants, {hunt.count - len(hunt.survivors)} noticed\n")
    for mutant in unknown:
        sys.stdout.write(f"  {file}:{mutant.line}: no test notices {mutant.name}\n")
    for name in sorted(gone):
        sys.stdout.write(f"  {REASONS.name} has a reason for what is noticed, or not there: {name}\n")
    return 1 if unknown or gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
