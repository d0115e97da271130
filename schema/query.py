"""The queries that are served."""

import asyncio
from typing import Annotated

import strawberry
from strawberry import UNSET

from domain.access.keys import KeyFilter
from domain.usage.records import RecordFilter
from models.enums import Scope
from resolvers import catalogue, keys, ledger, presets, tiers, workspaces
from resolvers import usage as usage_resolvers
from schema import pages, ranges, records
from schema.access import requires
from schema.alerting import AlertQueries
from schema.apps_roots import AppQueries
from schema.audit import AuditQueries
from schema.billing_roots import BillingQueries
from schema.catalogue import Filter, Model
from schema.context import Info
from schema.directives import PAGED, Cost, ListSize
from schema.enums import SortDirection
from schema.errors import unacceptable
from schema.exports_roots import ExportQueries
from schema.fields import resolved
from schema.keys import ApiKeyConnection, ApiKeyFilter
from schema.ledger import CreditAccount
from schema.nodes import Node
from schema.operator import Operator
from schema.presets import Preset
from schema.receipts import Receipt, receipt_of
from schema.records import UsageRecordConnection
from schema.refetch import refetch
from schema.service import RateLimit, Service
from schema.tiers import Tier
from schema.usage import UsageReport, report
from schema.workspaces import Viewer, Workspace

MOST_NODES = 100


@strawberry.type(
    description=(
        "Where every read begins. All fields are scoped to one workspace: the credential's, or the one the `X-Workspace-Id` header names."
    )
)
class Query(
    AlertQueries,
    AppQueries,
    BillingQueries,
    AuditQueries,
    ExportQueries,
):
    """Reads of the current workspace, and what is public."""

    @resolved("Refetch any Node. Null when it does not exist or the credential may not see it; the two are not told apart.")
    async def node(self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The global ID.")]) -> Node | None:
        """Find it."""
        return await refetch(info.context, id)

    @resolved(
        "Refetch up to 100 Nodes, in the order asked, with null in the place of each that is missing.",
        directives=[ListSize(assumed_size=MOST_NODES, require_one_slicing_argument=False)],
    )
    async def nodes(
        self, info: Info, ids: Annotated[list[strawberry.ID], strawberry.argument(description="The global IDs, 100 at most.")]
    ) -> list[Node | None]:
        """Find them."""
        if len(ids) > MOST_NODES:
            raise unacceptable(f"At most {MOST_NODES} IDs at once.")
        return await asyncio.gather(*(refetch(info.context, each) for each in ids))

    @resolved("Who is calling, with which credential; null without one.")
    def viewer(self, info: Info) -> Viewer | None:
        """Tell who calls."""
        return Viewer.of(info.context.caller) if info.context.caller else None

    @resolved("The workspace the call is scoped to; null without a credential.")
    async def workspace(self, info: Info) -> Workspace | None:
        """Read it."""
        workspace = await workspaces.current(info.context)
        return Workspace.of(workspace) if workspace else None

    @resolved(
        "API keys of the workspace, newest first. Requires scope `KEYS_READ`.", extensions=requires(Scope.KEYS_READ), directives=[PAGED]
    )
    async def api_keys(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        filter: Annotated[ApiKeyFilter | None, strawberry.argument(description="Only the keys that match.")] = UNSET,
    ) -> ApiKeyConnection | None:
        """Read a page of them."""
        wanted = filter.wanted() if filter else KeyFilter()
        page = await keys.page(info.context, pages.page_of("ApiKey", first, after, last, before), wanted)
        return ApiKeyConnection(page=page, filter_=wanted)

    @resolved(
        (
            "Metered usage of the workspace: totals, groups, time series and activity. Short for `workspace { usage }`. "
            "Requires scope `USAGE_READ`."
        ),
        extensions=requires(Scope.USAGE_READ),
        directives=[Cost(weight="5")],
    )
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> UsageReport | None:
        """Resolve the window; what is selected is measured."""
        return await report(info, range, timezone, filter)

    @resolved(
        (
            "Single metered calls, newest first: the request log. Members see their own; `USAGE_READ_ALL` shows "
            "everybody's.\n"
            "Requires scope `USAGE_READ`."
        ),
        extensions=requires(Scope.USAGE_READ),
        directives=[PAGED],
    )
    async def usage_records(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        filter: records.Filter = UNSET,
        order_by: records.Order = records.NEWEST_FIRST,
    ) -> UsageRecordConnection | None:
        """Read a page of them."""
        wanted = await filter.wanted(info) if filter else RecordFilter()
        page = pages.page_of("UsageRecord", first, after, last, before)
        found = await usage_resolvers.log(info.context, page, wanted, order_by.field, ascending=order_by.direction is SortDirection.ASC)
        return UsageRecordConnection(page=found, filter_=wanted)

    @resolved(
        "Prepaid credit: balance and ledger. Short for `workspace { credits }`. Requires scope `BILLING_READ`.",
        extensions=requires(Scope.BILLING_READ),
    )
    async def credits(self, info: Info) -> CreditAccount | None:
        """Read the balance."""
        workspace_id = info.context.known.workspace()
        return CreditAccount.of(workspace_id, await ledger.balance(info.context, workspace_id))

    @resolved(
        "How one call was admitted, relayed, metered, charged and paid. Requires scope `USAGE_READ`.", extensions=requires(Scope.USAGE_READ)
    )
    async def receipt(
        self,
        info: Info,
        call_id: Annotated[
            str, strawberry.argument(description="The call's ID, as a response header told it; its `X-Request-Id` does too.")
        ],
    ) -> Receipt | None:
        """Read it."""
        return await receipt_of(info, call_id)

    @resolved("Tool presets: the tuned Anthropic Messages routes. Public.")
    def presets(self, info: Info) -> list[Preset]:
        """Show them."""
        return [Preset.of(preset) for preset in presets.every(info.context)]

    @resolved("Tiers on sale, cheapest first. Public.")
    async def tiers(self) -> list[Tier]:
        """Read them."""
        return [Tier.of(tier) for tier in await tiers.on_sale()]

    @resolved("Models the gateway accepts, the `auto` alias first. Public.")
    async def models(self, info: Info, filter: Filter = UNSET) -> list[Model]:
        """Read the book."""
        capabilities = filter.capabilities if filter and isinstance(filter.capabilities, list) else None
        vendors = filter.vendors if filter and isinstance(filter.vendors, list) else None
        return [Model.of(model) for model in await catalogue.offered(info.context, capabilities, vendors)]

    @resolved("One model by its logical name or alias. Public.")
    async def model(
        self, info: Info, name: Annotated[str, strawberry.argument(description="The logical name or alias, for example `auto`.")]
    ) -> Model | None:
        """Read the book."""
        model = await catalogue.found(info.context, name)
        return Model.of(model) if model else None

    @resolved("What this very operation costs and what is left of the rate limit. Also in `extensions.cost` of every response.")
    def rate_limit(self, info: Info) -> RateLimit:
        """Tell what is left."""
        return RateLimit.of(info.context)

    @resolved("Everything, for the people who run the service. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR))
    def operator(self, info: Info) -> Operator | None:
        """What is below is read when it is asked for."""
        return Operator()

    @resolved("The running service: version and addresses. Public.")
    def service(self, info: Info) -> Service:
        """Describe it."""
        return Service.of(info.context)


PUBLIC = frozenset({"node", "nodes", "viewer", "workspace", "tiers", "models", "model", "presets", "rateLimit", "service"})
"""Fields that anybody may ask: public by the contract, or null for whoever may not see. Every other field of the roots is guarded."""
