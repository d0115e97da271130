"""The mutation that forgets an end user; `schema/mutation.py` is made of it."""

from typing import Annotated

import strawberry
from strawberry import field

from domain.errors import NotFound
from models.enums import Scope
from resolvers import end_users
from schema import ids
from schema.apps_roots import guarded
from schema.context import Info
from schema.fields import resolved
from schema.user_errors import UserError


@strawberry.input(description="Input of endUserErase.")
class EndUserEraseInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The end user.")


@strawberry.type(description="Result of endUserErase.")
class EndUserErasePayload:
    """As the contract has it."""

    erased_end_user_id: strawberry.ID | None = field(description="The ID of the end user that is forgotten.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class ErasureMutations:
    """The write that takes a name away."""

    @resolved(
        "Forget an end user: its ID is taken out of every call, and every sum stays. It cannot be undone. Requires scope `APPS_WRITE`.",
        extensions=guarded(EndUserErasePayload, Scope.APPS_WRITE),
    )
    async def end_user_erase(self, info: Info, input: Annotated[EndUserEraseInput, strawberry.argument(description="Whom.")]) -> EndUserErasePayload | None:
        """Forget it."""
        found = ids.uuid_of("EndUser", input.id)
        if found is None:
            raise NotFound("end user", path=("id",))
        await end_users.erase(info.context, found)
        return EndUserErasePayload(erased_end_user_id=input.id)
