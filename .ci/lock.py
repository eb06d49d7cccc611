"""Write the files of exact versions and hashes (`make lock`), or compare them with pyproject.toml (`--check`, offline).

requirements-dev.txt  all that a checkout needs: the app, every extra, the build system. `make` installs it.
requirements.txt      what the deployed Function App needs, in the same versions.
deploy/container/requirements.txt  what the container needs, in the same versions.
deploy/functions/requirements.txt  what an app needs that runs no raster tasks, such as a platform app.
.ci/installer.txt     the installer, uv.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
INSTALLER, EVERYTHING, APP = ".ci/installer.txt", "requirements-dev.txt", "requirements.txt"
CONTAINER = "deploy/container/requirements.txt"
PLATFORM = "deploy/functions/requirements.txt"
# The app brings every job type, and the raster jobs need these where their tasks run.
EXTRAS = {
    APP: ("raster", "azure-storage", "azure-monitor"),
    CONTAINER: ("raster", "azure-storage", "serve", "telemetry", "azure-monitor"),
    PLATFORM: ("azure-storage", "azure-monitor"),
}
# One file for every Python and system that the project supports; the markers in it choose.
COMPILE = ("pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*==[^\s;]+)", re.MULTILINE)


def read_project(root: Path) -> dict[str, Any]:
    """The parts of pyproject.toml that decide about versions."""
    tables = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    names = ("requires-python", "dependencies", "optional-dependencies")
    return {"build": tables["build-system"]["requires"]} | {name: tables["project"][name] for name in names}


def header_of(root: Path) -> str:
    project = json.dumps(read_project(root), sort_keys=True)
    digest = hashlib.sha256(project.encode()).hexdigest()
    return f"# Written by `make lock`: edit pyproject.toml, not this.\n# pyproject.toml: sha256 {digest}\n"


def write_file(name: str, inputs: str, *options: str, lines: str = "") -> None:
    """Let uv find the pins for pyproject.toml or (`-`) the given lines; versions that the file has are kept."""
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, *COMPILE, "--python-version", "3.11", *options, "--output-file", name, *inputs.split()]
    subprocess.run(command, cwd=ROOT, input=lines, check=True, stdout=subprocess.DEVNULL, text=True)
    pins = (ROOT / name).read_text(encoding="utf-8")
    (ROOT / name).write_text(header_of(ROOT) + pins, encoding="utf-8")


def write_files(*, upgrade: bool) -> None:
    options = ("--upgrade",) if upgrade else ()
    build = "\n".join(read_project(ROOT)["build"])
    write_file(INSTALLER, "-", *options, lines="uv")
    write_file(EVERYTHING, "pyproject.toml -", "--all-extras", *options, lines=build)
    for name, extras in EXTRAS.items():
        chosen = [word for extra in extras for word in ("--extra", extra)]
        write_file(name, "pyproject.toml", *chosen, "--constraint", EVERYTHING, *options)


def blocks_of(text: str) -> dict[str, str]:
    """Name and version -> the hashes; the markers differ with what else is in a file."""
    _, *parts = PIN.split(text)
    return {pin: "\n".join(re.findall(r"--hash=\S+", rest)) for pin, rest in zip(parts[::2], parts[1::2], strict=True)}


def find_problems(root: Path = ROOT) -> list[str]:
    """What is wrong with the files, a sentence each."""
    texts = {name: (root / name).read_text(encoding="utf-8") for name in (INSTALLER, EVERYTHING, *EXTRAS)}
    found = [
        f"{name} was not written for this pyproject.toml: run `make lock`"
        for name, text in texts.items()
        if not text.startswith(header_of(root))
    ]
    blocks = {name: blocks_of(text) for name, text in texts.items()}
    for name, text in texts.items():
        found += [f"{name}: no hash for {pin}" for pin, hashes in blocks[name].items() if not hashes]
        if "://" in text:
            found.append(f"{name} names a package index: an installation chooses its own")
    found += [
        f"{name} and {EVERYTHING} differ in {pin}: run `make lock`"
        for name in EXTRAS
        for pin, hashes in blocks[name].items()
        if blocks[EVERYTHING].get(pin) != hashes
    ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; report what is not as it should be")
    parser.add_argument("--upgrade", action="store_true", help="the newest versions instead of those in the files")
    options = parser.parse_args()
    if not options.check:
        write_files(upgrade=options.upgrade)
    problems = find_problems()
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
