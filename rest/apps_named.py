"""Apps as the documents with usage by app name them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from domain.access.callers import Caller
from domain.apps import registry
from domain.errors import NotFound
from domain.usage.metrics import Dimension, Values


@dataclass(frozen=True, slots=True)
class NamedApp:
    """An app by its public id and the name to show."""

    id: str
    name: str


async def named_apps(caller: Caller, groups: Sequence[Values]) -> list[NamedApp | None]:
    """Return the app of each group, None for usage without an app; one that was given to another workspace has no name here any more."""
    ids = [group.get(Dimension.APP) for group in groups]
    labels = await registry.labels(caller, [each for each in ids if isinstance(each, UUID)])
    return [_named(each, labels.get(each)) if isinstance(each, UUID) else None for each in ids]


def _named(app_id: UUID, label: registry.AppLabel | None) -> NamedApp:
    return NamedApp(str(app_id), str(app_id)) if label is None else NamedApp(label.slug, label.name)


async def find_app(caller: Caller, text: str) -> UUID:
    """Return the app that a client names by its public id, or by the id that stands for one without a name; raises NotFound for neither."""
    with contextlib.suppress(ValueError):
        return UUID(text)
    try:
        return await registry.id_of(caller, text)
    except NotFound:
        raise NotFound("instance", path=("instance_id",)) from None
