"""Sends through Service Bus. The SDK is imported when something is first sent: that takes a fifth of a second."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import chain
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from core.basics.first_imports import IMPORTS
from core.errors import DeliveryError, MessageTooLarge, QueueNotFound
from core.models import JobQueueMessage, QueueMessage, StageCompleteMessage, TaskQueueMessage
from core.models.message import KeptMessage
from core.ports import NOT_SEEN_THROUGH
from core.safety.safe_log import safe_logger
from core.telemetry.reports import observer

if TYPE_CHECKING:
    from azure.servicebus import (
        ServiceBusClient,
        ServiceBusMessage,
        ServiceBusMessageBatch,
        ServiceBusReceiver,
        ServiceBusSender,
    )
    from azure.servicebus.amqp import AmqpAnnotatedMessage

    Message = ServiceBusMessage | AmqpAnnotatedMessage
    Parcel = Message | ServiceBusMessageBatch


class _Handle(Protocol):
    """The SDK's sender or receiver of a queue."""

    def close(self) -> None: ...


T = TypeVar("T")
H = TypeVar("H", bound=_Handle)
log = safe_logger(__name__)

# Service Bus closes a connection that was silent for four minutes, and what lies on the way may forget one without
# a word. The SDK's keep-alive thread would prevent that, but it works on the link without a lock while a send does.
_MAX_IDLE_SECONDS = 180.0
# The SDK's 0.2 s is too short to write a full batch over a slow line (Azure/azure-sdk-for-python#30425).
_SOCKET_TIMEOUT_SECONDS = 5.0
# The smallest limit, of the Standard tier, is 256 KB with all properties.
_SURELY_FITS_BYTES = 64 * 1024
# A throttled namespace is asked again after about these pauses, and then left to the janitor.
_BUSY_PAUSES_SECONDS = (0.2, 0.8, 2.0)
# A look goes through so many messages that wait for no worker.
_PEEK_PAGE, _PEEK_PAGES = 50, 20
_SUBJECTS = {
    JobQueueMessage: "job",
    StageCompleteMessage: "stage_complete",
    TaskQueueMessage: "task",
    KeptMessage: "kept",
}


@cache
def _load_sdk() -> None:
    """The first thread imports all of it; the imports below then find it complete."""
    with IMPORTS:
        import azure.core.exceptions  # noqa: PLC0415 - slow to import
        import azure.servicebus.exceptions  # noqa: F401, PLC0415


def connect_with_string(connection_string: str, **options: Any) -> "ServiceBusClient":
    """A client for `ServiceBusRepository`. Options: see `_client_options`."""
    _load_sdk()
    from azure.servicebus import ServiceBusClient  # noqa: PLC0415 - slow to import

    return ServiceBusClient.from_connection_string(connection_string, **_client_options(**options))


def connect_with_identity(namespace: str, client_id: str | None = None, **options: Any) -> "ServiceBusClient":
    """The same, signed in as the app's identity.

    Args:
        namespace: A host name such as `my-namespace.servicebus.windows.net`.
        client_id: See `infrastructure.entra.default_credential`.
    """
    _load_sdk()
    from azure.servicebus import ServiceBusClient  # noqa: PLC0415 - slow to import

    from infrastructure.entra import default_credential  # noqa: PLC0415 - only with identities

    return ServiceBusClient(namespace, default_credential(client_id), **_client_options(**options))


def _client_options(*, try_timeout: float = 10.0, **options: Any) -> dict[str, Any]:
    """Those of `ServiceBusClient`; `connection_verify` names a certificate authority that is to be trusted."""
    # The repository tries again itself, at once and on a new connection; the SDK would wait a second or two first.
    return {"retry_total": 0, "try_timeout": try_timeout, **options}


class ServiceBusRepository:
    """A `core.ports.MessageSender` and `core.ports.QueueInspector`. Any thread may use it.

    A queue has a connection for sending and one for looking, each opened at its first use and kept. Sends to one queue
    go one after the other, since an SDK sender serves one thread at a time; so do looks.

    Args:
        queues: Real names of queues by their logical names.
        connect: Makes the client, when something is first sent.
        clock: Seconds that only grow.
        patience_seconds: How long a thread waits for others that use the same connection. The SDK waits without end
            for a peer that accepts a connection and then does not answer; this limits the harm to one thread.
        busy_pauses_seconds: A send that the broker is too busy for is retried after about each of these.
    """

    def __init__(
        self,
        queues: Mapping[str, str],
        connect: Callable[[], "ServiceBusClient"],
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float = 60.0,
        busy_pauses_seconds: Sequence[float] = _BUSY_PAUSES_SECONDS,
    ) -> None:
        self._connect = connect
        self._busy_pauses_seconds = busy_pauses_seconds
        self._client: ServiceBusClient | None = None
        self._client_lock = Lock()
        self._is_closed = False
        # Logical names of queues that were not there when this process last asked for them, and what to do about it.
        self.missing_queues: dict[str, str] = {}

        def links(open_handle: Callable[["ServiceBusClient", str], H]) -> dict[str, _Link[H]]:
            return {
                logical: _Link(real, self._get_client, open_handle, clock, patience_seconds)
                for logical, real in queues.items()
            }

        self._senders = links(_open_sender)
        self._receivers = links(_open_receiver)

    def send_messages(self, queue: str, messages: Sequence[QueueMessage]) -> None:
        """Send all of them, in as few batches as the size limit allows; returns when the broker has them.

        Raises:
            QueueNotFound: The settings or the namespace have no such queue.
            MessageTooLarge: One alone is larger than the queue takes.
            DeliveryError: Anything else, after a second try if that could help. Some may have been sent, some not.
        """
        self._send(queue, (_outgoing(message) for message in messages))

    def send_message_with_delay(self, queue: str, message: QueueMessage, delay_seconds: float) -> None:
        """Send it now, to appear in the queue after the delay. Raises what `send_messages` raises.

        A send with a due time costs one round trip. Scheduling proper costs another link and more round trips, for a
        number to cancel by that nobody needs: a message whose rows have changed does nothing.
        """
        due_at = datetime.now(UTC) + timedelta(seconds=delay_seconds)
        self._send(queue, [_outgoing(message, due_at)])

    def open_senders(self) -> Thread:
        """Open the connections for sending in the background: the SDK takes half a second for each, mostly asleep.

        A failure is left to the first send, which tries again and reports it.
        """
        self._is_closed = False

        def open_all() -> None:
            for logical, link in self._senders.items():
                if self._is_closed:
                    return
                try:
                    with _translated(logical, link.real_name):
                        link.do(_learn_size_limit)
                except DeliveryError as error:
                    log.info("sender_not_opened", extra={"queue": link.real_name, "reason": error.reason})

        opening = Thread(target=open_all, name="open-senders", daemon=True)
        opening.start()
        return opening

    def oldest_enqueued_at(self, queue: str) -> datetime | None:
        """When the oldest message came, locked ones included; see `core.ports.QueueInspector`. Takes none out.

        It looks through a thousand scheduled and deferred messages. The queue must not be partitioned: the order of
        its messages would then say nothing about their age.

        Raises:
            QueueNotFound, DeliveryError: As `send_messages` does.
        """
        link = _find(self._receivers, queue)
        with self._noting_missing(queue, link.real_name):
            return link.do(_find_oldest)

    def check_queue(self, queue: str) -> None:
        """Look whether the queue is there; takes no message.

        Raises:
            QueueNotFound, DeliveryError: As `send_messages` does.
        """
        link = _find(self._receivers, queue)
        with self._noting_missing(queue, link.real_name):
            link.do(_peek_one)

    def close(self) -> None:
        """Close all connections. The next send would open them again."""
        self._is_closed = True
        links: list[_Link[Any]] = [*self._senders.values(), *self._receivers.values()]
        for link in links:
            try:
                link.close()
            except TimeoutError as error:
                log.warning("service_bus_not_closed", extra={"queue": link.real_name, "error": str(error)})
        with self._client_lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _send(self, queue: str, outgoing: Iterable["Outgoing"]) -> None:
        link = _find(self._senders, queue)

        def new_batch() -> "ServiceBusMessageBatch":
            # It knows the size limit, which the broker reports when the connection opens.
            return link.do(lambda sender: sender.create_message_batch())

        with self._noting_missing(queue, link.real_name):
            # The link is taken anew for each: between the batches of a large stage, other threads get through.
            for parcel in _parcels(queue, outgoing, new_batch):
                self._send_patiently(link, parcel)

    @contextmanager
    def _noting_missing(self, queue: str, real_name: str) -> Iterator[None]:
        """The SDK's errors as the engine's; remembers whether the queue was there."""
        try:
            with _translated(queue, real_name):
                yield
        except QueueNotFound as error:
            self.missing_queues[queue] = error.reason
            raise
        self.missing_queues.pop(queue, None)

    def _send_patiently(self, link: "_Link[ServiceBusSender]", parcel: "Parcel") -> None:
        """Send it, again after pauses while the broker is too busy. Others use the link meanwhile."""
        from azure.servicebus.exceptions import ServiceBusServerBusyError  # noqa: PLC0415 - slow to import

        for seconds in self._busy_pauses_seconds:
            try:
                return link.do(partial(_send_parcel, parcel=parcel))
            except ServiceBusServerBusyError:
                # Jittered: many processes got this answer at one moment.
                time.sleep(seconds * random.uniform(0.5, 1.5))
        return link.do(partial(_send_parcel, parcel=parcel))

    def _get_client(self) -> "ServiceBusClient":
        with self._client_lock:
            if self._client is None:
                self._client = self._connect()
            return self._client


class _Link(Generic[H]):
    """The SDK's sender or receiver of one queue, for one thread at a time."""

    def __init__(
        self,
        real_name: str,
        get_client: Callable[[], "ServiceBusClient"],
        open_handle: Callable[["ServiceBusClient", str], H],
        clock: Callable[[], float],
        patience_seconds: float,
    ) -> None:
        self.real_name = real_name
        self._patience_seconds = patience_seconds
        self._get_client = get_client
        self._open_handle = open_handle
        self._clock = clock
        self._lock = Lock()
        self._handle: H | None = None
        self._used_at = 0.0

    def close(self) -> None:
        with self._held():
            self._drop_handle()

    def do(self, action: Callable[[H], T]) -> T:
        """Try it; if the connection may be the reason that it fails, try once more on a new one."""
        from azure.servicebus.exceptions import ServiceBusError  # noqa: PLC0415 - slow to import

        with self._held():
            if self._clock() - self._used_at > _MAX_IDLE_SECONDS:
                self._drop_handle()
            try:
                result = action(self._get_handle())
            except ServiceBusError as error:
                if not _may_be_the_connection(error):
                    raise
                error_type = type(error).__name__
                log.warning("service_bus_reconnect", extra={"queue": self.real_name, "error_type": error_type})
                self._drop_handle()
                result = action(self._get_handle())
            self._used_at = self._clock()
            return result

    @contextmanager
    def _held(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._patience_seconds):
            raise TimeoutError(
                f"expected the connection to {self.real_name!r} within {self._patience_seconds:g} s, "
                "found it in use by a thread that waits for the broker"
            )
        try:
            yield
        finally:
            self._lock.release()

    def _get_handle(self) -> H:
        if self._handle is None:
            self._handle = self._open_handle(self._get_client(), self.real_name)
        return self._handle

    def _drop_handle(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


def _open_sender(client: "ServiceBusClient", real_name: str) -> "ServiceBusSender":
    return client.get_queue_sender(real_name, keep_alive=0, socket_timeout=_SOCKET_TIMEOUT_SECONDS)


def _open_receiver(client: "ServiceBusClient", real_name: str) -> "ServiceBusReceiver":
    # For looking only: it asks for no message, whatever the count is. Without the count the SDK would start a
    # keep-alive thread that works on the connection while a look does.
    return client.get_queue_receiver(real_name, prefetch_count=1, keep_alive=0, socket_timeout=_SOCKET_TIMEOUT_SECONDS)


def _peek_one(receiver: "ServiceBusReceiver") -> None:
    receiver.peek_messages(1, sequence_number=1)


def _learn_size_limit(sender: "ServiceBusSender") -> None:
    """The broker reports it when the connection opens."""
    sender.create_message_batch()


def _send_parcel(sender: "ServiceBusSender", *, parcel: "Parcel") -> None:
    sender.send_messages(parcel)


def _find_oldest(receiver: "ServiceBusReceiver") -> datetime | None:
    """Messages come in the order of their arrival; usually the first is enough. Only an empty page is the last."""
    from azure.servicebus import ServiceBusMessageState  # noqa: PLC0415 - slow to import

    # From the first on: without a number, a receiver goes on behind what it saw last.
    number = 1
    for size in (1, *[_PEEK_PAGE] * _PEEK_PAGES):
        page = receiver.peek_messages(size, sequence_number=number)
        for message in page:
            if message.state not in {ServiceBusMessageState.SCHEDULED, ServiceBusMessageState.DEFERRED}:
                return message.enqueued_time_utc or NOT_SEEN_THROUGH
            number = (message.sequence_number or number) + 1
        if not page:
            return None
    log.info("queue_not_seen_through", extra={"queue": receiver.entity_path, "next_sequence_number": number})
    return NOT_SEEN_THROUGH


def _find(links: Mapping[str, _Link[H]], queue: str) -> _Link[H]:
    link = links.get(queue)
    if link is None:
        known = ", ".join(links)
        raise QueueNotFound(queue, f"expected one of the configured queues ({known}), found another")
    return link


def _may_be_the_connection(error: Exception) -> bool:
    from azure.servicebus import exceptions  # noqa: PLC0415 - slow to import

    return not isinstance(
        error,
        (
            exceptions.MessagingEntityNotFoundError,
            exceptions.MessagingEntityDisabledError,
            exceptions.MessageSizeExceededError,
            exceptions.ServiceBusAuthorizationError,
            exceptions.ServiceBusQuotaExceededError,
            exceptions.ServiceBusServerBusyError,
        ),
    )


def _parcels(
    queue: str, outgoing: Iterable["Outgoing"], new_batch: Callable[[], "ServiceBusMessageBatch"]
) -> Iterator["Parcel"]:
    """Batches as full as they get; a small message that is alone goes as it is, which is cheaper."""
    rest = iter(outgoing)
    first, second = next(rest, None), next(rest, None)
    if first is None:
        return
    if second is None and first.size <= _SURELY_FITS_BYTES:
        yield first.message
        return
    batch = new_batch()
    for each in chain([first], [second] if second else [], rest):
        if _fits(batch, each.message):
            continue
        if len(batch):
            yield batch
            batch = new_batch()
            if _fits(batch, each.message):
                continue
        raise MessageTooLarge(
            queue,
            f"expected a message of at most {batch.max_size_in_bytes} bytes, found {each.message_id} "
            f"with a body of {each.size}; send references, not contents",
        )
    yield batch


def _fits(batch: "ServiceBusMessageBatch", message: "Message") -> bool:
    """Add it, if there is room."""
    from azure.servicebus.exceptions import MessageSizeExceededError  # noqa: PLC0415 - slow to import

    try:
        batch.add_message(message)
    except MessageSizeExceededError:
        return False
    return True


@dataclass(frozen=True)
class Outgoing:
    """A message, its id, and the bytes of its body."""

    message: "Message"
    message_id: str
    size: int


def _outgoing(message: QueueMessage, due_at: datetime | None = None) -> Outgoing:
    """Without `ServiceBusMessage`, whose setters double the cost of making one, unless there is a due time."""
    _load_sdk()
    from azure.servicebus import ServiceBusMessage  # noqa: PLC0415 - slow to import
    from azure.servicebus.amqp import AmqpAnnotatedMessage  # noqa: PLC0415 - slow to import

    body = message.model_dump_json(exclude_none=True).encode()
    message_id = message.message_id
    application_properties: dict[Any, Any] = {}
    application_properties.update(observer().outgoing_headers())
    if not isinstance(message, KeptMessage):
        stage = message.completed_stage if isinstance(message, StageCompleteMessage) else message.stage
        application_properties |= {"run": message.run, "stage": stage}
        if message.job_id is not None:
            application_properties["job_id"] = message.job_id
    properties: dict[str, Any] = {
        "message_id": message_id,
        "correlation_id": message.correlation_id,
        "content_type": "application/json",
        "subject": _SUBJECTS[type(message)],
    }
    made: Message
    if due_at is None:
        made = AmqpAnnotatedMessage(
            data_body=body, properties=properties, application_properties=application_properties
        )
    else:
        made = ServiceBusMessage(
            body, application_properties=application_properties, scheduled_enqueue_time_utc=due_at, **properties
        )
    return Outgoing(made, message_id, len(body))


@contextmanager
def _translated(queue: str, real_name: str) -> Iterator[None]:
    """The SDK's errors as the engine's, by type."""
    _load_sdk()
    from azure.core.exceptions import AzureError  # noqa: PLC0415 - slow to import
    from azure.servicebus import exceptions  # noqa: PLC0415 - slow to import

    try:
        yield
    except exceptions.MessagingEntityNotFoundError as error:
        reason = f"expected a queue {real_name!r} in the namespace, found none; create it, or fix its setting"
        raise QueueNotFound(queue, reason) from error
    except exceptions.MessageSizeExceededError as error:
        raise MessageTooLarge(queue, str(error)) from error
    except (AzureError, OSError) as error:
        raise DeliveryError(queue, f"{type(error).__name__}: {error}") from error
