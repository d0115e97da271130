"""Who did something, as it is kept beside the thing."""

from dataclasses import dataclass
from uuid import UUID

from models.enums import ActorKind


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something, as it is kept beside the thing."""

    kind: ActorKind
    id: UUID | None
    name: str
