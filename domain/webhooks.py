"""Outgoing webhooks: events are written where they happen, in their transaction, and sent until they are taken or given up.

Messages are signed as Standard Webhooks describes (https://www.standardwebhooks.com): a receiver checks `webhook-signature` over
`webhook-id`, `webhook-timestamp` and the body, and drops an id that it has seen.
"""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import msgspec

from domain import audit, duties
from domain.access.callers import Caller
from domain.duties import Duty
from domain.errors import InvalidInput, InvalidState, NotFound, OutOfRange
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import Scope, WebhookDeliveryStatus
from models.ids import uuid7

ALERT_FIRED: Final = "alert.fired"
TOP_UP_FULFILLED: Final = "top_up.fulfilled"
EVENTS: Final = (ALERT_FIRED, TOP_UP_FULFILLED)
"""What an endpoint can choose."""
DELIVERY: Final = "webhook_delivery"
MOST_ENDPOINTS = 20
LONGEST_URL = 2000
LONGEST_GRACE_SECONDS = 604_800
RETRY_SECONDS = (5, 30, 120, 600, 1800, 7200, 18_000, 36_000, 36_000)
"""How long to wait after each failed try; after the last of them the delivery is given up, a little more than a day after the event."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An address that events are sent to; `events` None means all."""

    id: UUID
    workspace_id: UUID
    url: str
    events: tuple[str, ...] | None
    enabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One event for one endpoint."""

    id: UUID
    workspace_id: UUID
    endpoint_id: UUID
    event: str
    event_id: str
    payload: Any
    status: WebhookDeliveryStatus
    tries: int
    http_status: int | None
    failure_code: str | None
    failure: str | None
    next_try_at: datetime | None
    created_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: the body's bytes and the headers that sign them."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of one try: the HTTP status, if any, and why it was no success."""

    http_status: int | None
    failure_code: str | None = None
    failure: str | None = None


class Sender(Protocol):
    """Sends a message to the outside."""

    async def send(self, message: Message) -> Taken:
        """Send once; a failure is told, never raised."""


_ENDPOINT = "id, workspace_id, url, events, enabled, created_at"
_DELIVERY = (
    "id, workspace_id, endpoint_id, event, event_id, payload, status, tries, http_status, failure_code, failure, next_try_at, created_at, delivered_at"
)


def _endpoint(row: asyncpg.Record) -> EndpointView:
    plain = {name: row[name] for name in EndpointView.__dataclass_fields__}
    return EndpointView(**plain | {"events": None if row["events"] is None else tuple(row["events"])})


def _delivery(row: asyncpg.Record) -> DeliveryView:
    return DeliveryView(**{**row, "payload": msgspec.json.decode(row["payload"]), "status": WebhookDeliveryStatus(row["status"])})


def signing_secret(installation_secret: str, endpoint_id: UUID, generation: int) -> str:
    """Return an endpoint's signing secret, `whsec_` and base64 of 32 bytes; derived, so that no table holds it."""
    digest = hmac.digest(installation_secret.encode(), f"webhook:{endpoint_id}:{generation}".encode(), hashlib.sha256)
    return f"whsec_{base64.b64encode(digest).decode()}"


def signature(secret: str, message_id: str, at: datetime, body: bytes) -> str:
    """Return one signature of the header `webhook-signature`: version 1, HMAC-SHA256."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{int(at.timestamp())}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def check_url(url: str, *, private_allowed: bool) -> str:
    """Return `url` when messages may go there; raises InvalidInput.

    It is HTTPS, and names no private address; what a name resolves to is looked at when a message leaves. `private_allowed` is for
    development: any HTTP address then.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or len(url) > LONGEST_URL or parts.username or parts.password or parts.fragment or any(ord(each) <= 32 for each in url):
        raise InvalidInput("This is no address of a web server.", path=("url",))
    if private_allowed:
        if parts.scheme not in ("http", "https"):
            raise InvalidInput("The address must be HTTP or HTTPS.", path=("url",))
        return url
    if parts.scheme != "https":
        raise InvalidInput("The address must be HTTPS.", path=("url",))
    try:
        public = ipaddress.ip_address(host).is_global
    except ValueError:
        public = "." in host and not host.endswith((".localhost", ".local", ".internal"))
    if not public:
        raise InvalidInput("The address must be public.", path=("url",))
    return url


def _check_events(events: Sequence[str] | None) -> list[str] | None:
    if events is None:
        return None
    unknown = [event for event in events if event not in EVENTS]
    if unknown or not events:
        raise InvalidInput(f"Events are of: {', '.join(EVENTS)}.", path=("events",))
    return list(dict.fromkeys(events))


async def create(caller: Caller, url: str, events: Sequence[str] | None, *, installation_secret: str, private_allowed: bool) -> tuple[EndpointView, str]:
    """Make an endpoint; return it with its signing secret, which is shown this once.

    Raises InvalidInput for an address or an event that is none, OutOfRange beyond MOST_ENDPOINTS.
    """
    workspace_id = caller.require(Scope.ALERTS_WRITE)
    check_url(url, private_allowed=private_allowed)
    wanted = _check_events(events)
    async with database.transaction():
        await database.fetch("SELECT FROM workspace WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
        if await database.fetch_value("SELECT count(*) FROM webhook_endpoint WHERE workspace_id = $1 AND removed_at IS NULL", workspace_id) >= MOST_ENDPOINTS:
            raise OutOfRange(f"A workspace has at most {MOST_ENDPOINTS} endpoints.", minimum=0, maximum=MOST_ENDPOINTS, too_large=True)
        row = await database.fetch_row(
            f"INSERT INTO webhook_endpoint (workspace_id, id, url, events, enabled, generation, created_at) VALUES ($1, $2, $3, $4, true, 1, $5) RETURNING {_ENDPOINT}",
            workspace_id,
            uuid7(),
            url,
            wanted,
            caller.at,
        )
        assert row is not None
        told = {"url": (None, url), "events": (None, wanted)}
        await audit.note(caller.actor, "webhookEndpoint.create", ("WebhookEndpoint", row["id"]), told, workspace_id=workspace_id, at=caller.at)
    return _endpoint(row), signing_secret(installation_secret, row["id"], 1)


async def every(caller: Caller) -> list[EndpointView]:
    """Return the workspace's endpoints, oldest first."""
    workspace_id = caller.require(Scope.ALERTS_READ)
    rows = await database.fetch(f"SELECT {_ENDPOINT} FROM webhook_endpoint WHERE workspace_id = $1 AND removed_at IS NULL ORDER BY id", workspace_id)
    return [_endpoint(row) for row in rows]


async def find(caller: Caller, endpoint_id: UUID) -> EndpointView:
    """Return one endpoint; raises NotFound for another workspace's too."""
    return _endpoint(await _own(caller.require(Scope.ALERTS_READ), endpoint_id))


async def find_many(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, EndpointView]:
    """Return those of the workspace's endpoints that have these ids, by id, deleted ones too: their deliveries still name them."""
    rows = await database.fetch(
        f"SELECT {_ENDPOINT} FROM webhook_endpoint WHERE workspace_id = $1 AND id = ANY ($2)",
        caller.require(Scope.ALERTS_READ),
        list(ids),
    )
    return {row["id"]: _endpoint(row) for row in rows}


async def _own(workspace_id: UUID, endpoint_id: UUID, *, lock: bool = False) -> asyncpg.Record:
    row = await database.fetch_row(
        f"SELECT {_ENDPOINT} FROM webhook_endpoint WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL" + (" FOR NO KEY UPDATE" if lock else ""),
        workspace_id,
        endpoint_id,
    )
    if row is None:
        raise NotFound("webhook endpoint", path=("id",))
    return row


@dataclass(frozen=True, slots=True)
class EndpointChanges:
    """What to change of an endpoint; `keep_events` leaves its events, otherwise None means all."""

    url: str | None = None
    events: Sequence[str] | None = None
    keep_events: bool = True
    enabled: bool | None = None


async def update(caller: Caller, endpoint_id: UUID, changes: EndpointChanges, *, private_allowed: bool) -> EndpointView:
    """Change an endpoint; raises NotFound, and InvalidInput as `create` does."""
    workspace_id = caller.require(Scope.ALERTS_WRITE)
    if changes.url is not None:
        check_url(changes.url, private_allowed=private_allowed)
    wanted = None if changes.keep_events else _check_events(changes.events)
    async with database.transaction():
        old = _endpoint(await _own(workspace_id, endpoint_id, lock=True))
        row = await database.fetch_row(
            f"""
            UPDATE webhook_endpoint SET url = coalesce($3, url), events = CASE WHEN $4 THEN events ELSE $5 END, enabled = coalesce($6, enabled)
             WHERE workspace_id = $1 AND id = $2 RETURNING {_ENDPOINT}
            """,
            workspace_id,
            endpoint_id,
            changes.url,
            changes.keep_events,
            wanted,
            changes.enabled,
        )
        assert row is not None
        told = audit.difference(_told(old), _told(_endpoint(row)))
        await audit.note(caller.actor, "webhookEndpoint.update", ("WebhookEndpoint", endpoint_id), told, workspace_id=workspace_id, at=caller.at)
    return _endpoint(row)


def _told(endpoint: EndpointView) -> dict[str, object]:
    return {"url": endpoint.url, "events": endpoint.events, "enabled": endpoint.enabled}


async def rotate(caller: Caller, endpoint_id: UUID, grace_seconds: int, *, installation_secret: str) -> tuple[EndpointView, str]:
    """Give an endpoint a new signing secret and return it; both sign for `grace_seconds`, 0 to LONGEST_GRACE_SECONDS."""
    workspace_id = caller.require(Scope.ALERTS_WRITE)
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise OutOfRange(
            f"A grace period has 0 to {LONGEST_GRACE_SECONDS} seconds.",
            minimum=0,
            maximum=LONGEST_GRACE_SECONDS,
            too_large=grace_seconds > 0,
            path=("graceSeconds",),
        )
    async with database.transaction():
        await _own(workspace_id, endpoint_id, lock=True)
        row = await database.fetch_row(
            f"UPDATE webhook_endpoint SET generation = generation + 1, previous_until = $3 WHERE workspace_id = $1 AND id = $2 RETURNING {_ENDPOINT}, generation",
            workspace_id,
            endpoint_id,
            caller.at + timedelta(seconds=grace_seconds),
        )
        assert row is not None
        told = {"graceSeconds": (None, grace_seconds)}
        await audit.note(caller.actor, "webhookEndpoint.rotate", ("WebhookEndpoint", endpoint_id), told, workspace_id=workspace_id, at=caller.at)
    return _endpoint(row), signing_secret(installation_secret, endpoint_id, row["generation"])


async def remove(caller: Caller, endpoint_id: UUID) -> UUID:
    """Delete an endpoint; what waits for it is dropped, and alert rules that name it tell by e-mail only."""
    workspace_id = caller.require(Scope.ALERTS_WRITE)
    async with database.transaction():
        await _own(workspace_id, endpoint_id, lock=True)
        await database.fetch("UPDATE webhook_endpoint SET removed_at = $3 WHERE workspace_id = $1 AND id = $2", workspace_id, endpoint_id, caller.at)
        await database.fetch("UPDATE alert_rule SET endpoint_id = NULL WHERE workspace_id = $1 AND endpoint_id = $2", workspace_id, endpoint_id)
        await database.fetch(
            """
            UPDATE webhook_delivery SET status = 'failed', failure_code = 'endpoint_deleted', failure = 'The endpoint was deleted.', next_try_at = NULL
             WHERE workspace_id = $1 AND endpoint_id = $2 AND status = 'pending'
            """,
            workspace_id,
            endpoint_id,
        )
        await audit.note(caller.actor, "webhookEndpoint.delete", ("WebhookEndpoint", endpoint_id), None, workspace_id=workspace_id, at=caller.at)
    return endpoint_id


async def deliveries(caller: Caller, endpoint_id: UUID, page: Page, statuses: Sequence[WebhookDeliveryStatus] | None) -> PageOf[DeliveryView]:
    """Return a page of what was sent to an endpoint, newest first."""
    workspace_id = caller.require(Scope.ALERTS_READ)
    keyset = newest_first(page, offset=3)
    rows = await database.fetch(
        f"""
        SELECT {_DELIVERY} FROM webhook_delivery
         WHERE workspace_id = $1 AND endpoint_id = $2 AND ($3::text[] IS NULL OR status = ANY ($3)) {keyset.where} {keyset.order}
        """,
        workspace_id,
        endpoint_id,
        None if statuses is None else [status.value for status in statuses],
        *keyset.arguments,
    )
    return cut([_delivery(row) for row in rows], page)


async def count_deliveries(caller: Caller, endpoint_id: UUID, statuses: Sequence[WebhookDeliveryStatus] | None) -> int:
    """Return how many deliveries an endpoint has in these statuses."""
    return int(
        await database.fetch_value(
            "SELECT count(*) FROM webhook_delivery WHERE workspace_id = $1 AND endpoint_id = $2 AND ($3::text[] IS NULL OR status = ANY ($3))",
            caller.require(Scope.ALERTS_READ),
            endpoint_id,
            None if statuses is None else [status.value for status in statuses],
        )
    )


async def find_delivery(caller: Caller, delivery_id: UUID) -> DeliveryView:
    """Return one delivery; raises NotFound for another workspace's too."""
    row = await database.fetch_row(
        f"SELECT {_DELIVERY} FROM webhook_delivery WHERE workspace_id = $1 AND id = $2", caller.require(Scope.ALERTS_READ), delivery_id
    )
    if row is None:
        raise NotFound("webhook delivery", path=("id",))
    return _delivery(row)


async def replay(caller: Caller, delivery_id: UUID) -> DeliveryView:
    """Send a delivery again as a new one, under the same event id.

    Raises NotFound, and InvalidState when its endpoint is gone or switched off.
    """
    workspace_id = caller.require(Scope.ALERTS_WRITE, Scope.ALERTS_READ)
    old = await find_delivery(caller, delivery_id)
    async with database.transaction():
        endpoint = await database.fetch_row(
            "SELECT enabled FROM webhook_endpoint WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL FOR KEY SHARE", workspace_id, old.endpoint_id
        )
        if endpoint is None or not endpoint["enabled"]:
            state = "deleted" if endpoint is None else "disabled"
            raise InvalidState(f"The delivery's endpoint is {state}.", state=state, path=("id",))
        new = await _owe(workspace_id, old.endpoint_id, old.event, old.event_id, msgspec.json.encode(old.payload).decode(), at=caller.at)
        await audit.note(caller.actor, "webhookDelivery.replay", ("WebhookDelivery", new), None, workspace_id=workspace_id, at=caller.at)
    return await find_delivery(caller, new)


async def tell(workspace_id: UUID, event: str, data: Mapping[str, Any], *, at: datetime, endpoint_id: UUID | None = None) -> None:
    """Owe an event to the endpoints that chose it, or to one; call it in the transaction of what happened.

    A retry, and every endpoint, sees the same event id.
    """
    assert event in EVENTS
    assert database.transaction_is_open()
    rows = await database.fetch(
        """
        SELECT id FROM webhook_endpoint WHERE workspace_id = $1 AND removed_at IS NULL AND enabled
           AND CASE WHEN $3::uuid IS NULL THEN events IS NULL OR $2 = ANY (events) ELSE id = $3 END ORDER BY id
        """,
        workspace_id,
        event,
        endpoint_id,
    )
    payload = msgspec.json.encode({"type": event, "timestamp": at.isoformat().replace("+00:00", "Z"), "data": data}).decode()
    event_id = f"evt_{uuid7().hex}"
    for row in rows:
        await _owe(workspace_id, row["id"], event, event_id, payload, at=at)


async def _owe(workspace_id: UUID, endpoint_id: UUID, event: str, event_id: str, payload: str, *, at: datetime) -> UUID:
    delivery_id = uuid7()
    await database.fetch(
        """
        INSERT INTO webhook_delivery (workspace_id, id, endpoint_id, event, event_id, payload, status, tries, next_try_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, $7)
        """,
        workspace_id,
        delivery_id,
        endpoint_id,
        event,
        event_id,
        payload,
        at,
    )
    await duties.owe(DELIVERY, {"delivery_id": str(delivery_id)}, workspace_id=workspace_id, at=at)
    return delivery_id


async def message(workspace_id: UUID, delivery_id: UUID, *, installation_secret: str, at: datetime) -> Message | None:
    """Return what a pending delivery sends now, signed now; None when there is nothing left to send.

    A delivery whose endpoint was switched off meanwhile is given up.
    """
    row = await database.fetch_row(
        """
        SELECT d.event_id, d.payload, e.id, e.url, e.enabled, e.generation, e.previous_until FROM webhook_delivery d
          JOIN webhook_endpoint e ON e.workspace_id = d.workspace_id AND e.id = d.endpoint_id
         WHERE d.workspace_id = $1 AND d.id = $2 AND d.status = 'pending'
        """,
        workspace_id,
        delivery_id,
    )
    if row is None:
        return None
    if not row["enabled"]:
        await database.fetch(
            """
            UPDATE webhook_delivery SET status = 'failed', failure_code = 'endpoint_disabled', failure = 'The endpoint was switched off.', next_try_at = NULL
             WHERE workspace_id = $1 AND id = $2 AND status = 'pending'
            """,
            workspace_id,
            delivery_id,
        )
        return None
    generations = [row["generation"]]
    if row["previous_until"] is not None and row["previous_until"] > at:
        generations.append(row["generation"] - 1)
    body = msgspec.json.encode(msgspec.json.decode(row["payload"]))
    signatures = [signature(signing_secret(installation_secret, row["id"], each), row["event_id"], at, body) for each in generations]
    headers = {
        "content-type": "application/json",
        "webhook-id": row["event_id"],
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
    return Message(row["url"], headers, body)


async def note(duty: Duty, delivery_id: UUID, taken: Taken, *, at: datetime) -> None:
    """Keep what came of a try, in one transaction with its duty: done, put back with a growing delay, or given up."""
    async with database.transaction():
        row = await database.fetch_row(
            "SELECT tries FROM webhook_delivery WHERE workspace_id = $1 AND id = $2 AND status = 'pending' FOR NO KEY UPDATE", duty.workspace_id, delivery_id
        )
        if row is None:
            await duties.done(duty)
            return
        delivered = taken.failure_code is None
        last = row["tries"] >= len(RETRY_SECONDS)
        delay = None if delivered or last else RETRY_SECONDS[row["tries"]]
        kept = await duties.done(duty) if delay is None else await duties.again(duty, delay, taken.failure_code or "")
        if not kept:
            return
        await database.fetch(
            """
            UPDATE webhook_delivery SET status = $3, tries = tries + 1, http_status = $4, failure_code = $5, failure = $6, next_try_at = $7, delivered_at = $8
             WHERE workspace_id = $1 AND id = $2
            """,
            duty.workspace_id,
            delivery_id,
            (WebhookDeliveryStatus.DELIVERED if delivered else WebhookDeliveryStatus.FAILED if delay is None else WebhookDeliveryStatus.PENDING).value,
            taken.http_status,
            taken.failure_code,
            taken.failure[:300] if taken.failure else None,
            None if delay is None else at + timedelta(seconds=delay),
            at if delivered else None,
        )
