"""Credit that is bought: the payments, what came of them, and buying without asking."""

import datetime
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import strawberry
from strawberry import field

from domain.money.autotopup import AutoTopUpChanges, AutoTopUpView
from domain.money.topups import LARGEST_USD, SMALLEST_USD, SUGGESTED_USD, TopUpView
from domain.pages import PageOf
from models import enums
from models.enums import TopUpStatus
from resolvers import payments as resolvers
from schema import ids, pages
from schema.amounts import Money
from schema.callers import Actor
from schema.context import Info
from schema.fields import resolved
from schema.nodes import Failure, Node
from schema.payments import Dispute, Refund
from schema.scalars import URL, MicroUsd, SafeInt

if TYPE_CHECKING:
    from schema.ledger import Transfer


@strawberry.type(description="What a top-up may be.")
class TopUpTerms:
    """As the contract has it."""

    minimum_usd: int = field(description="The least, in whole dollars.", default=SMALLEST_USD)
    maximum_usd: int = field(description="The most, in whole dollars.", default=LARGEST_USD)
    suggested_usd: list[int] = field(description="Amounts to offer as buttons, in whole dollars.", default_factory=lambda: list(SUGGESTED_USD))


@strawberry.type(description="A page at Stripe where the customer pays.")
class CheckoutSession:
    """As the contract has it."""

    session_id: str = field(description="Stripe's session ID.")
    url: URL = field(description="Where to send the customer.")
    expires_at: datetime.datetime = field(description="When the page stops working.")

    @classmethod
    def of(cls, top_up: TopUpView) -> Self | None:
        """The page of a top-up that is still to be paid; None when there is none."""
        if top_up.status is not TopUpStatus.OPEN or top_up.session_id is None or top_up.session_url is None or top_up.session_expires_at is None:
            return None
        return cls(session_id=top_up.session_id, url=URL(top_up.session_url), expires_at=top_up.session_expires_at)


@strawberry.type(description="A page at Stripe where the customer manages cards, invoices and the subscription.")
class PortalSession:
    """As the contract has it."""

    url: URL = field(description="Where to send the customer.")


@strawberry.type(description="A payment that buys credit.")
class TopUp(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    status: enums.TopUpStatus = field(description="Where it stands.")
    amount: Money = field(description="The credit asked for.")
    credited: Money | None = field(
        description=("The credit booked: what Stripe received; null until fulfilled. Another currency than US dollars goes to the suspense account instead.")
    )
    automatic: bool = field(description="Whether auto top-up made it.")
    created_by: Actor = field(description="Who began it.")
    checkout_session: CheckoutSession | None = field(description="The page to pay at; null unless open.")
    receipt_url: URL | None = field(description="Stripe's receipt; null until paid.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")
    created_at: datetime.datetime = field(description="When it was begun.")
    fulfilled_at: datetime.datetime | None = field(description="When it was fulfilled.")
    view: strawberry.Private[TopUpView]

    @resolved("Money given back to the customer, oldest first.")
    async def refunds(self, info: Info) -> list[Refund]:
        """Load them."""
        return [Refund.of(each) for each in await info.context.refunds.load((self.view.workspace_id, self.view.id)) or ()]

    @resolved("Disputes at the customer's bank, oldest first.")
    async def disputes(self, info: Info) -> list[Dispute]:
        """Load them."""
        return [Dispute.of(each) for each in await info.context.disputes.load((self.view.workspace_id, self.view.id)) or ()]

    @resolved("What moved in the ledger for it, oldest first.")
    async def transfers(self, info: Info) -> list[Annotated["Transfer", strawberry.lazy("schema.ledger")]]:
        """Read them."""
        from schema.ledger import Transfer

        return [Transfer.of(each) for each in await resolvers.transfers(info.context, self.view)]

    @classmethod
    def of(cls, top_up: TopUpView) -> Self:
        """The top-up as GraphQL shows it."""
        failed = top_up.status is TopUpStatus.FAILED
        return cls(
            id=ids.encode("TopUp", top_up.id),
            status=top_up.status,
            amount=Money.of(top_up.amount),
            credited=None if top_up.credited is None else Money.of(top_up.credited),
            automatic=top_up.automatic,
            created_by=Actor.of(top_up.creator),
            checkout_session=CheckoutSession.of(top_up),
            receipt_url=URL(top_up.receipt_url) if top_up.receipt_url else None,
            failure=failure(top_up.failure_code or "payment_failed", top_up.failure_message) if failed else None,
            created_at=top_up.created_at,
            fulfilled_at=top_up.fulfilled_at,
            view=top_up,
        )


def failure(code: str, message: str | None) -> Failure:
    """Why a payment failed; another try may help, unless the owner must act first."""
    return Failure(code=code, message=message or "The payment failed.", retryable=code not in ("authentication_required", "no_payment_method"))


@strawberry.type(description="A top-up and its place.")
class TopUpEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: TopUp = field(description="The top-up.")


@strawberry.type(description="A page of top-ups.")
class TopUpConnection:
    """A page of the list."""

    workspace_id: strawberry.Private[UUID]
    page: strawberry.Private[PageOf[TopUpView]]

    @resolved("The page.")
    def edges(self) -> list[TopUpEdge]:
        """Show the page."""
        return [TopUpEdge(cursor=pages.cursor("TopUp", each.id), node=TopUp.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[TopUp]:
        """Show the page."""
        return [TopUp.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("TopUp", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context, self.workspace_id))


@strawberry.type(description="Buying credit without asking whenever too little is left. One payment is under way at a time.")
class AutoTopUp:
    """As the contract has it."""

    enabled: bool = field(description="Whether it is on.")
    threshold: Money | None = field(description="It buys when `available` falls below this; null until set.")
    amount: Money | None = field(description="How much it buys each time; null until set.")
    daily_cap: Money | None = field(description="The most it buys in a calendar day; null until set.")
    cooldown_seconds: int = field(description="Seconds it waits after each try.")
    last_failure: Failure | None = field(description="Why the last try failed, for example because the bank wants the customer to confirm; null after a success.")
    view: strawberry.Private[AutoTopUpView]

    @resolved("The card it charges, for example `visa 4242`; null when none is saved at Stripe.")
    async def payment_method(self, info: Info) -> str | None:
        """Ask Stripe."""
        return await resolvers.paying_method(info.context, self.view.workspace_id)

    @resolved("The payment under way.")
    async def pending(self, info: Info) -> TopUp | None:
        """Read it."""
        found = await info.context.top_ups.load((self.view.workspace_id, self.view.pending_id)) if self.view.pending_id else None
        return TopUp.of(found) if found else None

    @classmethod
    def of(cls, view: AutoTopUpView) -> Self:
        """The settings as GraphQL shows them."""

        def money(microusd: int | None) -> Money | None:
            return None if microusd is None else Money.of(microusd)

        return cls(
            enabled=view.enabled,
            threshold=money(view.threshold),
            amount=money(view.amount),
            daily_cap=money(view.daily_cap),
            cooldown_seconds=view.cooldown_seconds,
            last_failure=failure(view.failure_code, view.failure_message) if view.failure_code else None,
            view=view,
        )


@strawberry.input(description="Input of autoTopUpUpdate. An absent field stays as it is.")
class AutoTopUpUpdateInput:
    """As the contract has it."""

    enabled: bool | None = field(description="Whether it is on.", default=strawberry.UNSET)
    threshold: MicroUsd | None = field(description="It buys when `available` falls below this.", default=strawberry.UNSET)
    amount: MicroUsd | None = field(description="How much it buys each time, in whole cents within `credits.topUpTerms`.", default=strawberry.UNSET)
    daily_cap: MicroUsd | None = field(description="The most it buys in a calendar day.", default=strawberry.UNSET)
    cooldown_seconds: int | None = field(description="Seconds it waits after each try, 60 or more.", default=strawberry.UNSET)

    def changes(self) -> AutoTopUpChanges:
        """What to change; null, like an absent field, changes nothing."""
        named = ("enabled", "threshold", "amount", "daily_cap", "cooldown_seconds")
        return AutoTopUpChanges(**{name: value for name in named if (value := getattr(self, name)) is not strawberry.UNSET})
