"""Builders: a workspace with a key and credit, made through the domain as an operator's command makes them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from domain.access import keys, users, workspaces
from domain.access.callers import WORKSPACE_SCOPES, Actor, Caller
from domain.access.keys import KeyView, NewKey
from domain.money import ledger, subscriptions, tiers
from domain.money.ledger import Balance, Broken
from models.enums import ActorKind, Role, Scope

TESTS = Actor(ActorKind.SYSTEM, None, "tests")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A workspace, its owner, and a key of it that does everything a workspace may."""

    workspace_id: UUID
    owner: Caller
    owner_email: str
    key: KeyView
    secret: str

    @property
    def bearer(self) -> dict[str, str]:
        """The header that calls as this key."""
        return {"Authorization": f"Bearer {self.secret}"}

    async def balance(self) -> Balance:
        """Return the workspace's credit."""
        return await ledger.balance(self.workspace_id)

    async def mint(self, **new: Any) -> tuple[KeyView, str]:
        """Make another key as the owner."""
        key, secret = await keys.create(self.caller(), NewKey(**new))
        assert secret is not None
        return key, secret

    def caller(self, *scopes: Scope) -> Caller:
        """Return the owner as a caller now, with these scopes besides the owner's."""
        return Caller(
            at=datetime.now(UTC),
            workspace_id=self.workspace_id,
            name=self.owner.name,
            scopes=WORKSPACE_SCOPES | frozenset(scopes),
            role=Role.OWNER,
            user_id=self.owner.user_id,
        )


async def tenant(*, credit_microusd: int = 0, **new: Any) -> Tenant:
    """Make a workspace with an owner, a key and credit; `new` is the key's."""
    now = datetime.now(UTC)
    email = f"owner-{uuid4().hex[:12]}@example.com"
    person = await users.create("tallygate:local", email, "Olga Owner", operator=False, at=now)
    workspace = await workspaces.create_for(person.id, f"Workspace {email[6:18]}", "UTC", at=now)
    owner = Caller(at=now, workspace_id=workspace.id, name=person.display_name, scopes=WORKSPACE_SCOPES, role=Role.OWNER, user_id=person.id)
    key, secret = await keys.create(owner, NewKey(**({"name": "first", "scopes": WORKSPACE_SCOPES} | new)))
    assert secret is not None
    if credit_microusd:
        await ledger.give(workspace.id, credit_microusd, "credit of the test", f"start:{workspace.id}", TESTS)
    return Tenant(workspace.id, owner, email, key, secret)


async def operator_key(of: Tenant) -> str:
    """Make a key with scope OPERATOR in a workspace."""
    caller = Caller(at=datetime.now(UTC), workspace_id=of.workspace_id, name="Ophelia Operator", scopes=frozenset(Scope))
    _, secret = await keys.create(caller, NewKey(name="operator", scopes=frozenset(Scope)))
    assert secret is not None
    return secret


async def subscribed(of: Tenant, limits: list[dict[str, Any]], **tier: Any) -> str:
    """Give a workspace a tier of its own with these limits, from now on; return its slug."""
    slug = f"own-{uuid4().hex[:12]}"
    one = {"slug": slug, "name": "Own", "price_cents": 100, "limits": limits, **tier}
    await tiers.keep([*(await tiers.listed()), *tiers.tiers_of({"tier": [one]})], at=datetime.now(UTC))
    await subscriptions.grant(of.caller(Scope.OPERATOR), of.workspace_id, slug, "for the test", idempotency_key=slug)
    return slug


async def broken(of: Tenant) -> list[Broken]:
    """Return what is broken in the books of one workspace."""
    return [row for row in await ledger.audit() if row.workspace_id == of.workspace_id]
