"""Webhooks that leave: signed, tried until taken or given up, never to a private address, never twice under different ids."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from clients.webhooks import Webhooks
from domain import webhooks
from domain.errors import InvalidInput, InvalidState, NotFound, OutOfRange, Refusal
from domain.pages import Page
from domain.webhooks import DeliveryView, EndpointChanges, EndpointView, Message, Taken
from models import database
from models.enums import Scope, WebhookDeliveryStatus
from tests.conftest import SECRET
from tests.support.calling import until
from tests.support.gateway import Gateway
from tests.support.receiver import Received, Receiver, receiving
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

DATA = {"value": 5}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on the loopback."""
    async with receiving() as started:
        yield started


def writer(of: Tenant) -> Any:
    """The owner, who may change webhooks."""
    return of.caller(Scope.ALERTS_READ, Scope.ALERTS_WRITE)


async def endpoint(of: Tenant, url: str, events: list[str] | None = None) -> tuple[EndpointView, str]:
    """Make an endpoint; return it and its secret."""
    return await webhooks.create(writer(of), url, events, installation_secret=SECRET, private_allowed=True)


async def tell(of: Tenant) -> None:
    """Let an event happen."""
    async with database.transaction():
        await webhooks.tell(of.workspace_id, webhooks.ALERT_FIRED, DATA, at=datetime.now(UTC))


async def sent(of: Tenant, to: EndpointView) -> list[DeliveryView]:
    """Everything that was sent to an endpoint, newest first."""
    return (await webhooks.deliveries(writer(of), to.id, Page(100), None)).items


async def in_status(of: Tenant, to: EndpointView, status: WebhookDeliveryStatus, tries: int) -> DeliveryView:
    """Wait until the newest delivery of an endpoint has a status and a number of tries."""

    async def look() -> list[DeliveryView]:
        return [each for each in (await sent(of, to))[:1] if (each.status, each.tries) == (status, tries)]

    return (await until(look, f"a delivery {status.value} after {tries} tries"))[0]


async def hurry(delivery: DeliveryView) -> None:
    """Let the next try of a delivery be due now."""
    await database.fetch("UPDATE job SET next_at = clock_timestamp() WHERE payload ->> 'delivery_id' = $1", str(delivery.id))


def verify(received: Received, secret: str) -> bool:
    """Check a message as https://www.standardwebhooks.com tells a receiver to, with nothing of ours."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return wanted in received.headers["webhook-signature"].split(" ")


async def test_an_event_arrives_once_signed_and_whole(gateway: Gateway, receiver: Receiver) -> None:
    """An endpoint gets the event as JSON with type, timestamp and data, signed with the secret that was shown once; the delivery says so."""
    mine = await tenant()
    to, secret = await endpoint(mine, receiver.url)
    await tell(mine)
    delivery = await in_status(mine, to, WebhookDeliveryStatus.DELIVERED, 1)
    (received,) = receiver.received
    assert verify(received, secret)
    assert not verify(replace(received, body=received.body + b" "), secret)
    body = json.loads(received.body)
    assert (body["type"], body["data"], set(body)) == ("alert.fired", DATA, {"type", "timestamp", "data"})
    assert received.headers["webhook-id"] == delivery.event_id
    assert received.headers["content-type"] == "application/json"
    assert (delivery.http_status, delivery.failure_code, delivery.next_try_at) == (204, None, None)
    assert delivery.delivered_at is not None


async def test_only_endpoints_that_chose_an_event_and_are_on_get_it(gateway: Gateway, receiver: Receiver) -> None:
    """An endpoint that is off gets nothing, and another workspace's neither; two that are on get the same event id."""
    mine, other = await tenant(), await tenant()
    first, _ = await endpoint(mine, receiver.url)
    second, _ = await endpoint(mine, f"{receiver.url}?second", ["alert.fired"])
    off, _ = await endpoint(mine, f"{receiver.url}?off")
    foreign, _ = await endpoint(other, f"{receiver.url}?foreign")
    await webhooks.update(writer(mine), off.id, EndpointChanges(enabled=False), private_allowed=True)
    await tell(mine)
    ids = {(await in_status(mine, each, WebhookDeliveryStatus.DELIVERED, 1)).event_id for each in (first, second)}
    assert len(ids) == 1
    assert await sent(mine, off) == []
    assert await sent(other, foreign) == []
    assert sorted(each.path for each in receiver.received) == ["/hook", "/hook?second"]


async def test_a_failed_try_is_tried_again_later_under_the_same_id(gateway: Gateway, receiver: Receiver) -> None:
    """A receiver that answers 500 hears of the event again five seconds later, and a redirect is a failure too, never followed."""
    mine = await tenant()
    receiver.statuses = [500, 302]
    to, secret = await endpoint(mine, receiver.url)
    await tell(mine)
    failed = await in_status(mine, to, WebhookDeliveryStatus.PENDING, 1)
    assert (failed.http_status, failed.failure_code, failed.failure) == (500, "http_status", "The receiver answered 500.")
    assert failed.next_try_at is not None
    await hurry(failed)
    redirected = await in_status(mine, to, WebhookDeliveryStatus.PENDING, 2)
    assert (redirected.http_status, len(receiver.received)) == (302, 2)
    await hurry(failed)
    delivered = await in_status(mine, to, WebhookDeliveryStatus.DELIVERED, 3)
    assert (delivered.http_status, delivered.failure_code) == (204, None)
    assert {each.headers["webhook-id"] for each in receiver.received} == {delivered.event_id}
    assert all(verify(each, secret) for each in receiver.received)


async def test_a_delivery_is_given_up_after_the_last_try(gateway: Gateway, receiver: Receiver) -> None:
    """After ten tries the delivery has failed, visibly, and is not tried again."""
    mine = await tenant()
    receiver.statuses = [503] * 20
    to, _ = await endpoint(mine, receiver.url)
    await tell(mine)
    first = await in_status(mine, to, WebhookDeliveryStatus.PENDING, 1)
    await database.fetch("UPDATE webhook_delivery SET tries = $2 WHERE id = $1", first.id, len(webhooks.RETRY_SECONDS))
    await hurry(first)
    given_up = await in_status(mine, to, WebhookDeliveryStatus.FAILED, len(webhooks.RETRY_SECONDS) + 1)
    assert (given_up.http_status, given_up.next_try_at) == (503, None)
    assert await database.fetch_value("SELECT status FROM job WHERE payload ->> 'delivery_id' = $1", str(first.id)) == "succeeded"


async def test_a_worker_that_died_after_the_answer_sends_again_under_the_same_id(gateway: Gateway, receiver: Receiver) -> None:
    """Sending and noting are two steps: what dies between them repeats the message, so the id is the same for a receiver to drop it."""
    mine = await tenant()
    to, secret = await endpoint(mine, receiver.url)
    await tell(mine)
    delivery = await in_status(mine, to, WebhookDeliveryStatus.DELIVERED, 1)
    await database.fetch("UPDATE webhook_delivery SET status = 'pending', tries = 0, delivered_at = NULL WHERE id = $1", delivery.id)  # as if the mark were lost
    await database.fetch(
        "UPDATE job SET status = 'running', finished_at = NULL, leased_until = clock_timestamp(), next_at = clock_timestamp() WHERE payload ->> 'delivery_id' = $1",
        str(delivery.id),
    )
    await in_status(mine, to, WebhookDeliveryStatus.DELIVERED, 1)
    assert [each.headers["webhook-id"] for each in receiver.received] == [delivery.event_id] * 2
    assert all(verify(each, secret) for each in receiver.received)


async def test_both_secrets_sign_until_the_grace_period_ends(gateway: Gateway, receiver: Receiver) -> None:
    """After a rotation a message carries both signatures; without grace only the new secret's."""
    mine = await tenant()
    to, old = await endpoint(mine, receiver.url)
    _, new = await webhooks.rotate(writer(mine), to.id, 3600, installation_secret=SECRET)
    assert new != old
    await tell(mine)
    await in_status(mine, to, WebhookDeliveryStatus.DELIVERED, 1)
    assert (verify(receiver.received[0], old), verify(receiver.received[0], new)) == (True, True)
    _, newest = await webhooks.rotate(writer(mine), to.id, 0, installation_secret=SECRET)
    await tell(mine)

    async def second() -> bool:
        return len(receiver.received) == 2

    await until(second, "the second message")
    assert [verify(receiver.received[1], each) for each in (old, new, newest)] == [False, False, True]


async def test_a_delivery_is_replayed_as_a_new_one_with_the_old_id(gateway: Gateway, receiver: Receiver) -> None:
    """A replay is a delivery of its own, and the receiver can tell that it has seen the event; it is refused when the endpoint is off or gone."""
    mine, other = await tenant(), await tenant()
    to, _ = await endpoint(mine, receiver.url)
    await tell(mine)
    first = await in_status(mine, to, WebhookDeliveryStatus.DELIVERED, 1)
    again = await webhooks.replay(writer(mine), first.id)
    assert (again.event_id, again.payload, again.id == first.id) == (first.event_id, first.payload, False)

    async def both() -> bool:
        return [each.status for each in await sent(mine, to)] == [WebhookDeliveryStatus.DELIVERED] * 2

    await until(both, "both deliveries")
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 1
    with pytest.raises(NotFound):
        await webhooks.replay(writer(other), first.id)
    await webhooks.update(writer(mine), to.id, EndpointChanges(enabled=False), private_allowed=True)
    with pytest.raises(InvalidState):
        await webhooks.replay(writer(mine), first.id)
    await webhooks.remove(writer(mine), to.id)
    with pytest.raises(InvalidState):
        await webhooks.replay(writer(mine), first.id)
    assert len(await sent(mine, to)) == 2


async def test_what_waits_for_a_deleted_endpoint_is_dropped(gateway: Gateway, receiver: Receiver) -> None:
    """A pending delivery fails with the reason when its endpoint is deleted, and nothing is sent any more."""
    mine = await tenant()
    receiver.statuses = [500]
    to, _ = await endpoint(mine, receiver.url)
    await tell(mine)
    waiting = await in_status(mine, to, WebhookDeliveryStatus.PENDING, 1)
    await webhooks.remove(writer(mine), to.id)
    (dropped,) = await sent(mine, to)
    assert (dropped.status, dropped.failure_code, dropped.next_try_at) == (WebhookDeliveryStatus.FAILED, "endpoint_deleted", None)
    await hurry(waiting)

    async def done() -> bool:
        return bool(await database.fetch_value("SELECT status FROM job WHERE payload ->> 'delivery_id' = $1", str(waiting.id)) == "succeeded")

    await until(done, "the duty's end")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/", "https://10.1.2.3/", "https://[::1]/", "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/", "https://100.64.0.1/"],
)
async def test_nothing_is_sent_to_a_private_address(books: object, url: str) -> None:
    """A literal private address is refused without a connection: loopback, private, link-local with the clouds' metadata, carrier-grade NAT."""
    assert await Webhooks(private_allowed=False).send(Message(url, {}, b"{}")) == Taken(None, "private_address", "The address is not public.")


async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to(books: object, receiver: Receiver) -> None:
    """The connection is made to what was resolved and looked at: `localhost` names this machine, and nothing arrives."""
    taken = await Webhooks(private_allowed=False).send(Message(receiver.url.replace("127.0.0.1", "localhost"), {}, b"{}"))
    assert taken == Taken(None, "private_address", "The address is not public.")
    assert receiver.received == []


async def test_a_receiver_that_is_away_is_a_failure_and_no_error(books: object) -> None:
    """A refused connection and a name that does not exist are told as what they are."""
    away = await Webhooks(private_allowed=True).send(Message("http://127.0.0.1:9/", {}, b"{}"))
    assert (away.http_status, away.failure_code) == (None, "unreachable")
    unknown = await Webhooks(private_allowed=True).send(Message("http://nothing.invalid/", {}, b"{}"))
    assert (unknown.http_status, unknown.failure_code) == (None, "unresolved")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/hook", "The address must be HTTPS."),
        ("ftp://example.com/hook", "The address must be HTTPS."),
        ("https://10.0.0.1/hook", "The address must be public."),
        ("https://localhost/hook", "The address must be public."),
        ("https://db.internal/hook", "The address must be public."),
        ("https://me:secret@example.com/", "This is no address of a web server."),
        ("https:///hook", "This is no address of a web server."),
        ("https://example.com:99999/", "This is no address of a web server."),
        ("https://example.com/a b", "This is no address of a web server."),
        ("https://example.com/" + "a" * 2000, "This is no address of a web server."),
        ("no address", "This is no address of a web server."),
    ],
)
async def test_an_address_that_is_not_public_https_is_refused(books: object, url: str, message: str) -> None:
    """A bad address is refused with its reason and path, and no endpoint is made."""
    mine = await tenant()
    with pytest.raises(InvalidInput) as refused:
        await webhooks.create(writer(mine), url, None, installation_secret=SECRET, private_allowed=False)
    assert (refused.value.message, refused.value.path) == (message, ("url",))
    assert await webhooks.every(writer(mine)) == []


async def test_bad_events_too_many_endpoints_and_strangers_are_refused(books: object) -> None:
    """An unknown event, an empty list, a twenty-first endpoint, a grace beyond a week, another workspace's endpoint: refused, nothing changed."""
    mine, other = await tenant(), await tenant()
    for events in (["alert.unknown"], []):
        with pytest.raises(InvalidInput):
            await endpoint(mine, "https://example.com/hook", events)
    made = [await endpoint(mine, f"https://example.com/{number}") for number in range(webhooks.MOST_ENDPOINTS)]
    with pytest.raises(OutOfRange):
        await endpoint(mine, "https://example.com/more")
    first = made[0][0]
    with pytest.raises(OutOfRange):
        await webhooks.rotate(writer(mine), first.id, 604_801, installation_secret=SECRET)
    refusals: list[type[Refusal]] = []
    for attempt in (
        webhooks.update(writer(other), first.id, EndpointChanges(enabled=False), private_allowed=True),
        webhooks.rotate(writer(other), first.id, 0, installation_secret=SECRET),
        webhooks.remove(writer(other), first.id),
    ):
        try:
            await attempt
        except Refusal as refusal:
            refusals.append(type(refusal))
    assert refusals == [NotFound] * 3
    assert await webhooks.find(writer(mine), first.id) == first
    assert len(await webhooks.every(writer(mine))) == webhooks.MOST_ENDPOINTS


async def test_no_table_holds_a_signing_secret(books: object) -> None:
    """The secret is derived from the installation's: no row of the endpoint has it, in whole or in part."""
    mine = await tenant()
    made, secret = await endpoint(mine, "https://example.com/hook")
    row: asyncpg.Record | None = await database.fetch_row("SELECT * FROM webhook_endpoint WHERE id = $1", UUID(str(made.id)))
    assert row is not None
    assert secret.removeprefix("whsec_")[:8] not in str(dict(row))
