"""Markup: what a list value is multiplied with to make the charge; a fraction, applied once, before microdollars are made of it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from domain import audit, idempotency
from domain.access.actors import Actor
from domain.errors import InvalidInput, InvalidState, NotFound, OutOfRange
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import ActorKind, Scope
from models.ids import uuid7

if TYPE_CHECKING:
    from domain.access.callers import Caller

LARGEST_TERM = 1_000_000
LARGEST_FACTOR = 100
"""Nobody charges a hundred times the list price; more is a slip of the pen."""


LIST = Fraction(1)
"""List price."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who makes a call, as rules see it: its workspace, the tiers that this was entitled to when the call was let in, and the app of its client token."""

    workspace_id: UUID
    tiers: frozenset[str] = frozenset()
    app_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule: it holds for `model`, `workspace_id`, `tier` (its slug) and `app_id`, None meaning all, from `effective_from` until before `effective_until`,
    None for ever.
    """

    id: UUID
    model: str | None
    workspace_id: UUID | None
    tier: str | None
    app_id: UUID | None
    numerator: int
    denominator: int
    effective_from: datetime
    effective_until: datetime | None
    creator: Actor
    created_at: datetime

    def holds(self, at: datetime) -> bool:
        """Tell whether it is in force at an instant."""
        return self.effective_from <= at and (self.effective_until is None or at < self.effective_until)

    def fits(self, standing: Standing) -> bool:
        """Tell whether it is for the calls of somebody."""
        return (
            self.workspace_id in (None, standing.workspace_id)
            and (self.tier is None or self.tier in standing.tiers)
            and self.app_id in (None, standing.app_id)
        )

    def charge(self, list_picousd: int) -> int:
        """Return what a list value is charged, rounded half to even once; picodollars."""
        return multiplied(list_picousd, self.numerator, self.denominator)

    @property
    def particularity(self) -> tuple[bool, bool, bool, bool, datetime, UUID]:
        """What makes one rule hold before another: an app before a workspace before a tier before a model, and then the newer."""
        return (self.app_id is not None, self.workspace_id is not None, self.tier is not None, self.model is not None, self.effective_from, self.id)


class Rules:
    """Every rule, in memory, as of its last `refresh`."""

    def __init__(self) -> None:
        self._rules: tuple[RuleView, ...] = ()
        self._stamp: tuple[object, ...] | None = None

    async def refresh(self) -> None:
        """Read what is new; one cheap statement when nothing is."""
        row = await database.fetch_row("SELECT count(*) AS rules, max(id::text) AS newest, count(effective_until) AS ended FROM markup_rule")
        assert row is not None
        if tuple(row) != self._stamp:
            self._rules = tuple(_view(each) for each in await database.fetch(f"SELECT {_COLUMNS} FROM markup_rule"))
            self._stamp = tuple(row)

    @property
    def empty(self) -> bool:
        """Whether there is no rule at all, as mostly."""
        return not self._rules

    def in_force(self, model: str, standing: Standing, at: datetime) -> RuleView | None:
        """Return the most particular rule for a call that was admitted `at` an instant; None when it is charged at list price."""
        if not self._rules:
            return None
        fitting = [rule for rule in self._rules if rule.model in (None, model) and rule.fits(standing) and rule.holds(at)]
        return max(fitting, key=lambda rule: rule.particularity, default=None)

    def factor(self, models: Collection[str], standing: Standing, at: datetime) -> Fraction:
        """Return the most that a call's list value may be multiplied with, at whichever of these models it is answered: what its hold covers."""
        if not self._rules:
            return LIST
        rules = [self.in_force(model, standing, at) for model in models]
        return max((LIST if rule is None else Fraction(rule.numerator, rule.denominator) for rule in rules), default=LIST)

    def asks(self, models: Collection[str], at: datetime) -> tuple[bool, bool]:
        """Tell what rules of these models look at: whose call it is, and on which tier that is. Most installations have none that do."""
        if not self._rules:
            return False, False
        holding = [rule for rule in self._rules if (rule.model is None or rule.model in models) and rule.holds(at)]
        tiers = any(rule.tier is not None for rule in holding)
        return tiers or any(rule.workspace_id is not None or rule.app_id is not None for rule in holding), tiers


def multiplied(list_picousd: int, numerator: int, denominator: int) -> int:
    """Return a list value times a fraction, rounded half to even once; picodollars."""
    return round(Fraction(list_picousd * numerator, denominator))


def most(picousd: int, factor: Fraction) -> int:
    """Return the most that a list value may be charged, in whole picodollars."""
    return picousd if factor is LIST or factor == LIST else -(-picousd * factor.numerator // factor.denominator)


_COLUMNS = "id, model, workspace_id, tier, app_id, numerator, denominator, effective_from, effective_until, creator_kind, creator_id, creator_name, created_at"


def _view(row: asyncpg.Record) -> RuleView:
    return RuleView(
        id=row["id"],
        model=row["model"],
        workspace_id=row["workspace_id"],
        tier=row["tier"],
        app_id=row["app_id"],
        numerator=row["numerator"],
        denominator=row["denominator"],
        effective_from=row["effective_from"],
        effective_until=row["effective_until"],
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        created_at=row["created_at"],
    )


@dataclass(frozen=True, slots=True)
class NewRule:
    """A rule to make; `model` is a model's own name, `tier` a slug. It holds from now on when `effective_from` is None."""

    numerator: int
    denominator: int
    idempotency_key: str
    model: str | None = None
    workspace_id: UUID | None = None
    effective_from: datetime | None = None
    tier: str | None = None
    app_id: UUID | None = None


async def create(caller: "Caller", new: NewRule) -> RuleView:
    """Make a rule, once for each idempotency key; operators only. Raises OutOfRange, InvalidInput, NotFound, IdempotencyConflict."""
    caller.require(Scope.OPERATOR)
    for name, term, least in (("numerator", new.numerator, 0), ("denominator", new.denominator, 1)):
        if not least <= term <= LARGEST_TERM:
            message = f"This is {least} to {LARGEST_TERM}."
            raise OutOfRange(message, minimum=least, maximum=LARGEST_TERM, too_large=term > LARGEST_TERM, path=(name,))
    if new.numerator > LARGEST_FACTOR * new.denominator:
        raise InvalidInput(f"A charge is at most {LARGEST_FACTOR} times the list price.", path=("numerator",))
    if new.effective_from is not None and new.effective_from < caller.at:
        raise InvalidInput("A rule begins now or later: what was charged stays explained.", path=("effectiveFrom",))
    rule_id = uuid7()
    async with database.transaction():
        given = [new.numerator, new.denominator, new.model, new.workspace_id, new.effective_from]
        given += [each for each in (new.tier, new.app_id) if each is not None]
        first = await idempotency.claim(audit.SERVICE, "markupRuleCreate", new.idempotency_key, given, rule_id)
        if first is not None:
            return await find(caller, first)
        if new.workspace_id and not await database.fetch_value("SELECT EXISTS (SELECT FROM workspace WHERE id = $1)", new.workspace_id):
            raise NotFound("workspace", path=("workspaceId",))
        if new.tier and not await database.fetch_value("SELECT EXISTS (SELECT FROM tier WHERE slug = $1 AND retired_at IS NULL)", new.tier):
            raise NotFound("tier", path=("tierId",))
        await _check_app(new)
        await database.fetch(
            """
            INSERT INTO markup_rule (id, model, workspace_id, numerator, denominator, effective_from, creator_kind, creator_id, creator_name, created_at, tier, app_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
            """,
            rule_id,
            new.model,
            new.workspace_id,
            new.numerator,
            new.denominator,
            new.effective_from or caller.at,
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            caller.at,
            new.tier,
            new.app_id,
        )
        told = {"model": new.model, "workspaceId": new.workspace_id, "tier": new.tier, "appId": new.app_id, "numerator": new.numerator, "denominator": new.denominator}
        await _note(caller, "markupRule.create", rule_id, {name: (None, value) for name, value in told.items() if value is not None})
    return await find(caller, rule_id)


async def _check_app(new: NewRule) -> None:
    if new.app_id is None:
        return
    owner = await database.fetch_value("SELECT workspace_id FROM app WHERE id = $1 AND deleted_at IS NULL", new.app_id)
    if owner is None:
        raise NotFound("app", path=("appId",))
    if new.workspace_id not in (None, owner):
        raise InvalidInput("The app is another workspace's: no call would ever meet this rule.", path=("appId",))


async def end(caller: "Caller", rule_id: UUID, until: datetime | None) -> RuleView:
    """End a rule, now or later; operators only. Raises NotFound, InvalidInput for the past, InvalidState for one that has an end already."""
    caller.require(Scope.OPERATOR)
    if until is not None and until < caller.at:
        raise InvalidInput("A rule ends now or later: what was charged stays explained.", path=("effectiveUntil",))
    async with database.transaction():
        ended = await database.fetch_row(
            "UPDATE markup_rule SET effective_until = greatest($2, effective_from) WHERE id = $1 AND effective_until IS NULL RETURNING effective_until",
            rule_id,
            until or caller.at,
        )
        if ended is None:
            await find(caller, rule_id)
            raise InvalidState("This rule has an end already.", state="ended", path=("id",))
        await _note(caller, "markupRule.end", rule_id, {"effectiveUntil": (None, ended["effective_until"])})
    return await find(caller, rule_id)


async def _note(caller: "Caller", action: str, rule_id: UUID, changes: audit.Changes) -> None:
    await audit.note(caller.actor, action, ("MarkupRule", rule_id), changes, workspace_id=audit.SERVICE, at=caller.at)


async def find(caller: "Caller", rule_id: UUID) -> RuleView:
    """Return one rule; operators only. Raises NotFound."""
    caller.require(Scope.OPERATOR)
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM markup_rule WHERE id = $1", rule_id)
    if row is None:
        raise NotFound("markup rule", path=("id",))
    return _view(row)


async def page(caller: "Caller", page: Page) -> PageOf[RuleView]:
    """Return a page of rules, newest first; operators only."""
    caller.require(Scope.OPERATOR)
    keyset = newest_first(page, offset=0)
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM markup_rule WHERE true {keyset.where} {keyset.order}", *keyset.arguments)
    return cut([_view(row) for row in rows], page)


async def count(caller: "Caller") -> int:
    """Return how many rules there are; operators only."""
    caller.require(Scope.OPERATOR)
    return int(await database.fetch_value("SELECT count(*) FROM markup_rule"))
