"""The workspace and what hangs on it; the viewer."""

import datetime
from typing import Self

import strawberry
from strawberry import UNSET, field

from domain.access.callers import Caller
from domain.access.workspaces import WorkspaceView
from models import enums
from models.enums import Role, Scope
from resolvers import billing, ledger, members
from resolvers import workspaces as resolvers
from schema import ids, pages, ranges
from schema.access import requires
from schema.billing import Billing
from schema.client_tokens import ClientToken
from schema.context import Info
from schema.directives import PAGED
from schema.fields import resolved
from schema.keys import ApiKey
from schema.ledger import CreditAccount
from schema.limits import Limited
from schema.members import MemberConnection
from schema.nodes import Node
from schema.scalars import TimeZone
from schema.sources import UsageSource
from schema.usage import UsageReport, report
from schema.users import User


@strawberry.type(description="A tenant: it owns keys, apps, credits and subscriptions.")
class Workspace(Node, UsageSource, Limited):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    name: str = field(description="The display name.")
    default_timezone: TimeZone = field(description="The zone of its calendar windows, used too when a caller names none in the console.")
    retention_days: int | None = field(
        description=(
            "Days for which single calls are kept, when fewer than the service keeps them; reports stay. Null means as long "
            "as the service does."
        )
    )
    stopped_at: datetime.datetime | None = field(
        description="Since when the emergency stop is on and every call is refused; null while they are let in."
    )
    created_at: datetime.datetime = field(description="When the workspace was made.")

    @resolved("The people in it. Requires scope `MEMBERS_READ`.", extensions=requires(Scope.MEMBERS_READ), directives=[PAGED])
    async def members(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> MemberConnection | None:
        """Read a page of them. Only the current workspace shows its people."""
        if not self.is_current(info):
            return None
        return MemberConnection(page=await members.page(info.context, pages.page_of("Member", first, after, last, before)))

    @resolved("Prepaid credit. Requires scope `BILLING_READ`.", extensions=requires(Scope.BILLING_READ))
    async def credits(self, info: Info) -> CreditAccount | None:
        """Read the balance. Only the current workspace shows its money, and any to an operator."""
        return CreditAccount.of(self.subject_id, await ledger.balance(info.context, self.subject_id)) if self.shows_money(info) else None

    @resolved("Tier, subscriptions, trial and quotas. Requires scope `BILLING_READ`.", extensions=requires(Scope.BILLING_READ))
    async def billing(self, info: Info) -> Billing | None:
        """Read it. Only the current workspace shows it, and any to an operator."""
        return Billing.of(await billing.of(info.context, self.subject_id)) if self.shows_money(info) else None

    @resolved("The usage of the whole workspace. Requires scope `USAGE_READ`.", extensions=requires(Scope.USAGE_READ))
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> UsageReport | None:
        """Resolve the window. Only the current workspace shows its usage."""
        return await report(info, range, timezone, filter) if self.is_current(info) else None

    def is_current(self, info: Info) -> bool:
        """Whether this is the workspace that the call is scoped to."""
        return info.context.known.workspace_id == self.subject_id

    def shows_money(self, info: Info) -> bool:
        """Whether the caller may read this workspace's money: the current one's, or any one's for an operator."""
        return self.is_current(info) or info.context.known.operator

    @classmethod
    def of(cls, workspace: WorkspaceView) -> Self:
        """The workspace as GraphQL shows it."""
        return cls(
            id=ids.encode("Workspace", workspace.id),
            subject_id=workspace.id,
            name=workspace.name,
            default_timezone=TimeZone(workspace.default_timezone),
            retention_days=workspace.retention_days,
            stopped_at=workspace.stopped_at,
            created_at=workspace.created_at,
        )


@strawberry.type(description="The caller.")
class Viewer:
    """The caller as GraphQL shows it."""

    scopes: list[enums.Scope] = field(description="What the credential may do.")
    role: enums.Role = field(description="The caller's role in the current workspace.")

    @resolved("The person; null when a key acts for the workspace itself.")
    async def user(self, info: Info) -> User | None:
        """Load the person."""
        user_id = info.context.known.user_id
        person = await info.context.users.load(user_id) if user_id else None
        return User.of(person, with_address=True) if person else None

    @resolved("The API key used; null for a session or a client token.")
    async def api_key(self, info: Info) -> ApiKey | None:
        """Load the key."""
        key_id = info.context.known.key_id
        key = await info.context.keys.load(key_id) if key_id else None
        return ApiKey.of(key) if key else None

    @resolved("The client token used; null for a session or a key.")
    def client_token(self) -> ClientToken | None:
        """None: no credential is a client token yet."""
        return None

    @resolved("Every workspace the caller can switch to with `X-Workspace-Id`.")
    async def workspaces(self, info: Info) -> list[Workspace]:
        """Read them."""
        return [Workspace.of(workspace) for workspace in await resolvers.reachable(info.context)]

    @classmethod
    def of(cls, caller: Caller) -> Self:
        """The caller. An operator who is no member counts as an owner, anybody else who is none as a viewer."""
        role = caller.role or (Role.OWNER if caller.operator else Role.VIEWER)
        return cls(scopes=[scope for scope in Scope if scope in caller.scopes], role=role)


@strawberry.input(description="Input of workspaceCreate.")
class WorkspaceCreateInput:
    """As the contract has it."""

    name: str = field(description="The display name.")
    default_timezone: TimeZone = field(description="The zone of its calendar windows.", default="UTC")
    idempotency_key: str | None = field(
        description="Makes a retry return the first result instead of doing it again.", default=strawberry.UNSET
    )
