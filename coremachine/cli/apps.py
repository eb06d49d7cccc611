"""Commands about servers: their names here, the apps that run, and the queues between them."""

from typing import Annotated

import typer

from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.insight import show_findings
from coremachine.cli.options import OutputOption, UrlOption, chosen_profile, wants_json
from coremachine.cli.profiles import read_profiles, user_file
from coremachine.cli.render import print_json, print_rows

_APP_COLUMNS = ["app", "mode", "release", "version", "status", "queues", "slots", "started_at", "seen_at", "instance"]
_SPARE_APP_COLUMNS = ["instance", "started_at", "version", "slots"]
_QUEUE_COLUMNS = [
    "queue",
    "waiting",
    "oldest_at",
    "claimed",
    "to_retry",
    "not_sent_yet",
    "dead",
    "consumers",
    "slots",
    "apps",
]


def list_apps(
    gone: Annotated[bool, typer.Option("--all", help="Also processes of the last day that are gone.")] = False,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """List the processes of all apps, with release and queues, and work that none of them can take.

    For example: coremachine apps --all
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.list_apps()
    if wants_json(output):
        print_json(answer)
        return
    shown = [each for each in answer["value"] if gone or each["status"] != "ended"]
    nothing = "No app has registered itself."
    print_rows(map(_app_row, shown), _APP_COLUMNS, empty=nothing, spare=_SPARE_APP_COLUMNS)
    show_findings(answer["findings"])


def list_queues(output: OutputOption = None, url: UrlOption = None) -> None:
    """List the queues: what waits on each and since when, dead messages, and who reads it.

    Claimed tasks, which JSON has as `running`, run in a process or wait there for one of its slots. Tasks that are not
    sent yet (`unannounced`) wait in line for a message; of these and those to retry, at most 200,000 open tasks are
    counted.

    For example: coremachine queues
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.list_queues()
    if wants_json(output):
        print_json(answer)
        return
    rows = [
        {
            **each,
            "claimed": each["running"],
            # A server of the release before has no such numbers.
            "to_retry": each.get("retrying"),
            "not_sent_yet": each.get("unannounced"),
            "apps": ", ".join(each["apps"]),
        }
        for each in answer["value"]
    ]
    print_rows(rows, _QUEUE_COLUMNS, empty="No queues.", spare=["slots"])
    show_findings(answer["findings"])


def list_profiles(output: OutputOption = None) -> None:
    """List the servers that have a name in your own file or in pyproject.toml, and how their keys are found.

    For example: coremachine profiles
    """
    chosen = chosen_profile()
    rows = [
        {
            "name": each.name,
            "url": each.url,
            "keys": each.how_keys_are_found(),
            "file": str(each.file),
            "chosen": "yes" if each.name == chosen else "",
        }
        for each in sorted(read_profiles().values(), key=lambda each: each.name)
    ]
    if wants_json(output):
        print_json({"value": rows})
        return
    print_rows(rows, ["name", "url", "keys", "file", "chosen"], empty=f"No profiles; {user_file()} may have them.")


def _app_row(instance: Json) -> Json:
    return {**instance, "app": instance["app_name"], "queues": ", ".join(instance["queues"])}
