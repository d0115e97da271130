"""Apps as the documents with usage by app name them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from domain.access.callers import Caller
from domain.errors import NotFound
from domain.usage.metrics import Dimension, Values


@dataclass(frozen=True, slots=True)
class NamedApp:
    """An app by its public id and the name to show."""

    id: str
    name: str


async def named_apps(caller: Caller, groups: Sequence[Values]) -> list[NamedApp | None]:
    """Return the app of each group, None for usage without an app."""
    ids = [group.get(Dimension.APP) for group in groups]
    return [NamedApp(str(each), str(each)) if isinstance(each, UUID) else None for each in ids]


async def find_app(caller: Caller, text: str) -> UUID:
    """Return the app that a client names; raises NotFound for what is none of the caller's workspace."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("instance", path=("instance_id",)) from None
