"""The mutations that are served: each makes one domain call, and tells in its payload what the caller can repair."""

from typing import Annotated
from uuid import UUID

import strawberry
from strawberry.extensions.field_extension import FieldExtension

from domain.errors import NotFound
from models.enums import Role, Scope
from resolvers import keys, ledger, members, workspaces
from schema import ids
from schema.access import Requires, SignedIn
from schema.alerting import AlertMutations
from schema.apps_roots import AppMutations
from schema.billing_roots import BillingMutations
from schema.client_tokens_roots import ClientTokenMutations
from schema.context import Info
from schema.end_users_roots import EndUserMutations
from schema.erasure_roots import ErasureMutations
from schema.exports_roots import ExportMutations
from schema.fields import resolved
from schema.inputs import given
from schema.keys import ApiKey, ApiKeyCreateInput, ApiKeyRevokeInput, ApiKeyRotateInput, ApiKeyUpdateInput
from schema.ledger import CreditAccount, CreditsAdjustInput, Transfer
from schema.limits import bounds, limit_bounds
from schema.limits_roots import LimitMutations
from schema.members import InvitationAcceptInput, Member, MemberInviteInput, MemberRemoveInput, MemberUpdateInput
from schema.operator_roots import OperatorMutations
from schema.payloads import (
    ApiKeyCreatePayload,
    ApiKeyRevokePayload,
    ApiKeyRotatePayload,
    ApiKeyUpdatePayload,
    CreditsAdjustPayload,
    InvitationAcceptPayload,
    MemberInvitePayload,
    MemberRemovePayload,
    MemberUpdatePayload,
    WorkspaceCreatePayload,
)
from schema.payments_roots import PaymentMutations
from schema.reconciliations import ReconciliationMutations
from schema.reratings import ReratingMutations
from schema.scalars import Secret
from schema.usage_roots import UsageMutations
from schema.user_errors import Repairable
from schema.workspaces import Workspace, WorkspaceCreateInput


def _guarded(payload: type, scope: Scope) -> list[FieldExtension]:
    return [Repairable(payload), Requires(scope)]


def _by_a_person(payload: type) -> list[FieldExtension]:
    return [Repairable(payload), SignedIn()]


def _row(kind: str, global_id: str, what: str, *path: str) -> UUID:
    """The row that an input names; raises NotFound, as for any row that is not the caller's, when it is no ID of that type."""
    found = ids.uuid_of(kind, global_id)
    if found is None:
        raise NotFound(what, path=path)
    return found


@strawberry.type(description="Where every write begins. Fields run one after another, in the order written.")
class Mutation(
    AlertMutations,
    AppMutations,
    ClientTokenMutations,
    EndUserMutations,
    UsageMutations,
    PaymentMutations,
    BillingMutations,
    LimitMutations,
    ExportMutations,
    OperatorMutations,
    ReratingMutations,
    ErasureMutations,
    ReconciliationMutations,
):
    """Fields run one after another."""

    @resolved(
        "Make an API key. The payload's `secret` is shown this once. Requires scope `KEYS_WRITE`.",
        extensions=_guarded(ApiKeyCreatePayload, Scope.KEYS_WRITE),
    )
    async def api_key_create(
        self, info: Info, input: Annotated[ApiKeyCreateInput, strawberry.argument(description="The key to make.")]
    ) -> ApiKeyCreatePayload | None:
        """Make a key."""
        key, secret = await keys.create(info.context, input.new())
        return ApiKeyCreatePayload(api_key=ApiKey.of(key), secret=Secret(secret) if secret else None)

    @resolved(
        "Rename a key, or change what it may do. Requires scope `KEYS_WRITE`.", extensions=_guarded(ApiKeyUpdatePayload, Scope.KEYS_WRITE)
    )
    async def api_key_update(
        self, info: Info, input: Annotated[ApiKeyUpdateInput, strawberry.argument(description="What to change.")]
    ) -> ApiKeyUpdatePayload | None:
        """Change a key."""
        key = await keys.update(info.context, _row("ApiKey", input.id, "key", "id"), input.changes())
        return ApiKeyUpdatePayload(api_key=ApiKey.of(key))

    @resolved(
        "Give a key a new secret; the old one works until the grace period ends. Requires scope `KEYS_WRITE`.",
        extensions=_guarded(ApiKeyRotatePayload, Scope.KEYS_WRITE),
    )
    async def api_key_rotate(
        self, info: Info, input: Annotated[ApiKeyRotateInput, strawberry.argument(description="The key.")]
    ) -> ApiKeyRotatePayload | None:
        """Give a key a new secret."""
        key, secret = await keys.rotate(info.context, _row("ApiKey", input.id, "key", "id"), input.grace_seconds)
        return ApiKeyRotatePayload(api_key=ApiKey.of(key), secret=Secret(secret))

    @resolved(
        ("Revoke a key. Streams under way go on; the next call fails with 401. Doing it twice is no error. Requires scope `KEYS_WRITE`."),
        extensions=_guarded(ApiKeyRevokePayload, Scope.KEYS_WRITE),
    )
    async def api_key_revoke(
        self, info: Info, input: Annotated[ApiKeyRevokeInput, strawberry.argument(description="The key.")]
    ) -> ApiKeyRevokePayload | None:
        """Revoke a key."""
        return ApiKeyRevokePayload(api_key=ApiKey.of(await keys.revoke(info.context, _row("ApiKey", input.id, "key", "id"))))

    @resolved(
        "Correct a workspace's credit by hand; promotional credit is a grant. Requires scope `OPERATOR`.",
        extensions=_guarded(CreditsAdjustPayload, Scope.OPERATOR),
    )
    async def credits_adjust(
        self, info: Info, input: Annotated[CreditsAdjustInput, strawberry.argument(description="How much and why.")]
    ) -> CreditsAdjustPayload | None:
        """Post the correction, and read what it leaves."""
        named = given(input.workspace_id)
        other = None if named is None else _row("Workspace", named, "workspace", "workspaceId")
        transfer = await ledger.adjust(info.context, other, input.amount, input.reason, input.idempotency_key)
        balance = await ledger.balance(info.context, transfer.workspace_id)
        return CreditsAdjustPayload(transfer=Transfer.of(transfer), credits=CreditAccount.of(transfer.workspace_id, balance))

    @resolved(
        "Make a workspace. The caller, a signed-in person, becomes its owner; no scope is needed.",
        extensions=_by_a_person(WorkspaceCreatePayload),
    )
    async def workspace_create(
        self, info: Info, input: Annotated[WorkspaceCreateInput, strawberry.argument(description="The workspace.")]
    ) -> WorkspaceCreatePayload | None:
        """Make a workspace."""
        workspace = await workspaces.create(info.context, input.name, input.default_timezone, given(input.idempotency_key))
        return WorkspaceCreatePayload(workspace=Workspace.of(workspace))

    @resolved(
        "Invite a person by e-mail; doing it again sends the invitation anew. Requires scope `MEMBERS_WRITE`.",
        extensions=_guarded(MemberInvitePayload, Scope.MEMBERS_WRITE),
    )
    async def member_invite(
        self, info: Info, input: Annotated[MemberInviteInput, strawberry.argument(description="Whom.")]
    ) -> MemberInvitePayload | None:
        """Invite a person."""
        return MemberInvitePayload(member=Member.of(await members.invite(info.context, input.email, input.role)))

    @resolved(
        "Take an invitation. The caller, a signed-in person, becomes a member; no scope is needed.",
        extensions=_by_a_person(InvitationAcceptPayload),
    )
    async def invitation_accept(
        self, info: Info, input: Annotated[InvitationAcceptInput, strawberry.argument(description="The invitation.")]
    ) -> InvitationAcceptPayload | None:
        """Take an invitation."""
        return InvitationAcceptPayload(member=Member.of(await members.accept(info.context, input.token)))

    @resolved(
        "Change a member's role or bounds. Requires scope `MEMBERS_WRITE`.", extensions=_guarded(MemberUpdatePayload, Scope.MEMBERS_WRITE)
    )
    async def member_update(
        self, info: Info, input: Annotated[MemberUpdateInput, strawberry.argument(description="What to change.")]
    ) -> MemberUpdatePayload | None:
        """Change a member."""
        role = input.role if isinstance(input.role, Role) else None
        budgets = None if input.budgets is strawberry.UNSET else bounds(input.budgets or ())
        limits = None if input.limits is strawberry.UNSET else limit_bounds(input.limits or ())
        member = await members.update(info.context, _row("Member", input.id, "member", "id"), role, budgets, limits)
        return MemberUpdatePayload(member=Member.of(member))

    @resolved(
        "Take a person out, or withdraw an invitation. Requires scope `MEMBERS_WRITE`.",
        extensions=_guarded(MemberRemovePayload, Scope.MEMBERS_WRITE),
    )
    async def member_remove(
        self, info: Info, input: Annotated[MemberRemoveInput, strawberry.argument(description="Whom.")]
    ) -> MemberRemovePayload | None:
        """Take a person out."""
        removed = await members.remove(info.context, _row("Member", input.id, "member", "id"))
        return MemberRemovePayload(removed_member_id=ids.encode("Member", removed))
