"""The one table of documented paths."""

from typing import Any

import msgspec
from starlette.routing import BaseRoute

from rest import aaas, health, models, openapi, tenant
from rest.doors import Ask, Document, Operation, Reply
from rest.fields import Nothing
from rest.shapes import PLAIN, PlainError
from runtime import Runtime

PUBLISHED = (aaas.DOCUMENT, tenant.DOCUMENT, models.DOCUMENT)
"""What needs a caller."""


def routes(runtime: Runtime) -> list[BaseRoute]:
    """Return a route for every documented path, for health, and for the description of them all."""
    described = (*PUBLISHED, health.document(runtime))
    description = msgspec.json.encode(openapi.describe(described, runtime.settings.public_url))

    async def describe(ask: Ask[Nothing]) -> Reply:
        return Reply(200, description)

    itself = Document(
        name="Description",
        shape=lambda headers: PLAIN,
        errors=PlainError,
        public=True,
        operations=(Operation("GET", "/openapi.json", "This description, in OpenAPI 3.1.", Nothing, dict[str, Any], describe),),
    )
    return [route for document in (*described, itself) for route in document.routes(runtime)]
