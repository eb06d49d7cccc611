"""The sources of the wheel: names of the project's modules get their new place, and nothing else changes."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("one_package", ROOT / ".ci" / "wheel" / "one_package.py")
one_package = importlib.util.module_from_spec(_spec)
sys.modules["one_package"] = one_package  # dataclasses look there
_spec.loader.exec_module(one_package)
MODULES = {"core", "core.errors", "core.models", "jobs", "jobs.all_jobs", "jobs.base", "sql"}


def rewritten(source):
    return one_package.rewrite_source(source, MODULES, "file.py")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from core.errors import A\n", "from coremachine.core.errors import A\n"),
        ("from core import models\n", "from coremachine.core import models\n"),
        ("import core.errors as errors\n", "import coremachine.core.errors as errors\n"),
        (
            "x = 1; from jobs.base import (\n    A,\n    B,\n)\n",
            "x = 1; from coremachine.jobs.base import (\n    A,\n    B,\n)\n",
        ),
        ("'ä'; from  core.errors import A\n", "'ä'; from  coremachine.core.errors import A\n"),
        ('A = "jobs.all_jobs:build_registry"\n', 'A = "coremachine.jobs.all_jobs:build_registry"\n'),
        ('A = f"{1} in core.errors is {2}"\n', 'A = f"{1} in coremachine.core.errors is {2}"\n'),
        ('"""One.\n\n  See `jobs.base`.\n"""\n', '"""One.\n\n  See `coremachine.jobs.base`.\n"""\n'),
        ('A = files("sql").joinpath("core")\n', 'A = files("coremachine.sql").joinpath("core")\n'),
    ],
)
def test_names_of_modules_are_rewritten(source, expected):
    assert rewritten(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "from .core import errors\n",
        "from corebase import errors\n",
        "core = 1; core.errors\n",
        "# from core.errors import A\n",
        'A = {"jobs": 1, "core": 2}\n',  # tables, not modules
        'A = "select jobs.status from app.jobs"\n',
        'A = "mine.jobs.base, path/core.errors, core.errors_of_mine, jobs.registered"\n',
        "import jobsworth\n",
        "A = 'no end of line'",
        "A = 1\r\nB = 'jobs'\r\n",
    ],
)
def test_what_only_looks_like_one_stays(source):
    assert rewritten(source) == source


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import core\n", "file.py:1: `import core` cannot be moved; write `from ... import ...`"),
        ("\nimport os, core.errors\n", "file.py:2: `import core.errors` cannot be moved"),
        ('A = f"core.{name}"\n', "file.py:1: expected the whole name of a module in one text"),
        ('A = "jobs.%s" % name\n', "file.py:1: expected the whole name of a module in one text"),
        ("A = files('sql')\n", 'file.py:1: expected files("sql"), found files'),
    ],
)
def test_what_cannot_be_moved_is_refused(source, reason):
    """It would import a package of the user's, or none."""
    with pytest.raises(one_package.CannotMove) as refused:
        rewritten(source)
    assert str(refused.value).startswith(reason)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    one_package.stage(ROOT, folder)
    return folder


def test_everything_is_below_one_package(tree):
    assert sorted(path.name for path in tree.iterdir()) == ["LICENSE", "README.md", "coremachine", "pyproject.toml"]
    assert not list(tree.rglob("__pycache__"))
    assert not (tree / "coremachine" / "reference").exists()


def test_no_import_of_the_tree_leaves_it_for_a_short_name(tree):
    # Most name none that is not below another, and parsing takes longest.
    short_name = re.compile(rf"\b(?:from|import)\s[^\n]*(?<![.\w])(?:{'|'.join(one_package.MOVED)})\b")
    for path in tree.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if short_name.search(text) else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert [name for name in names if name.split(".")[0] in one_package.MOVED] == [], path


def test_lines_stay_where_they_are(tree):
    """A traceback of an installed package names the lines of the checkout."""
    moved = [path for name in one_package.MOVED for path in (ROOT / name).rglob("*.py")]
    assert len(moved) > 100
    for path in moved:
        built = tree / "coremachine" / path.relative_to(ROOT)
        assert built.read_text().count("\n") == path.read_text().count("\n")


def test_version_is_found_in_the_tree(tree):
    assert 'attr = "coremachine.core.basics.version.VERSION"' in (tree / "pyproject.toml").read_text()
