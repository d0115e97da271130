"""The credit account, followed."""

from collections.abc import AsyncGenerator

import strawberry

from models.enums import Scope
from resolvers import ledger
from schema.access import check
from schema.context import Info
from schema.following import followed, while_known
from schema.ledger import CreditAccount


@strawberry.type
class CreditSubscriptions:
    """What is told of credit as it happens."""

    @followed(
        "The credit account, at once and then whenever it changes, at most once a second. Requires scope `BILLING_READ`.", Scope.BILLING_READ
    )
    async def credits_changed(self, info: Info) -> AsyncGenerator[CreditAccount, None]:
        """Follow what can be spent."""
        check(info.context, Scope.BILLING_READ)
        workspace_id = info.context.known.workspace()
        async for balance in while_known(info.context, ledger.balances(info.context, workspace_id), Scope.BILLING_READ):
            yield CreditAccount.of(workspace_id, balance)
