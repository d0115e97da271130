"""API keys: listed, found, made, changed, rotated, revoked."""

from uuid import UUID

from domain.access import keys
from domain.access.keys import KeyChanges, KeyFilter, KeyView, NewKey
from domain.errors import NotFound
from domain.pages import Page, PageOf
from resolvers.asking import Asking


async def page(asking: Asking, wanted: Page, filter_: KeyFilter) -> PageOf[KeyView]:
    """A page of the workspace's keys, newest first."""
    return await keys.page(asking.known, wanted, filter_)


async def count(asking: Asking, filter_: KeyFilter) -> int:
    """How many keys match."""
    return await keys.count(asking.known, filter_)


async def create(asking: Asking, new: NewKey) -> tuple[KeyView, str | None]:
    """Make a key; the secret is None when an idempotency key has made it before. Raises NotFound for a model that the catalogue does not know."""
    _refuse_unknown_models(asking, new)
    return await keys.create(asking.known, new)


async def update(asking: Asking, key_id: UUID, changes: KeyChanges) -> KeyView:
    """Change a key. Raises NotFound for a model that the catalogue does not know."""
    _refuse_unknown_models(asking, changes)
    return await keys.update(asking.known, key_id, changes)


def _refuse_unknown_models(asking: Asking, wanted: NewKey | KeyChanges) -> None:
    """A name that is mistyped would shut a key out, or bound nothing at all, and be shown as no model."""
    named: list[tuple[tuple[str, ...], str]] = []
    if isinstance(wanted.allowed_models, tuple):
        named += [(("allowedModels", str(place)), name) for place, name in enumerate(wanted.allowed_models)]
    for field, bounds in (("budgets", wanted.budgets), ("limits", wanted.limits)):
        if isinstance(bounds, tuple):
            named += [((field, str(place), "model"), bound.model) for place, bound in enumerate(bounds) if bound.model is not None]
    for path, name in named:
        if name and asking.facilities.find(name) is None:
            raise NotFound("model", path=path)


async def rotate(asking: Asking, key_id: UUID, grace_seconds: int) -> tuple[KeyView, str]:
    """Give a key a new secret."""
    return await keys.rotate(asking.known, key_id, grace_seconds)


async def revoke(asking: Asking, key_id: UUID) -> KeyView:
    """Revoke a key."""
    return await keys.revoke(asking.known, key_id)
