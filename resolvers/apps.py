"""Apps: listed, found, registered, changed, given away, deleted."""

from uuid import UUID

from domain.apps import registry
from domain.apps.registry import AppChanges, AppView, NewApp, Order
from domain.errors import Forbidden, NotFound
from domain.pages import Page, PageOf
from resolvers.asking import Asking


async def page(asking: Asking, wanted: Page, order: Order, *, ascending: bool) -> PageOf[AppView]:
    """A page of the workspace's apps."""
    return await registry.page(asking.known, wanted, order, ascending=ascending)


async def count(asking: Asking) -> int:
    """How many apps the workspace has."""
    return await registry.count(asking.known)


async def named(asking: Asking, slug: str) -> AppView | None:
    """The workspace's app of a name; another's is not told from none."""
    try:
        return await registry.named(asking.known, slug)
    except (NotFound, Forbidden):
        return None


async def create(asking: Asking, new: NewApp) -> AppView:
    """Register an app."""
    return await registry.create(asking.known, new)


async def update(asking: Asking, app_id: UUID, changes: AppChanges) -> AppView:
    """Change an app. Raises NotFound for a model of a bound that the catalogue does not know."""
    for field, bounds in (("budgets", changes.budgets), ("limits", changes.limits)):
        for place, bound in enumerate(bounds if isinstance(bounds, tuple) else ()):
            if bound.model is not None and asking.facilities.book.find(bound.model) is None:
                raise NotFound("model", path=(field, str(place), "model"))
    return await registry.update(asking.known, app_id, changes)


async def delete(asking: Asking, app_id: UUID) -> UUID:
    """Delete an app."""
    return (await registry.delete(asking.known, app_id)).id


async def transfer(asking: Asking, app_id: UUID, to: UUID) -> AppView:
    """Give an app to another workspace."""
    return await registry.transfer(asking.known, app_id, to)
