"""Each function of the database is called by something."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SQL = "\n".join(path.read_text() for path in sorted((ROOT / "sql" / "functions").glob("*.sql")))
DEFINITION = re.compile(r"create (?:or replace )?function \{schema\}\.(\w+)", re.IGNORECASE)
NAMES = sorted(set(DEFINITION.findall(SQL)))
CODE = "\n".join(
    path.read_text() for folder in ("core", "infrastructure") for path in sorted((ROOT / folder).rglob("*.py"))
)
# Without definitions and comments: neither is a call.
CALLS = re.sub(r"--.*", "", DEFINITION.sub("", SQL))


@pytest.mark.parametrize("name", NAMES)
def test_every_function_is_called(name):
    """Code that nothing called was taken for a feature (lesson D44)."""
    assert re.search(rf"\.{name}\(", CALLS) or re.search(rf"\b{name}\b", CODE)
