"""What both documents with keys do alike: read a key's id, make a key, list them all."""

import contextlib
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.access import keys, secrets
from domain.access.callers import Caller
from domain.access.keys import KeyView, NewKey
from domain.errors import NotFound
from models.enums import ApiKeyKind, ApiKeyMode
from rest import lists
from rest.callers import credentials
from rest.doors import Ask


def parse_key_id(text: str) -> UUID:
    """Return the id in a path; raises NotFound for what is none, as for a key that is not there."""
    with contextlib.suppress(ValueError):
        parsed = UUID(text)
        if str(parsed) == text.lower():
            return parsed
    raise NotFound("key", path=("id",))


async def make_key(ask: Ask[Any], name: str | None, kind: ApiKeyKind | None = None, expires_at: datetime | None = None) -> tuple[KeyView, str]:
    """Make a key of the caller's own kind and mode where nothing else is said, and return it with its secret; raises as `keys.create`.

    `Idempotency-Key` makes a repeat with the same credential the same answer, secret and all.
    """
    caller, once = ask.caller, ask.idempotency_key
    shown = "\0".join(credentials(ask.headers, api_key_field=False))
    key, secret = await keys.create(
        caller,
        NewKey(
            name=name,
            kind=kind or caller.key_kind or ApiKeyKind.PAY_PER_TOKEN,
            mode=caller.key_mode or ApiKeyMode.LIVE,
            expires_at=expires_at,
            idempotency_key=once,
        ),
        seed=None if once is None else secrets.seed(ask.runtime.settings.secret.get_secret_value(), shown, once),
    )
    assert secret is not None, "without a seed every request makes a key, and with one the secret is made again"
    return key, secret


async def every_key(caller: Caller) -> list[KeyView]:
    """Return the workspace's keys, newest first, revoked and expired ones too."""
    return await lists.first(lambda page: keys.page(caller, page), lambda key: key.id)
