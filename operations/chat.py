"""The chat of a first run: the example app, registered once, and deployed again when its files have changed."""

import hashlib
import json
from pathlib import Path
from uuid import UUID

from domain import duties
from domain.access.callers import Caller
from domain.apps import deployments, publishing, registry
from domain.apps.deployments import NewFile
from domain.apps.registry import AppChanges, NewApp
from domain.errors import Taken
from models import database
from models.enums import JobStatus
from runtime import Runtime

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "chat"
SLUG = "chat"


async def deploy(runtime: Runtime, owner: Caller) -> str | None:
    """Return where the chat is served; None when its owner has deleted it, or somebody else has its name.

    Every step may have been made by a run that stopped half-way. What the owner says of it in the manifest stays.
    """
    app_id = await database.fetch_value("SELECT app_id FROM app_name WHERE slug = $1 AND workspace_id = $2", SLUG, owner.workspace())
    if app_id is None:
        if await database.fetch_value("SELECT EXISTS (SELECT FROM app_name WHERE slug = $1)", SLUG):
            return None
        try:
            app_id = (await registry.create(owner, NewApp(SLUG, "Chat", "The example chat of a first run."))).id
        except Taken:  # another run made it a moment ago
            return runtime.addresses.url(SLUG)
    app = await registry.find(owner, app_id)
    if app.live_deployment_id is None and app.manifest == {}:
        await registry.update(owner, app_id, AppChanges(manifest=json.loads((EXAMPLE / "manifest.json").read_text())))
    await _publish(runtime, owner, app_id)
    return runtime.addresses.url(SLUG)


async def _publish(runtime: Runtime, owner: Caller, app_id: UUID) -> None:
    site = EXAMPLE / "site"
    contents = {path.relative_to(site).as_posix(): path.read_bytes() for path in sorted(site.rglob("*")) if path.is_file()}
    files = [NewFile(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()]
    begun, missing = await deployments.create(owner, app_id, files, "example")
    if begun.status is not JobStatus.AWAITING_UPLOAD:
        return
    for upload in missing:
        await runtime.store.put(upload.key, contents[upload.path])
    await deployments.finalize(owner, begun.id, runtime.store)
    job_id = await database.fetch_value("SELECT job_id FROM deployment WHERE workspace_id = $1 AND id = $2", owner.workspace(), begun.id)
    duty = await duties.claim(job_id)
    if duty is not None:  # else a worker has it already
        await publishing.publish(duty, runtime.store, runtime.compressor)
