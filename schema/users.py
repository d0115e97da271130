"""People."""

from typing import Self
from uuid import UUID

import strawberry
from strawberry import field

from domain.access.users import UserView
from models.enums import Scope
from schema import ids
from schema.context import Context
from schema.nodes import Node
from schema.scalars import EmailAddress


@strawberry.type(description="A person.")
class User(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    name: str | None = field(description="The display name.")
    email: EmailAddress | None = field(description="The address; null unless the viewer is this person or may read members.")

    @classmethod
    def of(cls, person: UserView, with_address: bool) -> Self:
        """The person as GraphQL shows them, with the address or without."""
        return cls(
            id=ids.encode("User", person.id),
            name=person.name,
            email=EmailAddress(person.email) if person.email and with_address else None,
        )


def visible(context: Context, user_id: UUID) -> bool:
    """Whether the caller may see this person's address."""
    return context.may(Scope.MEMBERS_READ) or (context.caller is not None and context.caller.user_id == user_id)
