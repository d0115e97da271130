"""Deploying over REST: files or an archive in one request, answered once they are served; and the addresses that single files are sent to."""

import asyncio
import contextlib
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic.json_schema import SkipJsonSchema
from starlette.types import Receive

from domain.apps import archives, deployments, registry, sites, uploads
from domain.apps.archives import Unpacked
from domain.apps.deployments import DeploymentView, NewFile, Upload
from domain.errors import InvalidInput, InvalidState, NotFound, QuotaReached, Unavailable
from models.enums import JobStatus, Scope
from rest.bodies import ClientGone, TooSlow
from rest.callers import header
from rest.doors import Ask, Document, Operation, Reply
from rest.fields import LEFT_OUT, CamelTold, Nothing
from rest.multipart import Parts
from rest.shapes import PLAIN, PlainError
from runtime import Runtime

LARGEST_BYTES = archives.LARGEST_TOTAL_BYTES
IDLE_SECONDS = 60.0
WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.05
AT_ONCE = 16
"""How many files are on their way to the store at any one time."""
ARCHIVE_NAME = re.compile(r".*\.(zip|tar\.gz|tgz)", re.IGNORECASE | re.DOTALL)
MISSING = "The request is missing its upload assets payload: send files as multipart/form-data, or one .zip or .tar.gz."


class TooLarge(InvalidInput):
    """The upload is over LARGEST_BYTES."""

    code = "too_large"
    status = 413

    def __init__(self) -> None:
        super().__init__(f"An upload has at most {LARGEST_BYTES // 1024**2} MiB.")


class Deployed(CamelTold):
    """A deployment: its status, where it is served once it has succeeded, and how much it is."""

    deployment_id: UUID
    status: JobStatus
    url: str | None
    files: int
    bytes: int
    version: int
    version_url: str | SkipJsonSchema[None] = LEFT_OUT
    error: str | SkipJsonSchema[None] = LEFT_OUT


def _told(runtime: Runtime, found: DeploymentView) -> Deployed:
    succeeded = found.status is JobStatus.SUCCEEDED
    return Deployed(
        deployment_id=found.id,
        status=found.status,
        url=runtime.addresses.url(found.slug) if succeeded else None,
        files=found.file_count,
        bytes=found.total_bytes,
        version=found.version,
        version_url=runtime.addresses.url(found.slug, found.version) if succeeded else None,
        error=found.failure.message if found.failure else None,
    )


async def _deploy(ask: Ask[Nothing]) -> Deployed | Reply:
    app = await registry.named(ask.caller, ask.path["appId"], Scope.APPS_WRITE)
    assert ask.receive is not None
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="tallygate-deploy-")
    try:
        root = Path(folder.name)
        given, message = await _received(ask, root)
        files = [NewFile(each.path, each.bytes, each.sha256) for each in given]
        begun, missing = await deployments.create(ask.caller, app.id, files, message, header(ask.headers, b"idempotency-key"))
        await _send(ask.runtime, missing, {each.sha256: root / str(each.number) for each in given})
    except OSError:
        raise Unavailable("The gateway has no room for this upload right now; nothing was changed.", retry_after_seconds=30) from None
    finally:
        await asyncio.to_thread(folder.cleanup)
    try:
        found = await deployments.finalize(ask.caller, begun.id, ask.runtime.store)
    except (InvalidState, QuotaReached):
        if begun.status is JobStatus.AWAITING_UPLOAD:  # another version is on its way: this one is given up, so that nothing waits for it
            with contextlib.suppress(InvalidState):
                await deployments.cancel(ask.caller, begun.id)
        raise
    at_once = "respond-async" in (header(ask.headers, b"prefer") or "").lower()
    if not at_once:
        found = await _finished(ask, found)
    if found.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        _refuse(found)
    told = _told(ask.runtime, found)
    if found.status is JobStatus.SUCCEEDED:
        return told
    place = f"/v1/apps/{app.slug}/deployments/{found.id}".encode()
    return Reply(202, told.model_dump_json(by_alias=True).encode(), fields=((b"location", place), (b"preference-applied", b"respond-async")))


def _refuse(found: DeploymentView) -> None:
    failure = found.failure
    if failure is not None and failure.retryable:
        raise Unavailable(failure.message, retry_after_seconds=10)
    if failure is not None:
        raise InvalidInput(failure.message)
    raise InvalidState("The deployment was cancelled.", state=found.status.value)


async def _finished(ask: Ask[Nothing], found: DeploymentView) -> DeploymentView:
    """Wait until a deployment is final, for WAIT_SECONDS at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_SECONDS):
            while found.status not in deployments.FINAL:
                await asyncio.sleep(LOOK_SECONDS)
                found = await deployments.find(ask.caller, found.id)
                if found.status is JobStatus.SUCCEEDED:
                    await asyncio.sleep(sites.FRESH_SECONDS)  # then every process shows it
    return found


async def _received(ask: Ask[Nothing], root: Path) -> tuple[list[Unpacked], str | None]:
    """Take the body in; return its files, which lie under their numbers in `root`, and the message that came with them."""
    content_type = header(ask.headers, b"content-type") or ""
    length = header(ask.headers, b"content-length")
    if length is not None and length.isdigit() and int(length) > LARGEST_BYTES:
        raise TooLarge
    body = _body(ask)
    if not content_type.lower().startswith("multipart/"):
        whole = root / "upload"
        if not await _write(whole, body):
            raise InvalidInput(MISSING)
        return await ask.runtime.unpacker.unpack(whole, root), None
    parts = Parts(content_type, root)
    try:
        async for chunk in body:
            await asyncio.to_thread(parts.write, chunk)
        parts.finish()
    finally:
        parts.close()
    message = parts.texts.get("message") or None
    if not parts.files:
        raise InvalidInput(MISSING)
    if len(parts.files) == 1 and ARCHIVE_NAME.fullmatch(parts.files[0].name):
        return await ask.runtime.unpacker.unpack(parts.files[0].path, root), message
    return await asyncio.to_thread(_taken, parts, root), message


def _taken(parts: Parts, root: Path) -> list[Unpacked]:
    """Return the single files of a body, by the same rules as those of an archive."""
    names, taken = archives.Names(), []
    for number, part in enumerate(parts.files):
        try:
            path = names.add(part.name)
        except archives.Refused as refusal:
            raise InvalidInput(str(refusal), path=("files", str(number))) from None
        with part.path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        taken.append(Unpacked(number, path, part.path.stat().st_size, digest))
        part.path.rename(root / str(number))
    return taken


async def _body(ask: Ask[Nothing]) -> AsyncIterator[bytes]:
    """Give the body piece by piece; raises TooLarge, TooSlow when nothing comes for IDLE_SECONDS, and ClientGone."""
    assert ask.receive is not None
    seen = 0
    async for chunk in _pieces(ask.receive):
        seen += len(chunk)
        if seen > LARGEST_BYTES:
            raise TooLarge
        yield chunk


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                message = await receive()
        except TimeoutError:
            raise TooSlow from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


async def _write(path: Path, body: AsyncIterator[bytes]) -> int:
    size = 0
    target = await asyncio.to_thread(path.open, "wb")
    try:
        async for chunk in body:
            size += await asyncio.to_thread(target.write, chunk)
    finally:
        await asyncio.to_thread(target.close)
    return size


async def _send(runtime: Runtime, missing: list[Upload], places: dict[str, Path]) -> None:
    """Bring content to the store, several files at once."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def send(upload: Upload) -> None:
        async with turn:
            await runtime.store.put(upload.key, await asyncio.to_thread(places[upload.sha256].read_bytes))

    ended = await asyncio.gather(*map(send, missing), return_exceptions=True)
    for error in ended:
        if error is not None:
            raise error


async def _show(ask: Ask[Nothing]) -> Deployed:
    app = await registry.named(ask.caller, ask.path["appId"])
    try:
        found = await deployments.find(ask.caller, UUID(ask.path["deploymentId"]))
    except ValueError:
        raise NotFound("deployment") from None
    if found.app_id != app.id:
        raise NotFound("deployment")
    return _told(ask.runtime, found)


async def _upload(ask: Ask[Nothing]) -> None:
    assert ask.receive is not None
    secret = ask.runtime.settings.secret.get_secret_value()
    ticket = uploads.read(secret, ask.path["token"], ask.runtime.clock())
    length = header(ask.headers, b"content-length")
    if length is not None and length.isdigit() and int(length) != ticket.bytes:
        raise InvalidInput(f"This address takes {ticket.bytes} bytes.")
    await uploads.receive(ticket, _pieces(ask.receive), ask.runtime.store)


TAKEN = ("multipart/form-data", "application/zip", "application/gzip")
OPERATIONS: tuple[Operation[Any], ...] = (
    Operation(
        "POST",
        "/v1/apps/{appId}/deploy",
        "Deploy files, or one archive of them; answered once they are served.",
        Nothing,
        Deployed,
        _deploy,
        refusals=(400, 404, 409, 413, 429),
        takes=TAKEN,
    ),
    Operation("GET", "/v1/apps/{appId}/deployments/{deploymentId}", "A deployment, and how far it is.", Nothing, Deployed, _show, refusals=(404,)),
)
"""A part of document 0."""
UPLOADS = Document(
    name="Uploads",
    shape=lambda headers: PLAIN,
    errors=PlainError,
    public=True,
    operations=(
        Operation(
            "PUT",
            uploads.PATH + "{token}",
            "Send a file to an address that `deploymentCreate` gave; the address is the credential.",
            Nothing,
            None,
            _upload,
            status=204,
            refusals=(400, 403, 409),
            takes=("application/octet-stream",),
        ),
    ),
)
