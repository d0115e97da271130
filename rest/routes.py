"""The one table of documented paths."""

from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route

from rest import aaas, apps, billing, books, deploys, exports, health, metrics, models, openapi, pricing, public_tokens, receipts, records, tenant, workspace
from rest.doors import Ask, Document, Operation, Reply
from rest.fields import Nothing
from rest.metrics import Counted
from rest.shapes import PLAIN, PlainError
from rest.webhooks import StripeWebhook
from runtime import WEBHOOK_PATH, Runtime

PUBLISHED = (aaas.DOCUMENT, workspace.DOCUMENT, billing.DOCUMENT, records.DOCUMENT, tenant.DOCUMENT, models.DOCUMENT, receipts.DOCUMENT, books.DOCUMENT)
"""What needs a caller."""


def routes(runtime: Runtime, presets: tuple[str, ...]) -> list[BaseRoute]:
    """Return a route for every documented path, for health, for the description of them all, and for metrics where a token is set.

    `presets` are the slugs of the tools' roads, by which prices name what a tier opens.
    """
    described = (*PUBLISHED, pricing.document(presets), apps.SCHEMAS, public_tokens.DOCUMENT, deploys.UPLOADS, health.document(runtime))
    description = msgspec.json.encode(openapi.describe(described, runtime.settings.public_url, presets))

    async def describe(ask: Ask[Nothing]) -> Reply:
        return Reply(200, description)

    itself = Document(
        name="Description",
        shape=lambda headers: PLAIN,
        errors=PlainError,
        public=True,
        operations=(Operation("GET", "/openapi.json", "This description, in OpenAPI 3.1.", Nothing, dict[str, Any], describe),),
    )
    shown = metrics.document(runtime)
    documents = (*described, itself) if shown is None else (*described, itself, shown)
    told = Route(WEBHOOK_PATH, Counted(StripeWebhook(runtime), WEBHOOK_PATH))
    doors = [
        Route(path, Counted(public_tokens.Shared(runtime, door) if document is public_tokens.DOCUMENT else door, path))
        for document in documents
        for path, door in document.doors(runtime).items()
    ]
    return [told, *doors, *exports.routes(runtime)]
