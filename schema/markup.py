"""Markup rules: what makes a charge of a list value."""

import datetime
from typing import Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.errors import InvalidInput, NotFound
from domain.money.markup import NewRule, RuleView
from domain.pages import PageOf
from resolvers import markup as resolvers
from resolvers import workspaces
from schema import ids, pages
from schema.apps import App
from schema.callers import Actor
from schema.catalogue import Model, model_named
from schema.context import Info
from schema.fields import resolved
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
    tier: Tier | None = field(description="The tier; null means all.")
    app: App | None = field(description="The app; null means all.")
    markup: Markup = field(description="The fraction.")
    effective_from: datetime.datetime = field(description="Since when it holds, inclusive.")
    effective_until: datetime.datetime | None = field(description="Until when it holds, exclusive; null until it is ended.")
    created_by: Actor = field(description="Who made it.")
    of_model: strawberry.Private[str | None]
    place: strawberry.Private[UUID | None]

    @resolved("The model; null means all.")
    def model(self, info: Info) -> Model | None:
        """Read it in the book."""
        return model_named(info, self.of_model)

    @resolved("The workspace; null means all.")
    async def workspace(self, info: Info) -> Workspace | None:
        """Load it."""
        return Workspace.of(await workspaces.of_event(info.context, self.place)) if self.place else None

    @classmethod
    def of(cls, rule: RuleView) -> Self:
        """The rule as GraphQL shows it."""
        return cls(
            id=ids.encode("MarkupRule", rule.id),
            tier=None,
            app=None,
            markup=Markup(numerator=rule.numerator, denominator=rule.denominator),
            effective_from=rule.effective_from,
            effective_until=rule.effective_until,
            created_by=Actor.of(rule.creator),
            of_model=rule.model,
            place=rule.workspace_id,
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
        """The rule to make; raises NotFound for what is no workspace's ID, InvalidInput for a tier or an app."""
        for name, given in (("tierId", self.tier_id), ("appId", self.app_id)):
            if given:
                raise InvalidInput("A rule holds for a model and a workspace; those of a tier or an app are not applied here.", path=(name,))
        workspace_id = ids.uuid_of("Workspace", self.workspace_id) if self.workspace_id else None
        if self.workspace_id and workspace_id is None:
            raise NotFound("workspace", path=("workspaceId",))
        return NewRule(self.numerator, self.denominator, self.idempotency_key, self.model or None, workspace_id, self.effective_from or None)


@strawberry.input(description="Input of markupRuleEnd.")
class MarkupRuleEndInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The rule.")
    effective_until: datetime.datetime | None = field(description="When it ends, not in the past; now when absent.", default=UNSET)
