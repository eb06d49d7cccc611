"""Commands that write the files of a project."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from core.project_file import FILE_NAME, ProjectFileError
from coremachine.cli.errors import UsageProblem
from coremachine.cli.render import console
from coremachine.scaffold.project import ScaffoldProblem, write_job, write_project

new = typer.Typer(help="Add something to a project.", no_args_is_help=True)


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A new folder, or one without visible files (. for this one); its name is the project's: lower-case "
            "letters, digits, hyphens.",
        ),
    ],
    azure: Annotated[
        bool, typer.Option("--azure", help="With the files for a deployment: by hand, and by azd.")
    ] = False,
) -> None:
    """Write a project of your own: a function app, a package with one job, and a test of it.

    For example:

        coremachine init my-pipelines

        coremachine init my-pipelines --azure
    """
    _show(lambda: write_project(folder, azure=azure), folder)
    enter = "" if folder.resolve() == Path.cwd() else f"cd {folder}; "
    console().print(
        f"next: {enter}pip install --find-links . -e '.[dev]'; pytest; coremachine up --reload",
        highlight=False,
        markup=False,
    )


@new.command("job")
def new_job(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Lower-case letters and digits in words with hyphens or underscores between, beginning with a "
            "letter, at most 50 characters: resize-images.",
        ),
    ],
) -> None:
    """Add a job and its test to the project of this folder.

    For example: coremachine new job resize-images
    """
    here = Path.cwd()
    folder = next((place for place in (here, *here.parents) if (place / FILE_NAME).is_file()), here)
    _show(lambda: write_job(folder, name), folder)
    console().print("next: replace what its handlers and its test do; pytest", highlight=False, markup=False)


def _show(write: "Callable[[], list[Path]]", folder: Path) -> None:
    try:
        written = write()
    except (ScaffoldProblem, ProjectFileError) as error:
        raise UsageProblem(str(error)) from error
    for path in written:
        console().print(str(folder / path), highlight=False, soft_wrap=True, markup=False)
