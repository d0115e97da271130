"""People in a workspace, and invitations to it."""

import datetime
from typing import Self
from uuid import UUID

import strawberry
from strawberry import field

from domain.access.members import MemberView
from domain.pages import PageOf
from models import enums
from resolvers import members as resolvers
from schema import ids, pages
from schema.context import Info
from schema.fields import resolved
from schema.limits import BudgetInput, Limited, LimitInput
from schema.nodes import Node
from schema.scalars import EmailAddress, SafeInt, Secret
from schema.users import User, visible


@strawberry.type(description="A person's place in a workspace, or an invitation to it.")
class Member(Node, Limited):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    role: enums.Role = field(description="What the person may do here.")
    invitation_expires_at: datetime.datetime | None = field(description="When an invitation that is still open ends; null once taken.")
    joined_at: datetime.datetime | None = field(description="When the person joined; null while an invitation is open.")
    person: strawberry.Private[UUID]
    inviter: strawberry.Private[UUID | None]

    @resolved("The person.")
    async def user(self, info: Info) -> User:
        """Load the person."""
        person = await info.context.users.load(self.person)
        assert person is not None, "people are never deleted"
        return User.of(person, visible(info.context, person.id))

    @resolved("Who invited the person; null for the workspace's first owner.")
    async def invited_by(self, info: Info) -> User | None:
        """Load the person."""
        person = await info.context.users.load(self.inviter) if self.inviter else None
        return User.of(person, visible(info.context, person.id)) if person else None

    @classmethod
    def of(cls, member: MemberView) -> Self:
        """The member as GraphQL shows it."""
        return cls(
            id=ids.encode("Member", member.id),
            subject_id=member.id,
            role=member.role,
            invitation_expires_at=member.invitation_expires_at,
            joined_at=member.joined_at,
            person=member.user_id,
            inviter=member.invited_by,
        )


@strawberry.type(description="A member and its place.")
class MemberEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Member = field(description="The member.")


@strawberry.type(description="A page of members.")
class MemberConnection:
    """A page of members."""

    page: strawberry.Private[PageOf[MemberView]]

    @resolved("The page.")
    def edges(self) -> list[MemberEdge]:
        """Show the page."""
        return [MemberEdge(cursor=pages.cursor("Member", member.id), node=Member.of(member)) for member in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Member]:
        """Show the page."""
        return [Member.of(member) for member in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Member", self.page, [member.id for member in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context))


@strawberry.input(description="Input of memberInvite.")
class MemberInviteInput:
    """As the contract has it."""

    email: EmailAddress = field(description="The address.")
    role: enums.Role = field(description="What the person may do.")


@strawberry.input(description="Input of invitationAccept.")
class InvitationAcceptInput:
    """As the contract has it."""

    token: Secret = field(description="The token in the invitation's link.")


@strawberry.input(description="Input of memberUpdate. An absent field stays as it is.")
class MemberUpdateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The member.")
    role: enums.Role | None = field(
        description="What the person may do; it cannot be cleared, and nobody changes their own.", default=strawberry.UNSET
    )
    budgets: list[BudgetInput] | None = field(description="What the person may spend; replaces the old list.", default=strawberry.UNSET)
    limits: list[LimitInput] | None = field(description="How much the person may call; replaces the old list.", default=strawberry.UNSET)


@strawberry.input(description="Input of memberRemove.")
class MemberRemoveInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The member.")
