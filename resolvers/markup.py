"""Markup rules, for operators."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from domain.apps import registry
from domain.apps.registry import AppView
from domain.errors import NotFound
from domain.money import markup
from domain.money.markup import NewRule, RuleView
from domain.pages import Page, PageOf
from resolvers import catalogue
from resolvers.asking import Asking


async def page(asking: Asking, wanted: Page) -> PageOf[RuleView]:
    """A page of rules, newest first."""
    return await markup.page(asking.known, wanted)


async def count(asking: Asking) -> int:
    """How many rules there are."""
    return await markup.count(asking.known)


async def app(asking: Asking, app_id: UUID) -> AppView | None:
    """The app of a rule, in whichever workspace it is."""
    return await registry.anywhere(asking.known, app_id)


async def create(asking: Asking, new: NewRule) -> RuleView:
    """Make a rule, for a model by its own name; this process knows it at once, others within about a second."""
    if new.model is not None:
        model = await catalogue.found(asking, new.model)
        if model is None:
            raise NotFound("model", path=("model",))
        new = replace(new, model=model.name)
    made = await markup.create(asking.known, new)
    await asking.facilities.book.refresh()
    return made


async def end(asking: Asking, rule_id: UUID, until: datetime | None) -> RuleView:
    """End a rule."""
    ended = await markup.end(asking.known, rule_id, until)
    await asking.facilities.book.refresh()
    return ended
