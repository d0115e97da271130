"""Turning a global ID back into the thing that it names."""

from domain.access.client_tokens import TokenView
from domain.access.end_users import EndUserView
from domain.access.keys import KeyView
from domain.access.members import MemberView
from domain.access.users import UserView
from domain.access.workspaces import WorkspaceView
from domain.apps.deployments import DeploymentView
from domain.apps.registry import AppView
from domain.audit import AuditEventView
from domain.money.catalogue import ModelView, PriceVersion
from domain.money.grants import GrantView
from domain.money.ledger import AccountView, TransferView
from domain.money.markup import RuleView as MarkupRuleView
from domain.money.reconciliations import ReconciliationView
from domain.money.renewals import InvoiceView
from domain.money.subscriptions import SubscriptionView
from domain.money.tiers import Tier as TierView
from domain.money.topups import DisputeView, RefundView, TopUpView
from domain.serving.receipts import Receipt as ReceiptView
from domain.serving.reratings import ReratingView
from domain.serving.upstreams import UpstreamView
from domain.usage.alerts import RuleView
from domain.usage.exports import ExportView
from domain.usage.records import RecordView
from domain.webhooks import DeliveryView, EndpointView
from resolvers import nodes as resolvers
from resolvers.nodes import Found
from schema import ids
from schema.alerts import AlertRule
from schema.apps import App
from schema.audit import AuditEvent
from schema.billing import TierSubscription
from schema.catalogue import Model, Price
from schema.client_tokens import ClientToken
from schema.context import Context
from schema.deployments import Deployment
from schema.end_users import EndUser
from schema.exports import Export
from schema.grants import Grant
from schema.invoices import Invoice
from schema.keys import ApiKey
from schema.ledger import LedgerAccount, Transfer
from schema.markup import MarkupRule
from schema.members import Member
from schema.nodes import Node
from schema.payments import Dispute, Refund
from schema.receipts import Attempt, Receipt
from schema.reconciliations import Reconciliation
from schema.records import UsageRecord
from schema.reratings import Rerating
from schema.tiers import Tier
from schema.topups import TopUp
from schema.upstreams import Upstream
from schema.users import User, visible
from schema.webhooks import WebhookDelivery, WebhookEndpoint
from schema.workspaces import Workspace


async def refetch(context: Context, global_id: str) -> Node | None:
    """The Node of a global ID; None for one that does not exist, may not be seen, or is no global ID."""
    named = ids.decode(global_id)
    found = await resolvers.find(context, *named) if named else None
    return shown(context, found) if found else None


def shown(context: Context, found: Found) -> Node:
    """A row as its GraphQL type."""
    match found:
        case KeyView():
            return ApiKey.of(found)
        case AppView():
            return App.of(found)
        case DeploymentView():
            return Deployment.of(found)
        case TokenView():
            return ClientToken.of(found)
        case EndUserView():
            return EndUser.of(found)
        case MemberView():
            return Member.of(found)
        case WorkspaceView():
            return Workspace.of(found)
        case UserView():
            return User.of(found, visible(context, found.id))
        case AccountView():
            return LedgerAccount.of(found)
        case TransferView():
            return Transfer.of(found)
        case ModelView():
            return Model.of(found)
        case RecordView():
            return UsageRecord.of(found)
        case TierView():
            return Tier.of(found)
        case PriceVersion():
            return Price.of(found)
        case MarkupRuleView():
            return MarkupRule.of(found)
        case ReratingView():
            return Rerating.of(found)
        case ReconciliationView():
            return Reconciliation.of(found)
        case ReceiptView():
            return Receipt.of(found)
        case (receipt, attempt):
            return Attempt.of(receipt, attempt)
        case TopUpView():
            return TopUp.of(found)
        case InvoiceView():
            return Invoice.of(found)
        case RefundView():
            return Refund.of(found)
        case DisputeView():
            return Dispute.of(found)
        case SubscriptionView():
            return TierSubscription.of(found)
        case GrantView():
            return Grant.of(found)
        case AuditEventView():
            return AuditEvent.of(found)
        case ExportView():
            return Export.of(found)
        case RuleView():
            return AlertRule.of(found)
        case EndpointView():
            return WebhookEndpoint.of(found)
        case DeliveryView():
            return WebhookDelivery.of(found)
        case UpstreamView():
            return Upstream.of(found)
