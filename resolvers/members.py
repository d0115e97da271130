"""People in the workspace: listed, invited, joined, given a role, taken out."""

from uuid import UUID

from domain.access import members
from domain.access.limits import BoundInput
from domain.access.members import MemberView
from domain.pages import Page, PageOf
from models.enums import Role
from resolvers.asking import Asking, offered_names


async def page(asking: Asking, wanted: Page) -> PageOf[MemberView]:
    """A page of the members and open invitations, oldest first."""
    return await members.page(asking.known, wanted)


async def count(asking: Asking) -> int:
    """How many members and open invitations there are."""
    return await members.count(asking.known)


async def invite(asking: Asking, email: str, role: Role) -> MemberView:
    """Invite an address."""
    return await members.invite(asking.known, email, role)


async def accept(asking: Asking, token: str) -> MemberView:
    """Take an invitation as the signed-in person."""
    return await members.accept(asking.known, token, asking.facilities.signing_secret)


async def update(
    asking: Asking, member_id: UUID, role: Role | None, budgets: tuple[BoundInput, ...] | None, limits: tuple[BoundInput, ...] | None
) -> MemberView:
    """Give a member another role, other bounds, or both at once; None leaves each."""
    return await members.update(asking.known, member_id, role, budgets, limits, offered=offered_names(asking))


async def remove(asking: Asking, member_id: UUID) -> UUID:
    """Take a person out, or withdraw an invitation."""
    return await members.remove(asking.known, member_id)
