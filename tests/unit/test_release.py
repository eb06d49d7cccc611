"""A release is what its tag names: one version, with its section of the changelog."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

from core.basics.version import VERSION

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
release = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(release)


@pytest.fixture
def project(tmp_path):
    """A project of version 1.2.3 with the changelog as given."""
    version_file = tmp_path / release.VERSION_FILE
    version_file.parent.mkdir(parents=True)
    version_file.write_text('"""Words."""\n\nVERSION = "1.2.3"\n')

    def make(changelog):
        (tmp_path / "CHANGELOG.md").write_text(changelog)
        return tmp_path

    return make


def test_the_version_has_one_place():
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert tables["project"]["dynamic"] == ["version"]
    assert tables["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "core.basics.version.VERSION"}
    assert release.read_version() == VERSION


def test_notes_are_the_section_of_the_version(project):
    root = project("# Changelog\n\n## Unreleased\n- c\n\n## 1.2.3 (2026-12-01)\n- b\n  two lines\n\n## 1.2.30\n- a\n")
    assert release.release_notes("v1.2.3", root) == "- b\n  two lines\n"


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2.4", "v1.2.30", "v1.2.3-rc1", ""])
def test_a_tag_of_another_version_is_refused(project, tag):
    with pytest.raises(SystemExit, match=r"expected the tag v1\.2\.3"):
        release.release_notes(tag, project("## 1.2.3\n- b\n"))


def test_a_release_without_a_section_is_refused(project):
    with pytest.raises(SystemExit, match=r"expected a section '## 1\.2\.3'"):
        release.release_notes("v1.2.3", project("## Unreleased\n- b\n\n## 1.2.30\n- c\n"))
