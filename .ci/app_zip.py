"""The zip that a Function App gets: what .funcignore leaves of the checkout (`make zip`).

    python .ci/app_zip.py platform dist/platform.zip

An app with raster tasks gets requirements.txt, a platform app deploy/functions/requirements.txt under that name.
"""

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

import pathspec

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = {"app": "requirements.txt", "platform": "deploy/functions/requirements.txt"}


def files_of(root: Path = ROOT) -> list[str]:
    """Paths in the checkout: tracked or new, and not ignored by git nor by .funcignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    ignored = pathspec.GitIgnoreSpec.from_lines((root / ".funcignore").read_text(encoding="utf-8").splitlines())
    return sorted(name for name in set(found) if (root / name).is_file() and not ignored.match_file(name))


def write_zip(kind: str, target: Path, root: Path = ROOT) -> int:
    """The same bytes for the same files: no times. Returns the number of files."""
    target.parent.mkdir(parents=True, exist_ok=True)
    names = files_of(root)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            source = REQUIREMENTS[kind] if name == "requirements.txt" else name
            archive.writestr(zipfile.ZipInfo(name), (root / source).read_bytes(), zipfile.ZIP_DEFLATED)
    return len(names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(REQUIREMENTS))
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    count = write_zip(options.kind, options.target)
    size = options.target.stat().st_size / 1_000_000
    packages = REQUIREMENTS[options.kind]
    sys.stdout.write(f"{options.target}: {count} files, {size:.1f} MB, with the packages of {packages}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
