"""Prepaid credit: the account, what moved in it, and an operator's correction."""

import datetime
import decimal
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.money import amounts
from domain.money.grants import GrantStatus
from domain.money.ledger import OF_PAYMENTS, AccountView, Balance, Entry, StatementFilter, TransferView
from domain.pages import PageOf
from domain.serving.receipts import FundingSource
from models import enums
from resolvers import billing, payments, usage
from resolvers import ledger as resolvers
from schema import ids, pages
from schema.amounts import Money
from schema.callers import Actor
from schema.context import Info
from schema.directives import PAGED, Cost
from schema.enums import TransferKind
from schema.fields import resolved
from schema.nodes import Node
from schema.ranges import UsageRange
from schema.scalars import MicroUsd, SafeInt
from schema.topups import AutoTopUp, TopUp, TopUpConnection, TopUpTerms

if TYPE_CHECKING:
    from schema.grants import GrantConnection
    from schema.records import UsageRecord

Statuses = Annotated[list[GrantStatus] | None, strawberry.argument(description="Only those in one of these statuses. ACTIVE only, when absent.")]


@strawberry.input(description="Narrows a list of transfers.")
class TransferFilter:
    """As the contract has it."""

    kinds: list[TransferKind] | None = field(description="What happened.", default=strawberry.UNSET)
    range: UsageRange | None = field(description="The window.", default=strawberry.UNSET)

    async def wanted(self, info: Info) -> StatementFilter:
        """The filter as the domain takes it; days are those of UTC."""
        over = await usage.window(info.context, self.range.wanted(), "UTC") if self.range else None
        return StatementFilter(
            kinds=tuple(booked for kind in self.kinds for booked in kind.booked) if isinstance(self.kinds, list) else None,
            start=over.start if over else None,
            end=over.end if over else None,
        )


Narrowed = Annotated[TransferFilter | None, strawberry.argument(description="Only the transfers that match.")]


@strawberry.type(
    description="An account of the double-entry ledger. What is debited from one is credited to another, so all of them add up to zero."
)
class LedgerAccount(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    kind: enums.LedgerAccountKind = field(description="What it holds.")
    name: str = field(description="A name to show.")
    balance: Money = field(description="What its transfers add up to, credits less debits.")
    held: Money = field(description="What calls under way have set aside.")
    available: Money = field(description="What can be spent: `balance` less `held`, above the floor.")
    floor: Money | None = field(description="What `balance` may not fall below by spending; null for an account that is not spent from.")

    workspace_id: strawberry.Private[UUID]
    account_id: strawberry.Private[UUID]

    @resolved("Its transfers, newest first.", directives=[PAGED])
    async def transfers(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        filter: Narrowed = UNSET,
    ) -> "TransferConnection":
        """Read a page of them."""
        wanted = await filter.wanted(info) if filter else StatementFilter()
        page = await resolvers.statement(
            info.context, self.workspace_id, pages.page_of("Transfer", first, after, last, before), wanted, self.account_id
        )
        return TransferConnection(workspace_id=self.workspace_id, page=page, filter_=wanted, account_id=self.account_id)

    @classmethod
    def of(cls, account: AccountView) -> Self:
        """The account as GraphQL shows it."""
        spendable = max(0, account.balance - account.held - account.floor) if account.floor is not None else account.balance - account.held
        return cls(
            id=ids.encode("LedgerAccount", account.id),
            kind=account.kind,
            name=account.name,
            balance=Money.of(account.balance),
            held=Money.of(account.held),
            available=Money.of(spendable),
            floor=None if account.floor is None else Money.of(account.floor),
            workspace_id=account.workspace_id,
            account_id=account.id,
        )


@strawberry.type(
    description=(
        "One posting of the ledger: an amount leaves one account and enters another. Never changed, never deleted; "
        "corrections are new transfers."
    )
)
class Transfer(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    kind: TransferKind = field(description="What happened.")
    idempotency_key: str = field(description="Kind and reference in one: a fact that comes twice is booked once.")
    amount: Money = field(description="How much, above zero.")
    reason: str | None = field(description="Why, for a person to read.")
    actor: Actor = field(description="Who caused it.")
    created_at: datetime.datetime = field(description="When it was posted.")
    workspace_id: strawberry.Private[UUID]
    debit_id: strawberry.Private[UUID]
    credit_id: strawberry.Private[UUID]
    call_id: strawberry.Private[UUID | None]
    transfer_id: strawberry.Private[UUID]
    of_payment: strawberry.Private[bool]

    @resolved("The account it left.")
    async def debit(self, info: Info) -> LedgerAccount:
        """Load the account."""
        return await account_of(info, self.workspace_id, self.debit_id)

    @resolved("The account it entered.")
    async def credit(self, info: Info) -> LedgerAccount:
        """Load the account."""
        return await account_of(info, self.workspace_id, self.credit_id)

    @resolved("The usage event it charges or corrects.")
    async def usage_record(self, info: Info) -> Annotated["UsageRecord", strawberry.lazy("schema.records")] | None:
        """Load the record, when the caller may see it."""
        from schema.records import UsageRecord

        record = await info.context.records.load(self.call_id) if self.call_id else None
        return UsageRecord.of(record) if record else None

    @resolved("The top-up it books, refunds or disputes.")
    async def top_up(self, info: Info) -> TopUp | None:
        """Find it, when the caller may see it."""
        found = await info.context.top_ups_of_transfers.load((self.workspace_id, self.transfer_id)) if self.of_payment else None
        return TopUp.of(found) if found else None

    @classmethod
    def of(cls, transfer: TransferView) -> Self:
        """The transfer as GraphQL shows it."""
        return cls(
            id=ids.encode("Transfer", transfer.id),
            kind=TransferKind.of(transfer.kind),
            idempotency_key=transfer.idempotency_key,
            amount=Money.of(transfer.amount),
            reason=transfer.reason,
            actor=Actor.of(transfer.actor),
            created_at=transfer.created_at,
            workspace_id=transfer.workspace_id,
            debit_id=transfer.debit_id,
            credit_id=transfer.credit_id,
            call_id=transfer.call_id,
            transfer_id=transfer.id,
            of_payment=transfer.kind in OF_PAYMENTS,
        )


async def account_of(info: Info, workspace_id: UUID, account_id: UUID) -> LedgerAccount:
    """An account by its id; it is never deleted."""
    account = await info.context.accounts.load((workspace_id, account_id))
    assert account is not None, "accounts are never deleted"
    return LedgerAccount.of(account)


@strawberry.type(description="A transfer as the account sees it whose list this is, and its place.")
class TransferEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Transfer = field(description="The transfer.")
    change: Money = field(description="The change of the account: positive adds, negative takes away.")
    balance_after: Money = field(description="The account's balance after it.")

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """The entry as GraphQL shows it."""
        return cls(
            cursor=pages.cursor("Transfer", entry.transfer.id),
            node=Transfer.of(entry.transfer),
            change=Money.of(entry.change),
            balance_after=Money.of(entry.balance_after),
        )


@strawberry.type(description="A page of an account's transfers.")
class TransferConnection:
    """A page of the statement."""

    workspace_id: strawberry.Private[UUID]
    page: strawberry.Private[PageOf[Entry]]
    filter_: strawberry.Private[StatementFilter]
    account_id: strawberry.Private[UUID | None] = None

    @resolved("The page.")
    def edges(self) -> list[TransferEdge]:
        """Show the page."""
        return [TransferEdge.of(entry) for entry in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Transfer]:
        """Show the page."""
        return [Transfer.of(entry.transfer) for entry in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Transfer", self.page, [entry.transfer.id for entry in self.page.items])

    @resolved("How many there are in all; counted only when selected.", directives=[Cost(weight="5")])
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.statement_count(info.context, self.workspace_id, self.filter_, self.account_id))


@strawberry.type(description="Prepaid credit: what was bought, what was given, what is spent.")
class CreditAccount:
    """As the contract has it."""

    balance: Money = field(
        description="What the ledger adds up to, cash and grants together. Below zero only after a refund, dispute or correction."
    )
    cash: Money = field(description="The part of `balance` that was bought.")
    granted: Money = field(description="The part of `balance` that was given.")
    held: Money = field(description="What calls under way have set aside.")
    available: Money = field(description="What can be spent: `balance` less `held`, never below zero.")
    carry_usd: decimal.Decimal = field(description="The part of a microdollar that waits for the next charge, in dollars.")
    write_off_bound: Money = field(description="The most that the calls now open could leave unpaid, borne by the service.")
    updated_at: datetime.datetime = field(description="When `balance` or `held` last changed.")
    workspace_id: strawberry.Private[UUID]

    @resolved("The smallest and largest top-up, and amounts to suggest.")
    def top_up_terms(self) -> TopUpTerms:
        """Tell them."""
        return TopUpTerms()

    @resolved("Whether and how credit is bought without asking.")
    async def auto_top_up(self, info: Info) -> AutoTopUp:
        """Read the settings."""
        return AutoTopUp.of(await payments.auto_top_up(info.context, self.workspace_id))

    @resolved("Payments for credit, newest first.", directives=[PAGED])
    async def top_ups(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> TopUpConnection:
        """Read a page of them."""
        wanted = pages.page_of("TopUp", first, after, last, before)
        return TopUpConnection(workspace_id=self.workspace_id, page=await payments.page(info.context, self.workspace_id, wanted))

    @resolved("The workspace's accounts: cash, and one for each grant that is not used up. Wallets are found at their end users.")
    async def accounts(self, info: Info) -> list[LedgerAccount]:
        """Read them."""
        return [LedgerAccount.of(account) for account in await resolvers.accounts(info.context, self.workspace_id)]

    @resolved(
        "The statement, newest first: every transfer that changed `balance`. It is append-only and adds up to `balance`.",
        directives=[PAGED],
    )
    async def transactions(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        filter: Narrowed = UNSET,
    ) -> TransferConnection:
        """Read a page of them."""
        wanted = await filter.wanted(info) if filter else StatementFilter()
        page = await resolvers.statement(info.context, self.workspace_id, pages.page_of("Transfer", first, after, last, before), wanted)
        return TransferConnection(workspace_id=self.workspace_id, page=page, filter_=wanted)

    @resolved("Since when a dispute has stopped all spending; null while it is allowed.")
    async def frozen_at(self, info: Info) -> datetime.datetime | None:
        """Read it."""
        return await billing.frozen_at(info.context, self.workspace_id)

    @resolved("Which sources pay for a key's calls, first to last.")
    async def funding_order(
        self, info: Info, kind: Annotated[enums.ApiKeyKind, strawberry.argument(description="The kind of key.")]
    ) -> list[FundingSource]:
        """Tell it."""
        return await billing.funding_order(info.context, self.workspace_id, kind)

    @resolved("Promotional credit, in the order in which it is spent.", directives=[PAGED])
    async def grants(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        statuses: Statuses = UNSET,
    ) -> Annotated["GrantConnection", strawberry.lazy("schema.grants")]:
        """Read a page of them."""
        from schema.grants import GrantConnection

        wanted = statuses if isinstance(statuses, list) else [GrantStatus.ACTIVE]
        page = await billing.page_of_grants(info.context, self.workspace_id, pages.page_of("Grant", first, after, last, before), wanted)
        return GrantConnection(workspace_id=self.workspace_id, page=page, statuses=wanted)

    @classmethod
    def of(cls, workspace_id: UUID, balance: Balance) -> Self:
        """A workspace's balance as GraphQL shows it."""
        return cls(
            workspace_id=workspace_id,
            balance=Money.of(balance.balance),
            cash=Money.of(balance.cash),
            granted=Money.of(balance.granted),
            held=Money.of(balance.held),
            available=Money.of(balance.available),
            carry_usd=decimal.Decimal(amounts.picos_as_usd(balance.carry_picousd)),
            write_off_bound=Money.of(balance.write_off_bound),
            updated_at=balance.updated_at,
        )


@strawberry.input(description="Input of creditsAdjust.")
class CreditsAdjustInput:
    """As the contract has it."""

    workspace_id: strawberry.ID | None = field(description="The workspace; the current one when absent.", default=strawberry.UNSET)
    amount: MicroUsd = field(description="The change: positive adds, negative takes away.")
    reason: str = field(description="Why.")
    idempotency_key: str = field(description="Makes a retry write the line once.")
