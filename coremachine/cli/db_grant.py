"""`coremachine db grant`: the rights of an app, for the owner of the schema. `db` from here has this command, too."""

from typing import Annotated

import typer

from coremachine.cli.db import DatabaseOption, SchemaOption, choose_database, db, open_pool
from coremachine.cli.options import OutputOption, wants_json
from coremachine.cli.render import console, print_json


@db.command()
def grant(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="The role of the app: the name of its identity.")],
    entra: Annotated[
        bool, typer.Option("--entra", help="Make the role first, if Azure's server has none for the identity.")
    ] = False,
    database_url: DatabaseOption = None,
    schema: SchemaOption = "app",
    output: OutputOption = None,
) -> None:
    """Let an app's role read and write the schema's rows, and call its functions; it may not change the schema.

    The grants count for the tables of later migrations too, if the same role applies these.

    For example: coremachine db grant my-pipelines-id --entra
    """
    from psycopg.conninfo import make_conninfo  # noqa: PLC0415 - psycopg is not for all

    from infrastructure.grants import GrantRepository  # noqa: PLC0415

    is_made = False
    if entra:
        with open_pool(make_conninfo(choose_database(database_url), dbname="postgres")) as pool:
            is_made = GrantRepository(pool).make_entra_role(role)
    with open_pool(database_url) as pool:
        GrantRepository(pool, schema).grant_app(role)
    if wants_json(output):
        print_json({"role": role, "made": is_made, "schema": schema})
    else:
        made = f"made the role {role}\n" if is_made else ""
        console().print(f"{made}granted: {role} may work in the schema {schema}", highlight=False, markup=False)
