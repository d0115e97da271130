"""People."""

from typing import Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.access.users import UserView
from models.enums import Scope
from schema import ids, ranges
from schema.access import requires
from schema.context import Context, Info
from schema.fields import resolved
from schema.nodes import Node
from schema.scalars import EmailAddress
from schema.sources import Report, UsageSource


@strawberry.type(description="A person.")
class User(Node, UsageSource):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    name: str | None = field(description="The display name.")
    email: EmailAddress | None = field(description="The address; null unless the viewer is this person or may read members.")

    user_id: strawberry.Private[UUID]

    @resolved(
        "The person's usage in this workspace. Requires scope `USAGE_READ` for one's own, `USAGE_READ_ALL` for another's.",
        extensions=requires(Scope.USAGE_READ),
    )
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> Report | None:
        """Resolve the window; what is selected is measured."""
        from schema.usage import report

        return await report(info, range, timezone, filter, of_user=self.user_id)

    @classmethod
    def of(cls, person: UserView, with_address: bool) -> Self:
        """The person as GraphQL shows them, with the address or without."""
        return cls(
            id=ids.encode("User", person.id),
            name=person.name,
            user_id=person.id,
            email=EmailAddress(person.email) if person.email and with_address else None,
        )


def visible(context: Context, user_id: UUID) -> bool:
    """Whether the caller may see this person's address."""
    return context.may(Scope.MEMBERS_READ) or (context.caller is not None and context.caller.user_id == user_id)
