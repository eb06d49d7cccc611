"""Print the changelog's section of a tag, or say why the tag is no release: `python .ci/release.py v1.2.3`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION_FILE = "core/basics/version.py"


def read_version(root: Path = ROOT) -> str:
    """The project's version, from its one place."""
    found = re.search(r'^VERSION = "([^"]+)"$', (root / VERSION_FILE).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f'expected a line VERSION = "1.2.3" in {VERSION_FILE}, found none')
    return found[1]


def release_notes(tag: str, root: Path = ROOT) -> str:
    """What CHANGELOG.md has below the heading of this version, up to the next one."""
    version = read_version(root)
    if tag != f"v{version}":
        raise SystemExit(
            f"expected the tag v{version} ({VERSION_FILE}), found {tag}: tag the commit that raises the version"
        )
    sections = re.split(r"(?m)^## ", (root / "CHANGELOG.md").read_text(encoding="utf-8"))
    for section in sections[1:]:
        title, _, text = section.partition("\n")
        if title.split() and title.split()[0] == version:
            return text.strip() + "\n"
    raise SystemExit(f"expected a section '## {version}' in CHANGELOG.md, found none: rename 'Unreleased'")


if __name__ == "__main__":
    sys.stdout.write(release_notes(*sys.argv[1:2]))
