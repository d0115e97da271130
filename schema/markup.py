"""Markup rules: what makes a charge of a list value."""

import datetime
from typing import Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.errors import NotFound
from domain.money.markup import NewRule, RuleView
from domain.pages import PageOf
from resolvers import markup as resolvers
from resolvers import tiers, workspaces
from schema import ids, pages
from schema.apps import App
from schema.apps_roots import row
from schema.callers import Actor
from schema.catalogue import Model, model_named
from schema.context import Info
from schema.fields import resolved
from schema.inputs import given
from schema.nodes import Node
from schema.receipts import Markup
from schema.scalars import SafeInt
from schema.tiers import Tier
from schema.workspaces import Workspace


@strawberry.type(
    description=(
        "What a list value is multiplied with to make the charge. The most particular rule in force holds: app before workspace before tier, "
        "and a model's before all models'. A rule never changes; it is ended and another is made."
    )
)
class MarkupRule(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    markup: Markup = field(description="The fraction.")
    effective_from: datetime.datetime = field(description="Since when it holds, inclusive.")
    effective_until: datetime.datetime | None = field(description="Until when it holds, exclusive; null until it is ended.")
    created_by: Actor = field(description="Who made it.")
    of_model: strawberry.Private[str | None]
    place: strawberry.Private[UUID | None]
    of_tier: strawberry.Private[str | None]
    of_app: strawberry.Private[UUID | None]

    @resolved("The model; null means all.")
    def model(self, info: Info) -> Model | None:
        """Read it in the book."""
        return model_named(info, self.of_model)

    @resolved("The workspace; null means all.")
    async def workspace(self, info: Info) -> Workspace | None:
        """Load it."""
        return Workspace.of(await workspaces.of_event(info.context, self.place)) if self.place else None

    @resolved("The tier; null means all.")
    async def tier(self) -> Tier | None:
        """Read it, a retired one too."""
        found = await tiers.of_slug(self.of_tier) if self.of_tier else None
        return Tier.of(found) if found else None

    @resolved("The app; null means all.")
    async def app(self, info: Info) -> App | None:
        """Load it, a deleted one too."""
        found = await resolvers.app(info.context, self.of_app) if self.of_app else None
        return App.of(found) if found else None

    @classmethod
    def of(cls, rule: RuleView) -> Self:
        """The rule as GraphQL shows it."""
        return cls(
            id=ids.encode("MarkupRule", rule.id),
            markup=Markup(numerator=rule.numerator, denominator=rule.denominator),
            effective_from=rule.effective_from,
            effective_until=rule.effective_until,
            created_by=Actor.of(rule.creator),
            of_model=rule.model,
            place=rule.workspace_id,
            of_tier=rule.tier,
            of_app=rule.app_id,
        )


@strawberry.type(description="A markup rule and its place.")
class MarkupRuleEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: MarkupRule = field(description="The markup rule.")


@strawberry.type(description="A page of markup rules.")
class MarkupRuleConnection:
    """A page of markup rules."""

    page: strawberry.Private[PageOf[RuleView]]

    @resolved("The page.")
    def edges(self) -> list[MarkupRuleEdge]:
        """Show the page."""
        return [MarkupRuleEdge(cursor=pages.cursor("MarkupRule", rule.id), node=MarkupRule.of(rule)) for rule in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[MarkupRule]:
        """Show the page."""
        return [MarkupRule.of(rule) for rule in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("MarkupRule", self.page, [rule.id for rule in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context))


@strawberry.input(description="Input of markupRuleCreate.")
class MarkupRuleCreateInput:
    """As the contract has it."""

    model: str | None = field(description="The model, by name; all when absent.", default=UNSET)
    tier_id: strawberry.ID | None = field(description="The tier; all when absent.", default=UNSET)
    workspace_id: strawberry.ID | None = field(description="The workspace; all when absent.", default=UNSET)
    app_id: strawberry.ID | None = field(description="The app; all when absent.", default=UNSET)
    numerator: int = field(description="The numerator, 0 or more.")
    denominator: int = field(description="The denominator, 1 or more.", default=1)
    effective_from: datetime.datetime | None = field(
        description="Since when it holds, not in the past; now when absent.", default=UNSET
    )
    idempotency_key: str = field(description="Makes a retry make it once.")

    def new(self) -> NewRule:
        """The rule to make; raises NotFound for what is no ID of its kind."""
        tier_id, workspace_id, app_id = given(self.tier_id), given(self.workspace_id), given(self.app_id)
        tier = None if tier_id is None else ids.decode(tier_id)
        if tier_id is not None and (tier is None or tier[0] != "Tier"):
            raise NotFound("tier", path=("tierId",))
        return NewRule(
            self.numerator,
            self.denominator,
            self.idempotency_key,
            given(self.model),
            None if workspace_id is None else row("Workspace", workspace_id, "workspace", "workspaceId"),
            self.effective_from or None,
            tier[1] if tier else None,
            None if app_id is None else row("App", app_id, "app", "appId"),
        )


@strawberry.input(description="Input of markupRuleEnd.")
class MarkupRuleEndInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The rule.")
    effective_until: datetime.datetime | None = field(description="When it ends, not in the past; now when absent.", default=UNSET)
