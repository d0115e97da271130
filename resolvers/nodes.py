"""Refetching: rows by type and key, each only for a caller who may see it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from uuid import UUID

from domain import audit, webhooks
from domain.access import client_tokens, members
from domain.access.client_tokens import TokenView
from domain.access.end_users import EndUserView
from domain.access.keys import KeyView
from domain.access.members import MemberView
from domain.access.users import UserView
from domain.access.workspaces import WorkspaceView
from domain.apps import deployments
from domain.apps.deployments import DeploymentView
from domain.apps.registry import AppView
from domain.audit import AuditEventView
from domain.errors import Refusal
from domain.money import ledger, markup, reconciliations
from domain.money.catalogue import ModelView, PriceVersion
from domain.money.grants import GrantView
from domain.money.ledger import AccountView, TransferView
from domain.money.markup import RuleView as MarkupRuleView
from domain.money.reconciliations import ReconciliationView
from domain.money.renewals import InvoiceView
from domain.money.subscriptions import SubscriptionView
from domain.money.tiers import Tier
from domain.money.topups import DisputeView, RefundView, TopUpView
from domain.serving import reratings
from domain.serving.receipts import AttemptView, Receipt
from domain.serving.reratings import ReratingView
from domain.serving.upstreams import UpstreamView
from domain.usage import alerts, exports
from domain.usage.alerts import RuleView
from domain.usage.exports import ExportView
from domain.usage.records import RecordView
from domain.webhooks import DeliveryView, EndpointView
from models.enums import LedgerAccountKind, Scope
from resolvers import billing, catalogue, payments, receipts, tiers, upstreams, workspaces
from resolvers.asking import Asking

Tried = tuple[Receipt, AttemptView]
Found = (
    KeyView
    | AppView
    | DeploymentView
    | TokenView
    | EndUserView
    | MemberView
    | WorkspaceView
    | UserView
    | AccountView
    | TransferView
    | TopUpView
    | RefundView
    | InvoiceView
    | DisputeView
    | ModelView
    | PriceVersion
    | MarkupRuleView
    | RecordView
    | Receipt
    | Tried
    | Tier
    | SubscriptionView
    | GrantView
    | RuleView
    | EndpointView
    | DeliveryView
    | ExportView
    | ReratingView
    | ReconciliationView
    | AuditEventView
    | UpstreamView
)
Find = Callable[[Asking, str], Awaitable[Found | None]]

WORKSPACES_OWN: Final = (LedgerAccountKind.CASH, LedgerAccountKind.GRANT, LedgerAccountKind.WALLET)


async def find(asking: Asking, kind: str, key: str) -> Found | None:
    """The row of a GraphQL type with this key; None when there is none, when it is another's, and when the caller lacks the scope."""
    finder = FINDERS.get(kind)
    if finder is None:
        return None
    try:
        return await finder(asking, key)
    except (Refusal, ValueError):
        return None


async def _key(asking: Asking, key: str) -> KeyView | None:
    return await asking.keys.load(UUID(key)) if asking.caller else None


async def _app(asking: Asking, key: str) -> AppView | None:
    return await asking.apps.load(UUID(key)) if asking.caller else None


async def _deployment(asking: Asking, key: str) -> DeploymentView | None:
    return await deployments.find(asking.known, UUID(key))


async def _client_token(asking: Asking, key: str) -> TokenView | None:
    return await client_tokens.find(asking.known, UUID(key))


async def _end_user(asking: Asking, key: str) -> EndUserView | None:
    return await asking.end_users.load(UUID(key)) if asking.caller else None


async def _member(asking: Asking, key: str) -> MemberView | None:
    return await members.find(asking.known, UUID(key))


async def _workspace(asking: Asking, key: str) -> WorkspaceView | None:
    here = await workspaces.current(asking)
    return next(
        (workspace for workspace in [*filter(None, [here]), *await workspaces.reachable(asking)] if workspace.id == UUID(key)), None
    )


async def _user(asking: Asking, key: str) -> UserView | None:
    return await asking.users.load(UUID(key)) if asking.known.user_id == UUID(key) else None


async def _account(asking: Asking, key: str) -> AccountView | None:
    asking.known.require(Scope.BILLING_READ)
    if UUID(key) in ledger.SERVICE_ACCOUNTS:
        return next((each for each in await ledger.service_accounts(asking.known) if each.id == UUID(key)), None)
    account = await asking.accounts.load((asking.known.workspace(), UUID(key)))
    return account if account and (account.kind in WORKSPACES_OWN or asking.known.operator) else None


async def _transfer(asking: Asking, key: str) -> TransferView | None:
    return (await ledger.find_transfers(asking.known, [UUID(key)])).get(UUID(key))


async def _record(asking: Asking, key: str) -> RecordView | None:
    return await asking.records.load(UUID(key))


async def _receipt(asking: Asking, key: str) -> Receipt | None:
    asking.known.require(Scope.USAGE_READ)
    return await receipts.receipt(asking, key)


async def _attempt(asking: Asking, key: str) -> Tried:
    asking.known.require(Scope.USAGE_READ)
    return await receipts.attempt(asking, UUID(key))


async def _model(asking: Asking, key: str) -> ModelView | None:
    return await catalogue.found(asking, key)


async def _tier(asking: Asking, key: str) -> Tier | None:
    return await tiers.of_slug(key)


async def _price(asking: Asking, key: str) -> PriceVersion | None:
    version = asking.facilities.book.price_by_id(UUID(key))
    return version if version and (version.upstream is None or asking.may(Scope.OPERATOR)) else None


async def _markup_rule(asking: Asking, key: str) -> MarkupRuleView | None:
    return await markup.find(asking.known, UUID(key))


async def _alert_rule(asking: Asking, key: str) -> RuleView | None:
    return await alerts.find(asking.known, UUID(key))


async def _webhook_endpoint(asking: Asking, key: str) -> EndpointView | None:
    return await webhooks.find(asking.known, UUID(key))


async def _webhook_delivery(asking: Asking, key: str) -> DeliveryView | None:
    return await webhooks.find_delivery(asking.known, UUID(key))


async def _top_up(asking: Asking, key: str) -> TopUpView | None:
    return await payments.top_up(asking, UUID(key))


async def _invoice(asking: Asking, key: str) -> InvoiceView | None:
    return await payments.invoice(asking, UUID(key))


async def _refund(asking: Asking, key: str) -> RefundView | None:
    return await payments.one_refund(asking, UUID(key))


async def _dispute(asking: Asking, key: str) -> DisputeView | None:
    return await payments.dispute(asking, UUID(key))


async def _subscription(asking: Asking, key: str) -> SubscriptionView | None:
    return await billing.subscription(asking, UUID(key))


async def _grant(asking: Asking, key: str) -> GrantView | None:
    return await billing.grant(asking, UUID(key))


async def _audit_event(asking: Asking, key: str) -> AuditEventView | None:
    return await audit.find(asking.known, UUID(key))


async def _export(asking: Asking, key: str) -> ExportView | None:
    return await exports.find(asking.known, UUID(key))


async def _rerating(asking: Asking, key: str) -> ReratingView | None:
    return await reratings.find(asking.known, UUID(key))


async def _reconciliation(asking: Asking, key: str) -> ReconciliationView | None:
    return await reconciliations.find(asking.known, UUID(key))


FINDERS: Final[Mapping[str, Find]] = {
    "ApiKey": _key,
    "App": _app,
    "Deployment": _deployment,
    "ClientToken": _client_token,
    "EndUser": _end_user,
    "Member": _member,
    "Workspace": _workspace,
    "User": _user,
    "LedgerAccount": _account,
    "Transfer": _transfer,
    "TopUp": _top_up,
    "Refund": _refund,
    "Invoice": _invoice,
    "Dispute": _dispute,
    "UsageRecord": _record,
    "Receipt": _receipt,
    "Attempt": _attempt,
    "Tier": _tier,
    "TierSubscription": _subscription,
    "Grant": _grant,
    "Model": _model,
    "Price": _price,
    "MarkupRule": _markup_rule,
    "Rerating": _rerating,
    "Reconciliation": _reconciliation,
    "Upstream": upstreams.named,
    "AlertRule": _alert_rule,
    "Export": _export,
    "AuditEvent": _audit_event,
    "WebhookEndpoint": _webhook_endpoint,
    "WebhookDelivery": _webhook_delivery,
}
