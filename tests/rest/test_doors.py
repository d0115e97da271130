"""What a door makes of the unexpected: a bug, a database that is away, a client that leaves."""

import json
from typing import Any, cast

import asyncpg
import pytest
from starlette.types import Message, Scope
from structlog.testing import capture_logs

from rest.doors import Ask, Document, Door, Operation
from rest.fields import Asked, Nothing
from rest.shapes import PLAIN, PlainError
from runtime import Runtime

pytestmark = pytest.mark.anyio

SECRET = "the detail of a bug"


class Body(Asked):
    """A body with a text."""

    text: str


def door(error: BaseException) -> Door:
    """Return a public door whose operations raise; such a one asks nothing of the runtime."""

    async def raises(ask: Ask[Any]) -> None:
        raise error

    operations = (Operation("GET", "/x", "Raises.", Nothing, None, raises), Operation("POST", "/x", "Raises.", Body, None, raises))
    document = Document("Tests", lambda headers: PLAIN, PlainError, operations, public=True)
    return document.doors(cast(Runtime, None))["/x"]


async def answer(asked: Door, method: str = "GET", *received: Message) -> list[Message]:
    """Return what a door sends to a client that sends these messages."""
    coming, sent = list(received), []
    scope: Scope = {"type": "http", "method": method, "path": "/x", "query_string": b"", "headers": [], "path_params": {}, "state": {"request_id": "r-1"}}

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await asked(scope, receive, send)
    return sent


async def test_a_bug_is_told_without_detail_and_logged_with_its_id() -> None:
    """500 with a sentence; the log has the request's id, which the client has too."""
    with capture_logs() as logged:
        start, body = await answer(door(ZeroDivisionError(SECRET)))
    assert start["status"] == 500
    assert dict(start["headers"])[b"x-request-id"] == b"r-1"
    assert json.loads(body["body"]) == {"error": "The gateway failed. Its operator finds this request's id in the log."}
    assert [(line["event"], line["request"], line["error"], line["log_level"]) for line in logged] == [("request failed", "r-1", "ZeroDivisionError", "error")]


AWAY = [ConnectionRefusedError(), asyncpg.CannotConnectNowError(), asyncpg.InterfaceError("closed"), TimeoutError(), asyncpg.DeadlockDetectedError()]


@pytest.mark.parametrize("error", AWAY)
async def test_a_database_that_is_away_is_no_bug(error: Exception) -> None:
    """503 with a moment to come back at."""
    with capture_logs() as logged:
        start, _ = await answer(door(error))
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"2")
    assert [line["log_level"] for line in logged] == ["warning"]


async def test_a_client_that_leaves_is_answered_nothing() -> None:
    """It has closed in the middle of its body: nothing is done, nothing is sent, nothing is logged."""
    with capture_logs() as logged:
        sent = await answer(door(AssertionError("not reached")), "POST", {"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"})
    assert (sent, logged) == ([], [])


async def test_a_field_that_is_missing() -> None:
    """The field at fault is named."""
    start, body = await answer(door(AssertionError("not reached")), "POST", {"type": "http.request", "body": b"{}"})
    assert (start["status"], json.loads(body["body"])) == (400, {"error": "text: Field required"})
