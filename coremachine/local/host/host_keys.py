"""The keys of host.json: what this host obeys, what changes nothing on one machine, what it ignores, what nobody knows.

Keys are lower-case dotted paths; one that ends in a dot includes everything below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_HONOURED = (
    "version",
    "functiontimeout",
    "functions",
    "functions.",
    "extensions.blobs.maxdegreeofparallelism",
    "extensions.blobs.poisonblobthreshold",
    "extensions.http.routeprefix",
    "extensions.http.maxconcurrentrequests",
    "extensions.http.maxoutstandingrequests",
    "extensions.queues.batchsize",
    "extensions.queues.maxdequeuecount",
    "extensions.queues.maxpollinginterval",
    "extensions.queues.messageencoding",
    "extensions.queues.visibilitytimeout",
    "extensions.servicebus.autocompletemessages",
    "extensions.servicebus.maxautolockrenewalduration",
    "extensions.servicebus.maxbatchwaittime",
    "extensions.servicebus.maxconcurrentcalls",
    "extensions.servicebus.maxconcurrentcallspersession",
    "extensions.servicebus.maxconcurrentsessions",
    "extensions.servicebus.maxmessagebatchsize",
    "extensions.servicebus.minmessagebatchsize",
    "extensions.servicebus.sessionidletimeout",
    "logging.loglevel.default",
    "logging.loglevel.function",
    "logging.loglevel.function.",
    "logging.loglevel.host",
    "logging.loglevel.host.",
    "retry.",
)
# They configure the cloud platform, its telemetry, or triggers that no function has here (which is refused as such).
_WITHOUT_EFFECT = (
    "$schema",
    "aggregator.",
    "extensionbundle.",
    "extensions.cosmosdb.",
    "extensions.durabletask.",
    "extensions.eventgrid.",
    "extensions.eventhubs.",
    "extensions.kafka.",
    "extensions.mcp.",
    "extensions.sendgrid.",
    "extensions.signalr.",
    "extensions.sql.",
    "extensions.warmup.",
    "healthmonitor.",
    "logging.applicationinsights.",
    "logging.console.",
    "logging.debuglogging",
    "logging.filelogging",
    # The .NET host's own parts.
    "logging.loglevel.azure.",
    "logging.loglevel.microsoft",
    "logging.loglevel.microsoft.",
    "logging.loglevel.system",
    "logging.loglevel.system.",
    "logging.loglevel.worker",
    "logging.loglevel.worker.",
    "manageddependency.",
    "singleton.",
    "telemetrymode",
    "watchdirectories",
    "watchfiles",
)
_IGNORED = (
    "concurrency.",
    "customhandler.",
    "extensions.http.customheaders.",
    "extensions.http.dynamicthrottlesenabled",
    "extensions.http.hsts.",
    "extensions.queues.newbatchthreshold",
    "extensions.servicebus.clientretryoptions.",
    "extensions.servicebus.enablecrossentitytransactions",
    "extensions.servicebus.prefetchcount",
    "extensions.servicebus.transporttype",
    "extensions.servicebus.webproxy",
)
_OF_VERSION_4 = (
    "extensions.servicebus.batchoptions.",
    "extensions.servicebus.messagehandleroptions.",
    "extensions.servicebus.sessionhandleroptions.",
)


def warnings_of(file_name: str, keys: Iterable[str]) -> Iterator[str]:
    """One line for each key that has another effect here than in Azure, or none."""
    for key in keys:
        if _is_in(key, _HONOURED) or _is_in(key, _WITHOUT_EFFECT):
            continue
        if _is_in(key, _IGNORED):
            yield f"{file_name}: {key!r} is not supported by the local host and is ignored"
        elif _is_in(key, _OF_VERSION_4):
            yield (
                f"{file_name}: {key!r} belongs to version 4 of the Service Bus extension and is ignored, in Azure as "
                "well: today's keys are one level higher, such as extensions.serviceBus.maxConcurrentCalls"
            )
        else:
            yield f"{file_name}: {key!r} is unknown and ignored, in Azure as well: is it misspelt or misplaced?"


def _is_in(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in names)
