"""The part of Service Bus' ATOM administration protocol that queues need: create, read, list and delete them."""

from http import HTTPStatus
from xml.etree import ElementTree as ET

from coremachine.local.broker.config import format_duration, parse_duration
from coremachine.local.broker.entity import Entity
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.stored import QueueSettings

_ATOM = "http://www.w3.org/2005/Atom"
_SERVICE = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
_COUNTS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
_LISTING = "$resources/queues"

Answer = tuple[HTTPStatus, bytes]


def answer_atom(namespace: Namespace, method: str, path: str, body: bytes) -> Answer:
    """Status and XML for a request to a queue's path or to `$Resources/queues`."""
    if method == "GET" and path.lower() == _LISTING:
        return HTTPStatus.OK, _feed(namespace.queues)
    entity = namespace.find(path)
    if method == "GET":
        # Service Bus answers a missing queue with an empty feed, and its clients rely on it.
        return HTTPStatus.OK, _feed([]) if entity is None else _document(_entry(entity))
    if method == "PUT":
        return _put(namespace, path, entity, body)
    if method == "DELETE":
        if entity is None:
            return _error(HTTPStatus.NOT_FOUND, f"expected an existing queue, found no '{path}'")
        namespace.remove(path)
        return HTTPStatus.OK, b""
    return _error(HTTPStatus.METHOD_NOT_ALLOWED, f"expected GET, PUT or DELETE, found {method}")


def _put(namespace: Namespace, path: str, entity: Entity | None, body: bytes) -> Answer:
    if entity is not None:
        return _error(HTTPStatus.CONFLICT, f"expected a new queue name, found that '{path}' exists already")
    try:
        created = namespace.add_queue(_read_settings(path, body))
    except (ET.ParseError, ValueError) as exc:
        return _error(HTTPStatus.BAD_REQUEST, str(exc))
    return HTTPStatus.CREATED, _document(_entry(created))


def _read_settings(name: str, body: bytes) -> QueueSettings:
    # The document comes from the loopback interface, from a program of the same user.
    description = ET.fromstring(body).find(f".//{{{_SERVICE}}}QueueDescription")  # noqa: S314
    if description is None:
        raise ValueError("expected a QueueDescription in the request's body, found none")
    given = {child.tag.removeprefix(f"{{{_SERVICE}}}"): child.text or "" for child in description}
    if given.get("RequiresSession", "").lower() == "true":
        raise ValueError("QueueDescription.RequiresSession: expected false, since the local broker has no sessions yet")
    if given.get("ForwardTo") or given.get("ForwardDeadLetteredMessagesTo"):
        raise ValueError("QueueDescription.ForwardTo: expected it left out, since the local broker does not forward")
    detects_duplicates = given.get("RequiresDuplicateDetection", "").lower() == "true"
    return QueueSettings(
        name=name,
        lock_duration_seconds=parse_duration(given.get("LockDuration", "PT1M")),
        max_delivery_count=int(given.get("MaxDeliveryCount", "10")),
        default_ttl_seconds=parse_duration(given.get("DefaultMessageTimeToLive", "PT1H")),
        dead_letter_on_expiration=given.get("DeadLetteringOnMessageExpiration", "").lower() == "true",
        duplicate_window_seconds=(
            parse_duration(given.get("DuplicateDetectionHistoryTimeWindow", "PT10M")) if detects_duplicates else None
        ),
    )


def _entry(entity: Entity) -> ET.Element:
    settings = entity.queue.settings
    entry = ET.Element(f"{{{_ATOM}}}entry")
    ET.SubElement(entry, f"{{{_ATOM}}}title", type="text").text = entity.name
    content = ET.SubElement(entry, f"{{{_ATOM}}}content", type="application/xml")
    description = ET.SubElement(content, f"{{{_SERVICE}}}QueueDescription")
    counts = entity.queue.counts()
    # The service counts locked messages as active.
    active = counts.active + counts.locked
    total = active + counts.scheduled + counts.deferred + counts.dead_letter
    values: dict[str, object] = {
        "LockDuration": format_duration(settings.lock_duration_seconds),
        "RequiresDuplicateDetection": str(settings.duplicate_window_seconds is not None).lower(),
        "RequiresSession": "false",
        "DeadLetteringOnMessageExpiration": str(settings.dead_letter_on_expiration).lower(),
        "MaxDeliveryCount": settings.max_delivery_count,
        "MessageCount": total,
        "Status": "Active",
    }
    if settings.default_ttl_seconds is not None:
        values["DefaultMessageTimeToLive"] = format_duration(settings.default_ttl_seconds)
    if settings.duplicate_window_seconds is not None:
        values["DuplicateDetectionHistoryTimeWindow"] = format_duration(settings.duplicate_window_seconds)
    for name, value in values.items():
        ET.SubElement(description, f"{{{_SERVICE}}}{name}").text = str(value)
    details = ET.SubElement(description, f"{{{_SERVICE}}}CountDetails")
    numbers = {
        "ActiveMessageCount": active,
        "DeadLetterMessageCount": counts.dead_letter,
        "ScheduledMessageCount": counts.scheduled,
        "TransferDeadLetterMessageCount": 0,
        "TransferMessageCount": 0,
    }
    for name, number in numbers.items():
        ET.SubElement(details, f"{{{_COUNTS}}}{name}").text = str(number)
    return entry


def _feed(entities: list[Entity]) -> bytes:
    feed = ET.Element(f"{{{_ATOM}}}feed")
    ET.SubElement(feed, f"{{{_ATOM}}}title", type="text").text = "Queues"
    feed.extend([_entry(entity) for entity in entities])
    return _document(feed)


def _error(status: HTTPStatus, text: str) -> Answer:
    error = ET.Element("Error")
    ET.SubElement(error, "Code").text = str(status.value)
    ET.SubElement(error, "Detail").text = text
    return status, _document(error)


def _document(root: ET.Element) -> bytes:
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document
