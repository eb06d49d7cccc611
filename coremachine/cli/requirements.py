"""Requirements of the deployed Function App: `python -m coremachine.cli.requirements > requirements.txt`."""

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
# The app brings every job type, and the raster jobs need these where their tasks run.
EXTRAS = ("raster", "azure-storage")
HEADER = "# Generated from pyproject.toml by `python -m coremachine.cli.requirements`: edit that, not this.\n"


def render_requirements(project: Path = PROJECT) -> str:
    """The text of requirements.txt: the project's dependencies, then those of EXTRAS that the app's jobs need."""
    tables = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    lines = [*tables["dependencies"]]
    for extra in EXTRAS:
        lines += tables["optional-dependencies"][extra]
    return HEADER + "".join(f"{line}\n" for line in dict.fromkeys(lines))


if __name__ == "__main__":
    sys.stdout.write(render_requirements())
