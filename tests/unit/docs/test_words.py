"""The words that the project does not use: documents and code are held to them, file by file."""

import re

import pytest

from tests.documents import ROOT
from tests.words import documents, findings, not_clean_yet, refused_in, sources

OLD = set(not_clean_yet())


@pytest.mark.parametrize("folder", ["documents", "sources"])
def test_clean_files_stay_clean(folder):
    files = documents() if folder == "documents" else sources()
    assert [line for path in files if path.relative_to(ROOT).as_posix() not in OLD for line in findings(path)] == []


def test_the_list_of_files_with_old_words_only_shrinks():
    known = {path.relative_to(ROOT).as_posix(): path for path in (*documents(), *sources())}
    assert sorted(OLD - set(known)) == [], "these are gone: remove them from tests/files_with_old_words.txt"
    clean = [name for name in sorted(OLD) if not findings(known[name])]
    assert clean == [], "these are clean: remove them from tests/files_with_old_words.txt"


def test_the_glossary_is_short_and_has_each_word_once():
    """A reader learns them all: what is explained where it is used, or usual in the field, is left out."""
    terms = re.findall(r"(?m)^\*\*(.+)\*\*$", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    words = [word for term in terms for word in term.split(", ")]
    assert len(terms) <= 40
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Leases tasks; one row an id.", "one row an id"),
        ("a method a function of the schema", "a method a function"),
        ("Results that are in other hands.", "in other hands"),
        ("wholly in one process's hands", "in one process's hands"),
        ("Who repeats a request wants its answer.", "Who"),
        ("The task failed. Who\nrepeats it pays.", "Who"),
        ("At most so many tasks run.", "so many"),
        ("mend the name", "mend"),
        ("the row says so", "says"),
        ("an app that cannot start tells why", "tells"),
        ("what follows is prepared", "what follows"),
        ("the failed try counts", "failed try"),
        ("it ended without a verdict", "verdict"),
        ("the task was handed back", "handed back"),
        ("the job has moved on", "moved on"),
        ("an attempt that is tried again", "tried again"),
        ("the stage was closed", "stage was closed"),
    ],
)
def test_words_are_found(text, words):
    (found,) = refused_in(text)
    assert found[1].split() == words.split()


@pytest.mark.parametrize(
    "text",
    [
        "One row per id.",
        "Who calls this function?",
        "the worker who holds the lease",
        "as long as it runs; so long as it runs",
        "so many that they do not fit",
        "on the other hand",
        "a stand-in renews the lease",
        "it tries again once a minute",
        "Give it a name. A handler reads it.",
    ],
)
def test_plain_words_are_left_alone(text):
    assert refused_in(text) == []
