"""Document 0's apps: registered, described, given up."""

from datetime import datetime
from typing import Any

import msgspec
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from domain.access.keys import UNSET
from domain.apps import manifest, registry
from domain.apps.registry import AppChanges, AppView, NewApp
from models.enums import Scope
from rest import lists
from rest.doors import Ask, Document, Operation, Reply
from rest.fields import LEFT_OUT, Asked, CamelTold, Nothing
from rest.shapes import PLAIN, PlainError


class AppBody(Asked):
    """An app to register."""

    app_id: str = Field(alias="appId", description="Globally unique: 3 to 50 lower-case letters, digits and single hyphens inside.")
    name: str
    description: str | None = None
    manifest: dict[str, Any] | None = Field(default=None, description="How it is served and what its visitors may do, as PUT takes it.")


class AppChangesBody(Asked):
    """What to change of an app; a description that is null is taken away."""

    name: str | SkipJsonSchema[None] = LEFT_OUT
    description: str | None = None
    manifest: dict[str, Any] | SkipJsonSchema[None] = LEFT_OUT


class ListedApp(CamelTold):
    """An app as the list shows it."""

    app_id: str
    name: str
    created_at: datetime
    updated_at: datetime
    description: str | SkipJsonSchema[None] = LEFT_OUT


class ShownApp(ListedApp):
    """An app with its manifest."""

    manifest: dict[str, Any]


def _listed(app: AppView) -> ListedApp:
    return ListedApp(app_id=app.slug, name=app.name, created_at=app.created_at, updated_at=app.updated_at, description=app.description)


def _shown(app: AppView) -> ShownApp:
    return ShownApp(**_listed(app).model_dump(), manifest=app.manifest)


async def _list_apps(ask: Ask[Nothing]) -> list[ListedApp]:
    apps = await lists.first(lambda page: registry.page(ask.caller, page, registry.Order.CREATED_AT), lambda app: app.id)
    return [_listed(app) for app in apps]


async def _make_app(ask: Ask[AppBody]) -> ShownApp:
    given = ask.given
    return _shown(await registry.create(ask.caller, NewApp(given.app_id, given.name, given.description, ask.idempotency_key, given.manifest)))


async def _show_app(ask: Ask[Nothing]) -> ShownApp:
    return _shown(await registry.named(ask.caller, ask.path["appId"]))


async def _change_app(ask: Ask[AppChangesBody]) -> ShownApp:
    app = await registry.named(ask.caller, ask.path["appId"], Scope.APPS_WRITE)
    asked = {name: getattr(ask.given, name) for name in ask.given.model_fields_set}
    changes = AppChanges(name=asked.get("name", UNSET), description=asked.get("description", UNSET), manifest=asked.get("manifest", UNSET))
    return _shown(await registry.update(ask.caller, app.id, changes))


async def _delete_app(ask: Ask[Nothing]) -> None:
    app = await registry.named(ask.caller, ask.path["appId"], Scope.APPS_WRITE)
    await registry.delete(ask.caller, app.id)


async def _manifest_schema(ask: Ask[Nothing]) -> Reply:
    return Reply(200, msgspec.json.encode(manifest.SCHEMA), b"application/schema+json")


OPERATIONS: tuple[Operation[Any], ...] = (
    Operation("GET", "/v1/apps", "The workspace's apps, newest first.", Nothing, list[ListedApp], _list_apps),
    Operation("POST", "/v1/apps", "Register an app.", AppBody, ShownApp, _make_app, status=201, refusals=(400, 413, 422, 429)),
    Operation("GET", "/v1/apps/{appId}", "An app with its manifest.", Nothing, ShownApp, _show_app, refusals=(404,)),
    Operation("PUT", "/v1/apps/{appId}", "Change an app's details or manifest.", AppChangesBody, ShownApp, _change_app, refusals=(400, 404, 413)),
    Operation("DELETE", "/v1/apps/{appId}", "Delete an app; its id stays reserved.", Nothing, None, _delete_app, status=204, refusals=(404,)),
)
"""A part of document 0; deployments are in `rest/deploys.py`."""
SCHEMAS = Document(
    name="Schemas",
    shape=lambda headers: PLAIN,
    errors=PlainError,
    public=True,
    operations=(Operation("GET", manifest.PATH, "The JSON Schema of an app's manifest.", Nothing, dict[str, Any], _manifest_schema),),
)
