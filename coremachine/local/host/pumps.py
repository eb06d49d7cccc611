"""Which pump a function with a Service Bus trigger gets in one worker."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from coremachine.local.host.blob_pump import BlobPump
from coremachine.local.host.blob_receipts import BlobReceipts, host_id_of
from coremachine.local.host.direct.choice import ChosenPump, emulator_address
from coremachine.local.host.direct.pump import DirectPump
from coremachine.local.host.direct.wire import Wire
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import AppIndex, BlobTrigger, IndexedFunction, QueueTrigger, ServiceBusTrigger
from coremachine.local.host.pump import Pump
from coremachine.local.host.settings import HostSettings, ServiceBusOptions, share_of
from coremachine.local.host.storage import Storage
from coremachine.local.host.storage_pump import StoragePump


def build_pumps(
    index: AppIndex,
    dispatcher: Dispatcher,
    settings: HostSettings,
    storage: Storage,
    environment: Mapping[str, str],
    *,
    workers: int,
    worker: int,
) -> list[Pump]:
    """The pumps of one worker.

    A batch function has one loop in the whole host, and so has a function for blobs: the first worker has it.
    """
    options = settings.service_bus
    pumps: list[Pump] = []
    for function in index.functions.values():
        trigger = function.trigger
        if isinstance(trigger, BlobTrigger) and worker == 0:
            receipts = BlobReceipts(
                storage, host_id_of(function.directory, environment), function.name, trigger.pattern.container
            )
            pumps.append(BlobPump(function, trigger, storage, receipts, dispatcher, settings.blobs))
        if isinstance(trigger, QueueTrigger):
            size = share_of(settings.storage_queues.batch_size, workers, worker)
            pumps.append(StoragePump(function, trigger, storage, dispatcher, settings.storage_queues, batch_size=size))
        if not isinstance(trigger, ServiceBusTrigger):
            continue
        pump = _service_bus_pump(function, trigger, dispatcher, options, environment, workers=workers, worker=worker)
        if pump is not None:
            pumps.append(pump)
    return pumps


def _service_bus_pump(
    function: IndexedFunction,
    trigger: ServiceBusTrigger,
    dispatcher: Dispatcher,
    options: ServiceBusOptions,
    environment: Mapping[str, str],
    *,
    workers: int,
    worker: int,
) -> Pump | None:
    """The worker's one for an entity; None if another worker has it."""
    if not trigger.has_sessions and not trigger.is_batch:
        calls = share_of(options.max_concurrent_calls, workers, worker)
        return _queue_pump(function, trigger, dispatcher, options, environment, calls)
    if not trigger.has_sessions and worker != 0:
        return None
    # Late: the SDK takes a third of a second to import, and a worker beside the local broker does not need it.
    from coremachine.local.host.batch_pump import BatchPump  # noqa: PLC0415
    from coremachine.local.host.sdk_receivers import NextSessions, PlainReceivers  # noqa: PLC0415
    from coremachine.local.host.session_pump import SessionPump  # noqa: PLC0415

    if trigger.has_sessions:
        sessions = share_of(options.max_concurrent_sessions, workers, worker)
        receivers = NextSessions(trigger, environment)
        return SessionPump(function, trigger, receivers, dispatcher, options, max_concurrent_sessions=sessions)
    return BatchPump(function, trigger, PlainReceivers(trigger, environment), dispatcher, options)


def _queue_pump(
    function: IndexedFunction,
    trigger: ServiceBusTrigger,
    dispatcher: Dispatcher,
    options: ServiceBusOptions,
    environment: Mapping[str, str],
    calls: int,
) -> Pump:
    def through_sdk() -> Pump:
        from coremachine.local.host.service_bus import QueuePump, SdkReceivers  # noqa: PLC0415 - as above

        receivers = SdkReceivers(trigger, environment)
        return QueuePump(function, trigger, receivers, dispatcher, options, max_concurrent_calls=calls)

    address = emulator_address(environment.get(trigger.connection, ""))
    if address is None:
        return through_sdk()

    def directly() -> Pump:
        connect = partial(Wire, address)
        return DirectPump(function, trigger, connect, dispatcher, options, max_concurrent_calls=calls)

    return ChosenPump(trigger.entity, address, direct=directly, other=through_sdk)
