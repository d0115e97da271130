"""Addresses that content is sent to when the store itself cannot be reached by clients: ours, signed, for one content of one deployment."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import AsyncIterable, AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

import msgspec

from domain.apps import blobs
from domain.apps.archives import Unpacked
from domain.apps.blobs import Store
from domain.apps.deployments import Upload
from domain.errors import Forbidden, InvalidInput, InvalidState, Unavailable
from models import database

PATH = "/v1/uploads/"
_PURPOSE = b"tallygate upload address 1"


class Unpacker(Protocol):
    """What opens archives of strangers."""

    async def unpack(self, archive: Path, into: Path) -> list[Unpacked]:
        """Write an archive's files into a folder under numbers and say what they are, or raise InvalidInput."""


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What an address allows: this content, of this size, until then."""

    deployment_id: UUID
    sha256: str
    bytes: int
    expires_at: int


def sign(secret: str, deployment_id: UUID, upload: Upload, expires_at: datetime) -> str:
    """Return the last part of an upload's address."""
    written = msgspec.json.encode(Ticket(deployment_id, upload.sha256, upload.bytes, int(expires_at.timestamp())))
    return f"{_text(written)}.{_text(_mark(secret, written))}"


def read(secret: str, token: str, now: datetime) -> Ticket:
    """Return what an address allows; raises Forbidden for one that is not ours or is over."""
    body, _, mark = token.partition(".")
    try:
        written, given = _bytes(body), _bytes(mark)
    except (binascii.Error, ValueError):
        raise Forbidden("This upload address is not one of ours.") from None
    if not hmac.compare_digest(given, _mark(secret, written)):
        raise Forbidden("This upload address is not one of ours.")
    ticket = msgspec.json.decode(written, type=Ticket)
    if ticket.expires_at < now.timestamp():
        raise Forbidden("This upload address works no more: begin the deployment again.")
    return ticket


async def receive(ticket: Ticket, content: AsyncIterable[bytes], store: Store) -> None:
    """Take content in, whole or not at all.

    Raises InvalidInput when it is not what the deployment announced, InvalidState when the deployment waits for nothing any more.
    """
    row = await database.fetch_row("SELECT status FROM deployment WHERE id = $1", ticket.deployment_id)
    if row is None or row["status"] != "awaiting_upload":
        raise InvalidState("This deployment waits for no content.", state=row["status"] if row else "gone")
    fault: list[InvalidInput] = []
    try:
        await store.put(blobs.staging_key(ticket.deployment_id, ticket.sha256), _checked(content, ticket, fault))
    except Exception:
        raise (fault[0] if fault else Unavailable("The store of files is away or full; nothing was changed.", retry_after_seconds=10)) from None


async def _checked(content: AsyncIterable[bytes], ticket: Ticket, fault: list[InvalidInput]) -> AsyncIterator[bytes]:
    """Pass content on; at its end, or as soon as it is too much, raise InvalidInput unless it is what was announced.

    A store written in another language does not hand our exception back, so it is left in `fault` as well.
    """
    digest, seen = hashlib.sha256(), 0
    async for chunk in content:
        seen += len(chunk)
        if seen > ticket.bytes:
            fault.append(InvalidInput(f"More than the {ticket.bytes} bytes that were announced were sent."))
            raise fault[0]
        digest.update(chunk)
        yield chunk
    if seen != ticket.bytes or digest.hexdigest() != ticket.sha256:
        fault.append(InvalidInput("What was sent is not the content that was announced."))
        raise fault[0]


def _mark(secret: str, written: bytes) -> bytes:
    key = hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).digest()
    return hmac.new(key, written, hashlib.sha256).digest()


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
