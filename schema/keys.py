"""API keys and their secrets."""

import datetime
from collections.abc import Iterable
from typing import Self, TypeVar

import strawberry
from strawberry import UNSET, field

from domain.access.keys import UNSET as UNCHANGED
from domain.access.keys import KeyChanges, KeyFilter, KeyView, NewKey, SecretView, Unset
from domain.pages import PageOf
from models import enums
from models.enums import Scope
from resolvers import keys as resolvers
from schema import ids, pages, ranges
from schema.access import requires
from schema.callers import Actor
from schema.catalogue import Model, models_named
from schema.context import Info
from schema.fields import resolved
from schema.inputs import given
from schema.limits import BudgetInput, Limited, LimitInput, bounds, limit_bounds
from schema.nodes import Node
from schema.scalars import SafeInt
from schema.sources import Report, UsageSource

V = TypeVar("V")


@strawberry.type(description="One secret of a key. Only its hash is kept.")
class ApiKeySecret:
    """As the contract has it."""

    prefix: str = field(description="The recognisable start.")
    suffix: str = field(description="The last four characters.")
    fingerprint: str = field(description="SHA-256 in hex.")
    created_at: datetime.datetime = field(description="When it was made.")
    works_until: datetime.datetime | None = field(
        description="When it stops, or stopped, working because a newer one replaced it; null for the newest."
    )
    last_used_at: datetime.datetime | None = field(description="When it was last used, to within a minute.")

    @classmethod
    def of(cls, secret: SecretView) -> Self:
        """The secret as GraphQL shows it."""
        return cls(
            prefix=secret.prefix,
            suffix=secret.suffix,
            fingerprint=secret.fingerprint,
            created_at=secret.created_at,
            works_until=secret.works_until,
            last_used_at=secret.last_used_at,
        )


@strawberry.type(description="A key that calls the API. Its secret is shown once, when it is made; only a hash is kept.")
class ApiKey(Node, UsageSource, Limited):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    name: str | None = field(description="The display name.")
    kind: enums.ApiKeyKind = field(description="What it pays with, and so which routes it reaches.")
    mode: enums.ApiKeyMode = field(description="Whether its calls are real.")
    status: enums.ApiKeyStatus = field(description="Whether it works.")
    scopes: list[enums.Scope] = field(description="What it may do.")
    prefix: str = field(description="The recognisable start of the newest secret: `tg_live_` or `tg_test_`.")
    suffix: str = field(description="The last four characters of the newest secret.")
    fingerprint: str = field(description="SHA-256 of the newest secret in hex, to find a leaked key without showing one.")
    secrets: list[ApiKeySecret] = field(
        description="Every secret it ever had, newest first: rotation keeps the key, its bounds and its usage."
    )
    allowed_origins: list[str] | None = field(description="Browser origins it may be used from; null means all.")
    allowed_addresses: list[str] | None = field(description="Addresses it may be used from, in CIDR notation; null means all.")
    created_by: Actor = field(description="Who made it.")
    created_at: datetime.datetime = field(description="When it was made.")
    last_used_at: datetime.datetime | None = field(description="When it was last used, to within a minute.")
    expires_at: datetime.datetime | None = field(description="When it stops working; null means never.")
    revoked_at: datetime.datetime | None = field(description="When it was revoked.")
    model_names: strawberry.Private[tuple[str, ...] | None]

    @resolved("Models it may call; null means all.")
    def allowed_models(self, info: Info) -> list[Model] | None:
        """Read them in the book."""
        return models_named(info, self.model_names)

    @resolved("The usage attributed to it. Requires scope `USAGE_READ`.", extensions=requires(Scope.USAGE_READ))
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> Report | None:
        """Resolve the window; what is selected is measured, the totals of many keys at once."""
        from schema.usage import report

        return await report(info, range, timezone, filter, of_key=self.subject_id)

    @classmethod
    def of(cls, key: KeyView) -> Self:
        """The key as GraphQL shows it."""
        newest = key.secrets[0]
        return cls(
            id=ids.encode("ApiKey", key.id),
            subject_id=key.id,
            name=key.name,
            kind=key.kind,
            mode=key.mode,
            status=key.status,
            scopes=[scope for scope in enums.Scope if scope in key.scopes],
            prefix=newest.prefix,
            suffix=newest.suffix,
            fingerprint=newest.fingerprint,
            secrets=[ApiKeySecret.of(secret) for secret in key.secrets],
            allowed_origins=_list(key.allowed_origins),
            allowed_addresses=_list(key.allowed_addresses),
            created_by=Actor.of(key.creator),
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            model_names=key.allowed_models,
        )


def _list(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


@strawberry.type(description="An API key and its place.")
class ApiKeyEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: ApiKey = field(description="The key.")


@strawberry.type(description="A page of API keys.")
class ApiKeyConnection:
    """A page of keys."""

    page: strawberry.Private[PageOf[KeyView]]
    filter_: strawberry.Private[KeyFilter]

    @resolved("The page.")
    def edges(self) -> list[ApiKeyEdge]:
        """Show the page."""
        return [ApiKeyEdge(cursor=pages.cursor("ApiKey", key.id), node=ApiKey.of(key)) for key in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[ApiKey]:
        """Show the page."""
        return [ApiKey.of(key) for key in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("ApiKey", self.page, [key.id for key in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context, self.filter_))


@strawberry.input(description="Narrows a list of keys.")
class ApiKeyFilter:
    """As the contract has it."""

    statuses: list[enums.ApiKeyStatus] | None = field(description="Whether they work. All, when absent.", default=strawberry.UNSET)
    kinds: list[enums.ApiKeyKind] | None = field(description="What they pay with.", default=strawberry.UNSET)
    name_contains: str | None = field(description="Part of the name.", default=strawberry.UNSET)

    def wanted(self) -> KeyFilter:
        """The filter as the domain takes it."""
        return KeyFilter(_tuple(self.statuses), _tuple(self.kinds), self.name_contains or None)


@strawberry.input(description="Input of apiKeyCreate.")
class ApiKeyCreateInput:
    """As the contract has it."""

    name: str | None = field(description="The display name.", default=strawberry.UNSET)
    kind: enums.ApiKeyKind = field(description="What it pays with.", default=enums.ApiKeyKind.PAY_PER_TOKEN)
    mode: enums.ApiKeyMode = field(description="Whether its calls are real.", default=enums.ApiKeyMode.LIVE)
    scopes: list[enums.Scope] | None = field(
        description="What it may do, never more than the caller; when absent, everything that a workspace key does.",
        default=strawberry.UNSET,
    )
    allowed_models: list[str] | None = field(description="Models it may call, by name; all when absent.", default=strawberry.UNSET)
    allowed_origins: list[str] | None = field(description="Browser origins it may be used from; all when absent.", default=strawberry.UNSET)
    allowed_addresses: list[str] | None = field(
        description="Addresses it may be used from, in CIDR notation; all when absent.", default=strawberry.UNSET
    )
    budgets: list[BudgetInput] = field(description="What it may spend.", default_factory=list)
    limits: list[LimitInput] = field(description="How much it may call.", default_factory=list)
    expires_at: datetime.datetime | None = field(description="When it stops working; never when absent.", default=strawberry.UNSET)
    idempotency_key: str | None = field(
        description="Makes a retry return the first key, without its secret, instead of another.", default=strawberry.UNSET
    )

    def new(self) -> NewKey:
        """The key to make; raises InvalidInput."""
        return NewKey(
            name=self.name or None,
            kind=self.kind,
            mode=self.mode,
            scopes=frozenset(self.scopes) if isinstance(self.scopes, list) else None,
            allowed_models=_tuple(self.allowed_models),
            allowed_origins=_tuple(self.allowed_origins),
            allowed_addresses=_tuple(self.allowed_addresses),
            budgets=bounds(self.budgets),
            limits=limit_bounds(self.limits),
            expires_at=self.expires_at or None,
            idempotency_key=given(self.idempotency_key),
        )


@strawberry.input(description="Input of apiKeyUpdate. An absent field stays as it is; null clears it.")
class ApiKeyUpdateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The key.")
    name: str | None = field(description="The display name.", default=strawberry.UNSET)
    allowed_models: list[str] | None = field(description="Models it may call, by name; null means all.", default=strawberry.UNSET)
    allowed_origins: list[str] | None = field(description="Browser origins it may be used from; all when null.", default=strawberry.UNSET)
    allowed_addresses: list[str] | None = field(
        description="Addresses it may be used from, in CIDR notation; all when null.", default=strawberry.UNSET
    )
    budgets: list[BudgetInput] | None = field(description="What it may spend; replaces the old list.", default=strawberry.UNSET)
    limits: list[LimitInput] | None = field(description="How much it may call; replaces the old list.", default=strawberry.UNSET)
    expires_at: datetime.datetime | None = field(description="When it stops working; null means never.", default=strawberry.UNSET)

    def changes(self) -> KeyChanges:
        """What to change; raises InvalidInput. A list of bounds that is null is as good as an empty one."""
        return KeyChanges(
            name=_given(self.name),
            allowed_models=_change(self.allowed_models),
            allowed_origins=_change(self.allowed_origins),
            allowed_addresses=_change(self.allowed_addresses),
            budgets=UNCHANGED if self.budgets is strawberry.UNSET else bounds(self.budgets or ()),
            limits=UNCHANGED if self.limits is strawberry.UNSET else limit_bounds(self.limits or ()),
            expires_at=_given(self.expires_at),
        )


@strawberry.input(description="Input of apiKeyRotate.")
class ApiKeyRotateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The key.")
    grace_seconds: int = field(description="Seconds for which the old secret still works, 0 to 604800.", default=86400)


@strawberry.input(description="Input of apiKeyRevoke.")
class ApiKeyRevokeInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The key.")


def _tuple(values: Iterable[V] | None) -> tuple[V, ...] | None:
    return tuple(values) if isinstance(values, list) else None


def _change(values: list[str] | None) -> tuple[str, ...] | Unset | None:
    return UNCHANGED if values is strawberry.UNSET else _tuple(values)


def _given(value: V | None) -> V | Unset | None:
    return UNCHANGED if value is strawberry.UNSET else value
