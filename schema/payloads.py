"""What mutations answer: the thing, or what the caller can repair."""

import strawberry
from strawberry import field

from schema.keys import ApiKey
from schema.ledger import CreditAccount, Transfer
from schema.members import Member
from schema.scalars import Secret
from schema.user_errors import UserError
from schema.workspaces import Workspace


@strawberry.type(description="Result of apiKeyCreate.")
class ApiKeyCreatePayload:
    """As the contract has it."""

    api_key: ApiKey | None = field(description="The key.", default=None)
    secret: Secret | None = field(description="The secret, shown this once.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of apiKeyUpdate.")
class ApiKeyUpdatePayload:
    """As the contract has it."""

    api_key: ApiKey | None = field(description="The key.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of apiKeyRotate.")
class ApiKeyRotatePayload:
    """As the contract has it."""

    api_key: ApiKey | None = field(description="The key.", default=None)
    secret: Secret | None = field(description="The new secret, shown this once.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of apiKeyRevoke.")
class ApiKeyRevokePayload:
    """As the contract has it."""

    api_key: ApiKey | None = field(description="The key, now revoked.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of memberInvite.")
class MemberInvitePayload:
    """As the contract has it."""

    member: Member | None = field(description="The member, with `joinedAt` null until the invitation is taken.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of invitationAccept.")
class InvitationAcceptPayload:
    """As the contract has it."""

    member: Member | None = field(description="The member.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of memberUpdate.")
class MemberUpdatePayload:
    """As the contract has it."""

    member: Member | None = field(description="The member.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of memberRemove.")
class MemberRemovePayload:
    """As the contract has it."""

    removed_member_id: strawberry.ID | None = field(description="The ID of the member that is gone.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of workspaceCreate.")
class WorkspaceCreatePayload:
    """As the contract has it."""

    workspace: Workspace | None = field(description="The workspace.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of creditsAdjust.")
class CreditsAdjustPayload:
    """As the contract has it."""

    transfer: Transfer | None = field(description="The transfer.", default=None)
    credits: CreditAccount | None = field(description="The account after it.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)
