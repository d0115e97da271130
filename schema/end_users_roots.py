"""The mutations of end users and their wallets; `schema/mutation.py` is made of them."""

from typing import Annotated

import strawberry
from strawberry import UNSET, field

from domain.access.end_users import EndUserChanges
from models.enums import Scope
from resolvers import end_users
from schema.apps_roots import guarded, row
from schema.context import Info
from schema.end_users import EndUser
from schema.fields import resolved
from schema.ledger import Transfer
from schema.limits import BudgetInput, LimitInput, bounds, limit_bounds
from schema.scalars import MicroUsd
from schema.user_errors import UserError


@strawberry.input(description="Input of endUserUpdate. An absent field stays as it is.")
class EndUserUpdateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The end user.")
    blocked: bool | None = field(description="Whether calls for it are refused.", default=UNSET)
    budgets: list[BudgetInput] | None = field(description="What it may spend; replaces the old list.", default=UNSET)
    limits: list[LimitInput] | None = field(description="How much it may call; replaces the old list.", default=UNSET)

    def changes(self) -> EndUserChanges:
        """What to change: null clears the lists, and leaves what cannot be cleared."""
        return EndUserChanges(
            blocked=self.blocked if isinstance(self.blocked, bool) else None,
            budgets=None if self.budgets is UNSET else bounds(self.budgets or ()),
            limits=None if self.limits is UNSET else limit_bounds(self.limits or ()),
        )


@strawberry.type(description="Result of endUserUpdate.")
class EndUserUpdatePayload:
    """As the contract has it."""

    end_user: EndUser | None = field(description="The end user.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of walletAdjust.")
class WalletAdjustInput:
    """As the contract has it."""

    app_id: strawberry.ID = field(description="The app.")
    end_user_id: str = field(description="The end user, by the app's own ID.")
    amount: MicroUsd = field(description="The change: positive fills the wallet from cash, negative takes back.")
    reason: str | None = field(description="Why.", default=UNSET)
    idempotency_key: str = field(description="Makes a retry move it once.")


@strawberry.type(description="Result of walletAdjust.")
class WalletAdjustPayload:
    """As the contract has it."""

    end_user: EndUser | None = field(description="The end user, with its wallet.", default=None)
    transfer: Transfer | None = field(description="The transfer.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class EndUserMutations:
    """Writes of end users."""

    @resolved("Block an end user, or change what it may spend. Requires scope `APPS_WRITE`.", extensions=guarded(EndUserUpdatePayload))
    async def end_user_update(
        self, info: Info, input: Annotated[EndUserUpdateInput, strawberry.argument(description="What to change.")]
    ) -> EndUserUpdatePayload | None:
        """Change it."""
        changed = await end_users.update(info.context, row("EndUser", input.id, "end user", "id"), input.changes())
        return EndUserUpdatePayload(end_user=EndUser.of(changed))

    @resolved(
        "Move credit between the workspace's cash and an end user's wallet, which the first move opens. Requires scope `BILLING_WRITE`.",
        extensions=guarded(WalletAdjustPayload, Scope.BILLING_WRITE),
    )
    async def wallet_adjust(
        self, info: Info, input: Annotated[WalletAdjustInput, strawberry.argument(description="How much.")]
    ) -> WalletAdjustPayload | None:
        """Move it."""
        app_id = row("App", input.app_id, "app", "appId")
        reason = input.reason if isinstance(input.reason, str) and input.reason else None
        end_user, transfer = await end_users.adjust_wallet(
            info.context, app_id, input.end_user_id, input.amount, reason, input.idempotency_key
        )
        return WalletAdjustPayload(end_user=EndUser.of(end_user), transfer=Transfer.of(transfer))
