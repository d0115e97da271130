"""Exports: asked for, listed, found."""

from uuid import UUID

from domain.pages import Page, PageOf
from domain.usage import exports
from domain.usage.exports import ExportView, Source
from models.enums import ExportColumns, ExportFormat
from resolvers.asking import Asking


async def create(asking: Asking, source: Source, format: ExportFormat, columns: ExportColumns, idempotency_key: str | None) -> ExportView:
    """Queue an export."""
    return await exports.create(asking.known, source, format, columns, idempotency_key)


async def page(asking: Asking, wanted: Page) -> PageOf[ExportView]:
    """A page of the exports that the caller sees, newest first."""
    return await exports.page(asking.known, wanted)


async def count(asking: Asking) -> int:
    """How many exports the caller sees."""
    return await exports.count(asking.known)


async def find(asking: Asking, export_id: UUID) -> ExportView:
    """One export."""
    return await exports.find(asking.known, export_id)


def link(asking: Asking, export: ExportView) -> str | None:
    """Where the file can be had; None while there is none."""
    lent = asking.facilities
    if export.object is None or export.expires_at is None:
        return None
    signed = exports.signature(lent.signing_secret, export.id, export.expires_at)
    return f"{lent.public_url}/exports/{export.id}/{export.name}?signature={signed}"
