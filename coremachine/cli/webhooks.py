"""Commands about webhooks: addresses that receive events."""

import sys
from typing import Annotated

import typer
from rich.markup import escape

from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.errors import UsageProblem
from coremachine.cli.options import LimitOption, Output, OutputOption, UrlOption, wants_json
from coremachine.cli.render import SHORT_ID, console, has_no_width, print_fields, print_json, print_rows, say

webhooks = typer.Typer(help="Addresses that receive events.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name.")]
_DELIVERY_COLUMNS = ["id", "event", "subject", "status", "attempts", "http_status", "reason", "created_at"]
_SHOWN_DELIVERIES = 10


@webhooks.command("list")
def list_webhooks(limit: LimitOption = 100, output: OutputOption = None, url: UrlOption = None) -> None:
    """List webhooks by name.

    For example: coremachine webhooks list
    """
    with ApiClient(choose_server(url)) as client:
        found = client.list_webhooks(limit=limit)
    if wants_json(output):
        print_json({"value": found})
        return
    rows = [{**each, "address": _address_of(each), "events": ", ".join(each["events"])} for each in found]
    print_rows(rows, ["name", "address", "events", "job_types", "paused"], empty="No webhooks.")


@webhooks.command()
def show(
    name: NameArgument,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most that many deliveries.")] = _SHOWN_DELIVERIES,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Show a webhook and its latest deliveries.

    For example: coremachine webhooks show team-geo
    """
    with ApiClient(choose_server(url)) as client:
        found = client.get_webhook(name)
        latest = client.list_deliveries(name, limit=limit) if limit else []
    if wants_json(output):
        print_json({**found, "deliveries": latest})
        return
    print_fields(found)
    print_rows(map(_row, latest), _DELIVERY_COLUMNS, empty="No deliveries yet.")


@webhooks.command("set")
def set_webhook(
    name: NameArgument,
    address: Annotated[
        str | None, typer.Argument(metavar="ADDRESS", help="https://..., or leave it out and give --address-setting.")
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", "-e", help="job.failed, job.stalled, ... Repeatable. Default: how jobs end."),
    ] = None,
    job_type: Annotated[
        list[str] | None, typer.Option("--type", help="Only these job types; a star for any characters. Repeatable.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Only jobs with this tag. Repeatable.")
    ] = None,
    failed_tasks: Annotated[
        int | None, typer.Option("--failed-tasks", min=1, help="For job.failing: failed tasks in one stage.")
    ] = None,
    stalled: Annotated[
        int | None,
        typer.Option("--stalled", min=60, metavar="SECONDS", help="For job.stalled: how long nothing of a job moves."),
    ] = None,
    address_setting: Annotated[
        str | None, typer.Option("--address-setting", help="App setting with an address that is itself a secret.")
    ] = None,
    secret_setting: Annotated[
        str | None, typer.Option("--secret-setting", help="App setting with the secret. Default: one is made.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Send nothing, until it is set without this.")] = False,
    description: Annotated[str | None, typer.Option("--description", help="A text for people.")] = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Write a webhook, or replace the one of this name. The secret of a new one is shown this once.

    For example:

        coremachine webhooks set team-geo https://example.org/hook -e job.failed --type "flood_*"

        coremachine webhooks set on-call https://example.org/hook -e job.stalled --stalled 3600

        coremachine webhooks set teams --address-setting COREMACHINE_WEBHOOK_URL_TEAMS
    """
    body = {
        "url": address,
        "url_setting": address_setting,
        "events": event or ["job.completed", "job.completed_with_errors", "job.failed", "job.cancelled"],
        "job_types": job_type,
        "tags": _tags_of(tag or []),
        "failed_tasks": failed_tasks,
        "stalled_seconds": stalled,
        "paused": paused or None,
        "secret_setting": secret_setting,
        "description": description,
    }
    with ApiClient(choose_server(url)) as client:
        answer = client.put_webhook(name, body)
    if wants_json(output):
        print_json(answer)
        return
    console().print(f"{escape(str(answer['name']))} is set", soft_wrap=True, highlight=False)
    _show_secret(answer.get("secret"))


@webhooks.command("rotate-secret")
def rotate_secret(name: NameArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Make another secret and show it this once. For a day deliveries are signed with the former one too.

    For example: coremachine webhooks rotate-secret team-geo
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.rotate_webhook_secret(name)
    if wants_json(output):
        print_json(answer)
    else:
        _show_secret(answer["secret"])


@webhooks.command("test")
def send_test(name: NameArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Send an event to it; `coremachine webhooks deliveries` shows what came of it.

    For example: coremachine webhooks test team-geo
    """
    with ApiClient(choose_server(url)) as client:
        _print_delivery(client.test_webhook(name), output)


@webhooks.command()
def deliveries(
    name: NameArgument,
    status: Annotated[str | None, typer.Option("--status", help="pending, delivered or dead.")] = None,
    limit: LimitOption = 100,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """List what was sent to a webhook, or is to be sent, the newest first.

    For example: coremachine webhooks deliveries team-geo --status dead
    """
    with ApiClient(choose_server(url)) as client:
        found = client.list_deliveries(name, limit=limit, status=status)
    if wants_json(output):
        print_json({"value": found})
    else:
        print_rows(map(_row, found), _DELIVERY_COLUMNS, empty="No deliveries.")


@webhooks.command()
def redeliver(
    name: NameArgument,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id, or enough of its beginning.")],
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Send a delivery again, with the same id.

    For example: coremachine webhooks redeliver team-geo 0b0c3f0e-0000
    """
    with ApiClient(choose_server(url)) as client:
        _print_delivery(client.redeliver(name, client.resolve_delivery_id(name, delivery_id)), output)


@webhooks.command()
def delete(name: NameArgument, output: OutputOption = None, url: UrlOption = None) -> None:
    """Delete a webhook and its deliveries.

    For example: coremachine webhooks delete team-geo
    """
    with ApiClient(choose_server(url)) as client:
        answer = client.delete_webhook(name)
    if wants_json(output):
        print_json(answer)
    else:
        console().print(escape(f"{name} is deleted"), soft_wrap=True)


def _row(delivery: Json) -> Json:
    """Its id, where a line has a width, as `redeliver` takes it."""
    return delivery if has_no_width(sys.stdout) else {**delivery, "id": delivery["id"][:SHORT_ID]}


def _print_delivery(delivery: Json, output: Output | None) -> None:
    if wants_json(output):
        print_json(delivery)
    else:
        text = f"{delivery['id']} {delivery['status']}"
        console().print(escape(text), soft_wrap=True, highlight=False)


def _show_secret(secret: object) -> None:
    if secret:
        console().print(escape(str(secret)), soft_wrap=True, highlight=False)
        say("the secret of its signatures; it is not shown again")


def _address_of(webhook: Json) -> str:
    return str(webhook.get("url") or webhook.get("url_setting"))


def _tags_of(texts: list[str]) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not equals:
            raise UsageProblem(f"--tag: expected NAME=VALUE, found {name!r}")
    return {name: value for name, _, value in pairs} or None
