"""Who calls, and who did something."""

from typing import TYPE_CHECKING, Annotated, Self

import strawberry
from strawberry import field

from domain.access.callers import Actor as KeptActor
from models import enums
from models.enums import ActorKind, Scope
from schema.context import Info
from schema.fields import resolved
from schema.users import User, visible

if TYPE_CHECKING:
    from schema.keys import ApiKey


@strawberry.type(description="Who did something.")
class Actor:
    """Who did something, as it was kept beside the thing."""

    kind: enums.ActorKind = field(description="What kind of actor.")
    name: str = field(description="A name to show: the person's, the key's, or the job's.")
    kept: strawberry.Private[KeptActor]

    @resolved("The person; null when none was involved or may be seen.")
    async def user(self, info: Info) -> User | None:
        """Find the person, when there is one and the caller may see people."""
        context = info.context
        if self.kept.id is None or self.kind not in (ActorKind.USER, ActorKind.OPERATOR):
            return None
        if not context.may(Scope.MEMBERS_READ) and (context.caller is None or context.caller.user_id != self.kept.id):
            return None
        person = await context.users.load(self.kept.id)
        return User.of(person, visible(context, person.id)) if person else None

    @resolved("The key; null when none was used.")
    async def api_key(self, info: Info) -> Annotated["ApiKey", strawberry.lazy("schema.keys")] | None:
        """Find the key, when there is one and the caller may see keys."""
        from schema.keys import ApiKey

        if self.kept.id is None or self.kind not in (ActorKind.API_KEY, ActorKind.OPERATOR) or info.context.caller is None:
            return None
        key = await info.context.keys.load(self.kept.id)
        return ApiKey.of(key) if key else None

    @classmethod
    def of(cls, actor: KeptActor) -> Self:
        """The actor as GraphQL shows it."""
        return cls(kind=actor.kind, name=actor.name, kept=actor)
