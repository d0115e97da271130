"""The queries and mutations of apps; `schema/query.py` and `schema/mutation.py` are made of them."""

from typing import Annotated
from uuid import UUID

import strawberry
from strawberry import UNSET
from strawberry.extensions.field_extension import FieldExtension

from domain.errors import NotFound
from models.enums import Scope
from resolvers import apps, deployments
from schema import ids, pages
from schema.access import Requires, requires
from schema.apps import (
    LAST_CHANGED_FIRST,
    App,
    AppConnection,
    AppCreateInput,
    AppCreatePayload,
    AppDeleteInput,
    AppDeletePayload,
    AppOrder,
    AppTransferInput,
    AppTransferPayload,
    AppUpdateInput,
    AppUpdatePayload,
)
from schema.context import Info
from schema.deployments import (
    Deployment,
    DeploymentCancelInput,
    DeploymentCancelPayload,
    DeploymentCreateInput,
    DeploymentCreatePayload,
    DeploymentFinalizeInput,
    DeploymentFinalizePayload,
    DeploymentRollbackInput,
    DeploymentRollbackPayload,
    UploadTarget,
)
from schema.directives import PAGED
from schema.enums import SortDirection
from schema.fields import resolved
from schema.inputs import given
from schema.scalars import Slug
from schema.user_errors import Repairable


def guarded(payload: type, scope: Scope = Scope.APPS_WRITE) -> list[FieldExtension]:
    """The extensions of a mutation that needs a scope and tells refusals in its payload."""
    return [Repairable(payload), Requires(scope)]


def row(kind: str, global_id: str, what: str, *path: str) -> UUID:
    """The row that an input names; raises NotFound, as for any row that is not the caller's, when it is no ID of that type."""
    found = ids.uuid_of(kind, global_id)
    if found is None:
        raise NotFound(what, path=path)
    return found


@strawberry.type
class AppQueries:
    """Reads of apps."""

    @resolved("Apps of the workspace. Requires scope `APPS_READ`.", extensions=requires(Scope.APPS_READ), directives=[PAGED])
    async def apps(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        order_by: Annotated[AppOrder, strawberry.argument(description="The order.")] = LAST_CHANGED_FIRST,
    ) -> AppConnection | None:
        """Read a page of them."""
        wanted = pages.page_of("App", first, after, last, before)
        return AppConnection(page=await apps.page(info.context, wanted, order_by.field, ascending=order_by.direction is SortDirection.ASC))

    @resolved("One app by its slug. Requires scope `APPS_READ`.", extensions=requires(Scope.APPS_READ))
    async def app(self, info: Info, slug: Annotated[Slug, strawberry.argument(description="The app's slug.")]) -> App | None:
        """Read it."""
        found = await apps.named(info.context, slug)
        return App.of(found) if found else None


@strawberry.type
class AppMutations:
    """Writes of apps."""

    @resolved("Register an app. Requires scope `APPS_WRITE`.", extensions=guarded(AppCreatePayload))
    async def app_create(
        self, info: Info, input: Annotated[AppCreateInput, strawberry.argument(description="The app.")]
    ) -> AppCreatePayload | None:
        """Register it."""
        return AppCreatePayload(app=App.of(await apps.create(info.context, input.new())))

    @resolved("Change an app's details or manifest. Requires scope `APPS_WRITE`.", extensions=guarded(AppUpdatePayload))
    async def app_update(
        self, info: Info, input: Annotated[AppUpdateInput, strawberry.argument(description="What to change.")]
    ) -> AppUpdatePayload | None:
        """Change it."""
        return AppUpdatePayload(app=App.of(await apps.update(info.context, row("App", input.id, "app", "id"), input.changes())))

    @resolved(
        "Delete an app with its deployments, which stop being served at once. Its usage stays, and its slug stays reserved. "
        "Requires scope `APPS_WRITE`.",
        extensions=guarded(AppDeletePayload),
    )
    async def app_delete(
        self, info: Info, input: Annotated[AppDeleteInput, strawberry.argument(description="The app.")]
    ) -> AppDeletePayload | None:
        """Delete it."""
        gone = await apps.delete(info.context, row("App", input.id, "app", "id"))
        return AppDeletePayload(deleted_app_id=ids.encode("App", gone))

    @resolved(
        "Give an app to another workspace of which the caller is owner or admin. Its past usage stays. Requires scope `APPS_WRITE`.",
        extensions=guarded(AppTransferPayload),
    )
    async def app_transfer(
        self, info: Info, input: Annotated[AppTransferInput, strawberry.argument(description="The app and the workspace.")]
    ) -> AppTransferPayload | None:
        """Give it away."""
        to = row("Workspace", input.workspace_id, "workspace of which you are owner or admin", "workspaceId")
        return AppTransferPayload(app=App.of(await apps.transfer(info.context, row("App", input.id, "app", "id"), to)))

    @resolved(
        "Begin a deployment: name the files, get addresses for those the store does not hold yet. Requires scope `APPS_WRITE`.",
        extensions=guarded(DeploymentCreatePayload),
    )
    async def deployment_create(
        self, info: Info, input: Annotated[DeploymentCreateInput, strawberry.argument(description="The files.")]
    ) -> DeploymentCreatePayload | None:
        """Begin it."""
        app_id = row("App", input.app_id, "app", "appId")
        begun, targets = await deployments.create(info.context, app_id, input.given(), input.message or None, given(input.idempotency_key))
        return DeploymentCreatePayload(deployment=Deployment.of(begun), uploads=[UploadTarget.of(target) for target in targets])

    @resolved(
        "Queue a deployment whose files have all been sent; it goes live when the job succeeds. Requires scope `APPS_WRITE`.",
        extensions=guarded(DeploymentFinalizePayload),
    )
    async def deployment_finalize(
        self, info: Info, input: Annotated[DeploymentFinalizeInput, strawberry.argument(description="The deployment.")]
    ) -> DeploymentFinalizePayload | None:
        """Queue it."""
        found = await deployments.finalize(info.context, row("Deployment", input.id, "deployment", "id"))
        return DeploymentFinalizePayload(deployment=Deployment.of(found))

    @resolved(
        "Make an earlier successful deployment live again. Requires scope `APPS_WRITE`.", extensions=guarded(DeploymentRollbackPayload)
    )
    async def deployment_rollback(
        self, info: Info, input: Annotated[DeploymentRollbackInput, strawberry.argument(description="The deployment to go back to.")]
    ) -> DeploymentRollbackPayload | None:
        """Go back to it."""
        found = await deployments.rollback(info.context, row("Deployment", input.id, "deployment", "id"))
        return DeploymentRollbackPayload(deployment=Deployment.of(found), app=App.of(await deployments.app_of(info.context, found.app_id)))

    @resolved("Stop a deployment that has not finished. Requires scope `APPS_WRITE`.", extensions=guarded(DeploymentCancelPayload))
    async def deployment_cancel(
        self, info: Info, input: Annotated[DeploymentCancelInput, strawberry.argument(description="The deployment.")]
    ) -> DeploymentCancelPayload | None:
        """Stop it."""
        found = await deployments.cancel(info.context, row("Deployment", input.id, "deployment", "id"))
        return DeploymentCancelPayload(deployment=Deployment.of(found))
