"""The keys of host.json: what this host obeys, what changes nothing on one machine, what it ignores, what nobody knows.

A key that ends in a dot includes everything below it. Upper and lower case are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_HONOURED = (
    "version",
    "functionTimeout",
    "functions",
    "functions.",
    "extensions.blobs.maxDegreeOfParallelism",
    "extensions.blobs.poisonBlobThreshold",
    "extensions.http.routePrefix",
    "extensions.http.maxConcurrentRequests",
    "extensions.http.maxOutstandingRequests",
    "extensions.queues.batchSize",
    "extensions.queues.maxDequeueCount",
    "extensions.queues.maxPollingInterval",
    "extensions.queues.messageEncoding",
    "extensions.queues.visibilityTimeout",
    "extensions.serviceBus.autoCompleteMessages",
    "extensions.serviceBus.maxAutoLockRenewalDuration",
    "extensions.serviceBus.maxBatchWaitTime",
    "extensions.serviceBus.maxConcurrentCalls",
    "extensions.serviceBus.maxConcurrentCallsPerSession",
    "extensions.serviceBus.maxConcurrentSessions",
    "extensions.serviceBus.maxMessageBatchSize",
    "extensions.serviceBus.minMessageBatchSize",
    "extensions.serviceBus.sessionIdleTimeout",
    "logging.logLevel.default",
    "logging.logLevel.Function",
    "logging.logLevel.Function.",
    "logging.logLevel.Host",
    "logging.logLevel.Host.",
    "retry.",
)
# They configure the cloud platform, its telemetry, or triggers that no function has here (which is refused as such).
_WITHOUT_EFFECT = (
    "$schema",
    "aggregator.",
    "extensionBundle.",
    "extensions.cosmosDB.",
    "extensions.durableTask.",
    "extensions.eventGrid.",
    "extensions.eventHubs.",
    "extensions.kafka.",
    "extensions.mcp.",
    "extensions.sendGrid.",
    "extensions.signalR.",
    "extensions.sql.",
    "extensions.warmup.",
    "healthMonitor.",
    "logging.applicationInsights.",
    "logging.console.",
    "logging.debugLogging",
    "logging.fileLogging",
    # The .NET host's own parts.
    "logging.logLevel.Azure.",
    "logging.logLevel.Microsoft",
    "logging.logLevel.Microsoft.",
    "logging.logLevel.System",
    "logging.logLevel.System.",
    "logging.logLevel.Worker",
    "logging.logLevel.Worker.",
    "managedDependency.",
    "singleton.",
    "telemetryMode",
    "watchDirectories",
    "watchFiles",
)
_IGNORED = (
    "concurrency.",
    "customHandler.",
    "extensions.http.customHeaders.",
    "extensions.http.dynamicThrottlesEnabled",
    "extensions.http.hsts.",
    "extensions.queues.newBatchThreshold",
    "extensions.serviceBus.clientRetryOptions.",
    "extensions.serviceBus.enableCrossEntityTransactions",
    "extensions.serviceBus.prefetchCount",
    "extensions.serviceBus.transportType",
    "extensions.serviceBus.webProxy",
)
_OF_VERSION_4 = (
    "extensions.serviceBus.batchOptions.",
    "extensions.serviceBus.messageHandlerOptions.",
    "extensions.serviceBus.sessionHandlerOptions.",
)


def warnings_of(file_name: str, keys: Iterable[str]) -> Iterator[str]:
    """One line for each key, given in lower case, that has another effect here than in Azure, or none."""
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
    lower = [name.lower() for name in names]
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in lower)
