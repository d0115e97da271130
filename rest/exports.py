"""The link to an export's file: signed, whole or in ranges, so that a download that broke off goes on where it was."""

import re
from uuid import UUID

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from domain.errors import Refusal
from domain.usage import exports
from domain.usage.exports import ExportView
from models.enums import ExportFormat
from runtime import Runtime

PATH = "/exports/{export_id}/{name}"
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
TYPES = {
    ExportFormat.CSV: "text/csv; charset=utf-8; header=present",
    ExportFormat.JSON_LINES: "application/jsonl",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
}


def routes(runtime: Runtime) -> list[Route]:
    """Return the route of links; the signature is the only credential."""

    async def download(request: Request) -> Response:
        try:
            export_id = UUID(request.path_params["export_id"])
            secret = runtime.settings.secret.get_secret_value()
            export = await exports.by_link(secret, export_id, request.query_params.get("signature", ""), at=runtime.clock())
        except (Refusal, ValueError):
            return PlainTextResponse("There is no such file: the link is wrong, or its week is over.\n", 404)
        return _part(runtime, export, request)

    return [Route(PATH, download, methods=["GET"])]


def _part(runtime: Runtime, export: ExportView, request: Request) -> Response:
    assert export.object is not None, "a link names a file that is there"
    tag = f'"{export.id}-{export.bytes}"'
    headers = {
        "accept-ranges": "bytes",
        "etag": tag,
        "cache-control": "private, no-store",
        "content-disposition": f'attachment; filename="{export.name}"',
        "x-content-type-options": "nosniff",
    }
    start, end, status = 0, export.bytes, 200
    wanted = RANGE.fullmatch(request.headers.get("range", ""))
    if wanted is not None and wanted.group(0) != "bytes=-" and request.headers.get("if-range", tag) == tag:
        first, last = wanted.groups()
        if first:
            start, end = int(first), min(int(last) + 1, export.bytes) if last else export.bytes
        else:
            start = max(export.bytes - int(last), 0)
        if start >= end:
            return Response(status_code=416, headers={**headers, "content-range": f"bytes */{export.bytes}"})
        status = 206
        headers["content-range"] = f"bytes {start}-{end - 1}/{export.bytes}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=TYPES[export.format])
    return StreamingResponse(runtime.store.stream(export.object, start, end), status, headers, TYPES[export.format])
