"""Which blobs a path takes, and what it makes of their names."""

import pytest

from coremachine.local.host.blob_pattern import BlobPattern
from coremachine.local.host.errors import BlobPathError


@pytest.mark.parametrize(
    ("path", "name", "values"),
    [
        ("in/{name}", "a/b.csv", {"name": "a/b.csv"}),
        ("in/{name}.csv", "a.csv", {"name": "a"}),
        ("in/{name}.csv", "a.txt", None),
        ("in/{name}.csv", "axcsv", None),
        # Each part takes as much as it can, as in Azure.
        ("in/{name}.{kind}", "a.b.c", {"name": "a.b", "kind": "c"}),
        ("in/{day}/report-{name}.txt", "3/report-x.txt", {"day": "3", "name": "x"}),
        ("in/exact.txt", "exact.txt", {}),
        ("in/exact.txt", "Exact.txt", None),
        ("in/{{today}}-{name}", "{today}-x", {"name": "x"}),
        ("in", "any/thing", {}),
    ],
)
def test_path_takes_names_and_reads_its_parts(path, name, values):
    pattern = BlobPattern.parse(path)
    assert pattern.container == "in"
    assert pattern.match(name) == values
    assert values is None or name.startswith(pattern.prefix)


def test_only_what_begins_as_the_path_is_listed():
    assert BlobPattern.parse("in/a/b-{name}.csv").prefix == "a/b-"


@pytest.mark.parametrize("path", ["", "/", "{container}/x", "in/{name", "in/name}", "in/{a}{a}", "in/{}", "in/{a-b}"])
def test_path_that_cannot_work_is_refused_with_itself(path):
    with pytest.raises(BlobPathError, match="expected") as refused:
        BlobPattern.parse(path)
    assert repr(path) in str(refused.value)
