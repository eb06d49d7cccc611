"""What the documents show to authors passes a strict type checker: `init` makes projects that have one."""

import os
import subprocess
import sys

from tests.documents import ROOT, blocks
from tests.unit.docs.test_code_blocks import module_name

# Examples have no annotations of their own, so that they are short. All the rest is checked as `mypy --strict` does.
FLAGS = ("--strict", "--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls")


def test_examples_pass_a_strict_type_checker(tmp_path):
    for number, block in enumerate(block for block in blocks() if block.language == "python" and block.reason is None):
        name = module_name(block)
        file = tmp_path / f"{f'block_{number}' if name.startswith('block_') else name}.py"
        assert not file.exists(), f"{block}: another page has a module {name}, too"
        # An error's line is that of the document.
        file.write_text(f"# {block}" + "\n" * block.line + block.text, encoding="utf-8")
    done = subprocess.run(
        # Of the project itself nothing is said, as if it were installed.
        [sys.executable, "-m", "mypy", *FLAGS, "--follow-imports=silent", "--config-file=", "."],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nThe first line of each file names its page."
