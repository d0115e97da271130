"""Public tokens: an app whose manifest says so hands client tokens to whoever visits it. They stand on whoever switched that on, and end with them."""

import dataclasses
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.access import client_tokens
from domain.access.callers import Caller
from domain.access.client_tokens import NewToken, TokenView
from domain.apps import registry
from domain.apps.addresses import Addresses
from domain.apps.manifest import PUBLIC_TOKENS
from domain.apps.registry import AppView
from domain.errors import Forbidden, NotFound
from models import database
from models.enums import Scope


@dataclass(frozen=True, slots=True)
class PublicApp:
    """An app as its visitors' browsers ask it for tokens; `origins` are the only ones that may."""

    app: AppView
    origins: frozenset[str]

    @property
    def on(self) -> bool:
        """Whether it hands out tokens."""
        return self.app.manifest.get(PUBLIC_TOKENS) is True

    def require(self, origin: str | None) -> str:
        """Return the origin of a page that may have a token now; raises Forbidden, saying why, for any other."""
        if self.app.suspended_at is not None:
            raise Forbidden("This app is switched off by its owner.")
        if not self.on:
            raise Forbidden(f"This app hands out no public tokens: its manifest does not switch {PUBLIC_TOKENS} on.")
        if origin is None or origin not in self.origins:
            raise Forbidden("Public tokens are for pages of the app's own origins.")
        return origin


async def of(slug: str, addresses: Addresses) -> PublicApp:
    """Return the app of a name; raises NotFound."""
    app = await registry.shown(slug)
    if app is None:
        raise NotFound("app", path=("appId",))
    return PublicApp(app, frozenset((addresses.origin(slug), *app.manifest.get("allowedOrigins", ()))))


async def create(public: PublicApp, origin: str, addresses: Addresses, *, offered: Collection[str], at: datetime) -> TokenView:
    """Make a token for pages of one origin, with the models and caps of the manifest; raises Forbidden when nobody stands for it any more."""
    maker = await _maker(public.app, at)
    return await client_tokens.create(maker, NewToken(public.app.id, allowed_origins=(origin,)), addresses, offered=offered, audited=False)


async def _maker(app: AppView, at: datetime) -> Caller:
    """Return who switched the tokens on, as a caller who may make tokens and nothing else."""
    row = await database.fetch_row(
        """
        SELECT a.minter_kind, a.minter_id, a.minter_name FROM app a
          LEFT JOIN api_key k ON a.minter_kind = 'api_key' AND k.workspace_id = a.workspace_id AND k.id = a.minter_id AND k.revoked_at IS NULL
                AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()) AND k.scopes @> ARRAY['client_tokens_write', 'inference']
          LEFT JOIN member m ON a.minter_kind = 'user' AND m.workspace_id = a.workspace_id AND m.user_id = a.minter_id AND m.joined_at IS NOT NULL
                AND m.removed_at IS NULL AND m.role IN ('owner', 'admin', 'developer')
         WHERE a.workspace_id = $1 AND a.id = $2 AND (k.id IS NOT NULL OR m.id IS NOT NULL)
        """,
        app.workspace_id,
        app.id,
    )
    if row is None:
        raise Forbidden("Whoever switched the public tokens of this app on may not make tokens any more: its owner has to save the manifest again.")
    maker = Caller(at=at, workspace_id=app.workspace_id, name=row["minter_name"], scopes=frozenset({Scope.CLIENT_TOKENS_WRITE}))
    who: UUID = row["minter_id"]
    return dataclasses.replace(maker, key_id=who) if row["minter_kind"] == "api_key" else dataclasses.replace(maker, user_id=who)


def counted_as(public: PublicApp, address: str | None) -> str:
    """Return the name under which the tokens of an address are counted: that of the whole network that one subscriber has in IPv6."""
    if address is None:
        return f"{public.app.id}:"
    network = ipaddress.ip_network(address)
    return f"{public.app.id}:{network.supernet(new_prefix=64) if network.version == 6 else network}"
