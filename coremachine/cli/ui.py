"""`coremachine ui`: the dashboard of the server in a browser."""

import webbrowser
from typing import Annotated
from urllib.parse import urlencode

import typer

from coremachine.cli.client import ApiClient, choose_server
from coremachine.cli.errors import CliError
from coremachine.cli.options import UrlOption
from coremachine.cli.render import console


class NoBrowser(CliError):
    """With the address, for people to open it themselves."""


def ui(
    url: UrlOption = None,
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Whether a browser opens it.")] = True,
) -> None:
    """Open the dashboard in a browser, and print its address.

    The function key is passed on to the browser, and is not printed.

    For example:

        coremachine ui

        coremachine ui --no-open
    """
    server = choose_server(url)
    with ApiClient(server) as client:
        problems, _ = client.look_whether_ready()
        address = f"{client.url}/api/ui"
    show = console()
    show.print(address, soft_wrap=True, highlight=False, markup=False)
    for problem in problems:
        show.print(f"not ready: {problem}", soft_wrap=True, highlight=False, markup=False)
    query = f"?{urlencode({'code': server.key})}" if server.key else ""
    if open_it and not webbrowser.open(address + query):
        raise NoBrowser(f"expected a browser on this machine, found none; open {address} elsewhere, or use --no-open")
