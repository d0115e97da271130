"""API keys: made, used, rotated, revoked; and never a way around what their maker may do."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain import errors
from domain.access import callers, keys, secrets
from domain.access.callers import WORKSPACE_SCOPES, Caller, Whence
from domain.access.keys import DEFAULT_SCOPES, KeyChanges, KeyFilter, NewKey
from domain.access.limits import BoundInput
from domain.pages import Page
from models import database
from models.enums import ApiKeyKind, ApiKeyMode, ApiKeyStatus, Measure, Role, Scope
from models.ids import uuid7
from tests.access.sessions import NOBODY
from tests.conftest import Suite
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

BUDGET = BoundInput(Measure.MONEY, "day", 100)
LIMIT = BoundInput(Measure.CALLS, "1m", 5)


async def calling(secret: str) -> Caller:
    """Return who calls with a key, as every door learns it, from where every key of these tests may be used."""
    whence = Whence("https://a.example", "203.0.113.7")
    caller = await callers.identify(secret, None, sessions=NOBODY, open_signup=False, at=datetime.now(UTC), whence=whence)
    assert caller is not None
    return caller


async def works(secret: str) -> bool:
    """Tell whether a secret is believed now."""
    try:
        await callers.prove_key(secret)
        await calling(secret)
    except errors.Unauthenticated:
        return False
    return True


async def test_a_secret_is_shown_once_and_kept_nowhere(books: Suite) -> None:
    """A key's secret, and a rotated one, are in no column of any table; only SHA-256, prefix and the last four characters are."""
    mine = await tenant()
    key, first = await mine.mint(name="the key", idempotency_key="once", budgets=(BUDGET,))
    rotated, second = await keys.rotate(mine.caller(), key.id, 60)
    assert [secret.suffix for secret in rotated.secrets] == [second[-4:], first[-4:]]
    assert {secret.prefix for secret in rotated.secrets} == {"tg_live_"}
    assert [secret.fingerprint for secret in rotated.secrets] == [secrets.fingerprint(second), secrets.fingerprint(first)]
    tables = await database.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
    assert len(tables) > 20
    for row in tables:
        for secret in (first, second):
            assert not await database.fetch_value(f"""SELECT EXISTS (SELECT FROM "{row["relname"]}" t WHERE position($1 IN t::text) > 0)""", secret), row["relname"]


async def test_a_malformed_secret_is_refused_by_its_checksum() -> None:
    """Shape and checksum tell a leaked key from a look-alike: any one character changed is noticed."""
    secret = secrets.make(ApiKeyMode.LIVE)
    assert secrets.well_formed(secret)
    assert len(secret) == len("tg_live_") + 36
    for index in range(len(secret)):
        other = "A" if secret[index] != "A" else "B"
        assert not secrets.well_formed(secret[:index] + other + secret[index + 1 :])
    for look_alike in (secret[:-1], secret + "0", secret.replace("live", "test"), secret.upper(), secret + "\n", ""):
        assert not secrets.well_formed(look_alike)
    assert secrets.base62(3844, 6) == "000100"


async def test_both_secrets_work_until_the_grace_is_over(books: Suite) -> None:
    """F29: after a rotation the old and the new secret work until `works_until`, then only the new one; the key's id stays."""
    mine = await tenant()
    before = datetime.now(UTC)
    rotated, new = await keys.rotate(mine.caller(), mine.key.id, 3600)
    assert rotated.id == mine.key.id
    until = rotated.secrets[1].works_until
    assert until is not None
    assert timedelta(seconds=3599) < until - before < timedelta(seconds=3602)
    assert rotated.secrets[0].works_until is None
    assert (await works(mine.secret), await works(new)) == (True, True)
    await database.fetch("UPDATE api_key_secret SET works_until = clock_timestamp() WHERE hash = $1", secrets.fingerprint(mine.secret))
    assert (await works(mine.secret), await works(new)) == (False, True)


async def test_a_rotation_without_grace_ends_the_old_secret_at_once(books: Suite) -> None:
    """F29: grace 0 leaves only the new secret; a second rotation never lengthens the first one's grace."""
    mine = await tenant()
    _, second = await keys.rotate(mine.caller(), mine.key.id, 0)
    assert (await works(mine.secret), await works(second)) == (False, True)
    rotated, third = await keys.rotate(mine.caller(), mine.key.id, 3600)
    assert (await works(mine.secret), await works(second), await works(third)) == (False, True, True)
    assert [secret.works_until is None for secret in rotated.secrets] == [True, False, False]


@pytest.mark.parametrize("grace", [-1, 604_801])
async def test_a_grace_has_bounds(books: Suite, grace: int) -> None:
    """A grace is 0 to 604800 seconds."""
    mine = await tenant()
    with pytest.raises(errors.OutOfRange):
        await keys.rotate(mine.caller(), mine.key.id, grace)


async def test_concurrent_rotations_leave_one_lasting_secret(books: Suite) -> None:
    """Of ten rotations at once each returns a secret that works in its grace, and exactly one secret has no end."""
    mine = await tenant()
    made = await asyncio.gather(*(keys.rotate(mine.caller(), mine.key.id, 3600) for _ in range(10)))
    assert len({secret for _, secret in made}) == 10
    assert all(await asyncio.gather(*(works(secret) for _, secret in made)))
    found = await keys.find(mine.caller(), mine.key.id)
    assert sum(secret.works_until is None for secret in found.secrets) == 1
    assert len(found.secrets) == 11


async def test_a_revoked_key_is_over_at_once_and_for_good(books: Suite) -> None:
    """K1: when `revoke` returns, every secret of the key is dead, also those in their grace; it cannot be rotated or changed, and revoking again is no error."""
    mine = await tenant()
    _, second = await keys.rotate(mine.caller(), mine.key.id, 3600)
    revoked = await keys.revoke(mine.caller(), mine.key.id)
    assert revoked.status is ApiKeyStatus.REVOKED
    assert (await works(mine.secret), await works(second)) == (False, False)
    assert (await keys.revoke(mine.caller(), mine.key.id)).revoked_at == revoked.revoked_at
    for change in (keys.rotate(mine.caller(), mine.key.id), keys.update(mine.caller(), mine.key.id, KeyChanges(name="new"))):
        with pytest.raises(errors.InvalidState):
            await change


async def test_a_key_expires(books: Suite) -> None:
    """A key works until `expires_at`; one in the past is not made; an expired one can be given more time, but not be rotated."""
    mine = await tenant()
    with pytest.raises(errors.InvalidInput) as refusal:
        await keys.create(mine.caller(), NewKey(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert refusal.value.path == ("expiresAt",)
    key, secret = await mine.mint(expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert await works(secret)
    await database.fetch("UPDATE api_key SET expires_at = clock_timestamp() WHERE workspace_id = $1 AND id = $2", mine.workspace_id, key.id)
    assert not await works(secret)
    assert (await keys.find(mine.caller(), key.id)).status is ApiKeyStatus.EXPIRED
    with pytest.raises(errors.InvalidState):
        await keys.rotate(mine.caller(), key.id)
    await keys.update(mine.caller(), key.id, KeyChanges(expires_at=None))
    assert await works(secret)


async def test_a_key_is_made_once_for_each_idempotency_key(books: Suite) -> None:
    """M9: of twenty requests at once one makes the key and hears its secret, all hear the same key; another input under the key is a conflict."""
    mine = await tenant()
    made = await asyncio.gather(*(keys.create(mine.caller(), NewKey(name="one", idempotency_key="k1")) for _ in range(20)))
    assert len({key.id for key, _ in made}) == 1
    assert sum(secret is not None for _, secret in made) == 1
    with pytest.raises(errors.IdempotencyConflict):
        await keys.create(mine.caller(), NewKey(name="other", idempotency_key="k1"))
    with pytest.raises(errors.IdempotencyConflict):
        await keys.create(mine.caller(), NewKey(name="one", idempotency_key="k1", budgets=(BUDGET,)))
    other = await tenant()
    again, secret = await keys.create(other.caller(), NewKey(name="one", idempotency_key="k1"))
    assert secret is not None
    assert again.id != made[0][0].id


async def test_whoever_may_make_a_key_may_repeat_it(books: Suite) -> None:
    """M9: a repeat answers as the first did, also to a caller that may make keys and read none."""
    mine = await tenant()
    writer = replace(mine.caller(), scopes=frozenset({Scope.KEYS_WRITE, Scope.INFERENCE}))
    first, secret = await keys.create(writer, NewKey(idempotency_key="k-1"))
    again, nothing = await keys.create(writer, NewKey(idempotency_key="k-1"))
    assert (again, nothing) == (first, None)
    assert secret is not None


async def test_a_key_without_scopes_gets_the_documents_ones(books: Suite) -> None:
    """Scopes that are not named are those of a workspace key in the documents, cut down to the maker's own."""
    mine = await tenant()
    key, _ = await mine.mint()
    assert key.scopes == DEFAULT_SCOPES
    developer = replace(mine.caller(), role=Role.DEVELOPER, scopes=callers.ROLE_SCOPES[Role.DEVELOPER])
    narrow, _ = await keys.create(developer, NewKey())
    assert narrow.scopes == DEFAULT_SCOPES - {Scope.BILLING_READ, Scope.BILLING_WRITE}


MAKER_NARROWER: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("scopes", {"scopes": frozenset({Scope.KEYS_WRITE})}, {"scopes": frozenset({Scope.INFERENCE})}, "scopes"),
    ("operator", {}, {"scopes": frozenset({Scope.OPERATOR})}, "scopes"),
    ("kind", {"kind": ApiKeyKind.SUBSCRIPTION}, {"kind": ApiKeyKind.PAY_PER_TOKEN}, "kind"),
    ("mode", {"mode": ApiKeyMode.TEST}, {"mode": ApiKeyMode.LIVE}, "mode"),
    ("models", {"allowed_models": ("echo",)}, {"allowed_models": ("echo", "gpt-5.5")}, "allowedModels"),
    ("origins", {"allowed_origins": ("https://a.example",)}, {"allowed_origins": ("https://b.example",)}, "allowedOrigins"),
    ("addresses", {"allowed_addresses": ("203.0.113.0/24",)}, {"allowed_addresses": ("0.0.0.0/0",)}, "allowedAddresses"),
    ("expiry", {"expires_at": datetime(2030, 1, 1, tzinfo=UTC)}, {"expires_at": datetime(2030, 1, 2, tzinfo=UTC)}, "expiresAt"),
]


@pytest.mark.parametrize(("maker", "wanted", "path"), [row[1:] for row in MAKER_NARROWER], ids=[row[0] for row in MAKER_NARROWER])
async def test_a_key_makes_none_wider_than_itself(books: Suite, maker: dict[str, Any], wanted: dict[str, Any], path: str) -> None:
    """Whatever a key is restricted in, a key that it makes cannot have more of; nothing is made."""
    mine = await tenant()
    _, secret = await mine.mint(**({"scopes": DEFAULT_SCOPES} | maker))
    before = await keys.count(mine.caller(), KeyFilter())
    like: dict[str, Any] = {"scopes": frozenset({Scope.KEYS_WRITE}), "kind": ApiKeyKind.PAY_PER_TOKEN, "mode": ApiKeyMode.LIVE}
    asked = like | {name: value for name, value in maker.items() if name in ("kind", "mode")} | wanted
    with pytest.raises(errors.WiderThanCaller) as refusal:
        await keys.create(await calling(secret), NewKey(**asked))
    assert refusal.value.path == (path,)
    assert await keys.count(mine.caller(), KeyFilter()) == before


async def test_a_key_that_a_key_makes_inherits_its_restrictions(books: Suite) -> None:
    """What a new key does not name it takes from the key that makes it."""
    mine = await tenant()
    ends = datetime(2030, 1, 1, tzinfo=UTC)
    maker: dict[str, Any] = {"allowed_models": ("echo",), "allowed_origins": ("https://a.example",), "allowed_addresses": ("203.0.113.0/24",), "expires_at": ends}
    _, secret = await mine.mint(**maker)
    made, _ = await keys.create(await calling(secret), NewKey())
    assert (made.allowed_models, made.allowed_origins, made.allowed_addresses, made.expires_at) == (("echo",), ("https://a.example",), ("203.0.113.0/24",), ends)


@pytest.mark.parametrize("bounds", [{"budgets": (BUDGET,)}, {"limits": (LIMIT,)}])
async def test_a_key_with_bounds_makes_no_keys(books: Suite, bounds: dict[str, Any]) -> None:
    """A key with a budget or a limit can neither make keys nor change any, nor rotate another: each would be a way around its own bounds."""
    mine = await tenant()
    bounded, secret = await mine.mint(**bounds)
    caller = await calling(secret)
    for change in (
        keys.create(caller, NewKey()),
        keys.update(caller, bounded.id, KeyChanges(budgets=(), limits=())),
        keys.update(caller, mine.key.id, KeyChanges(name="mine now")),
    ):
        with pytest.raises(errors.WiderThanCaller):
            await change
    other, _ = await mine.mint()
    with pytest.raises(errors.WiderThanCaller):
        await keys.rotate(caller, other.id)
    rotated, new = await keys.rotate(caller, bounded.id)
    assert rotated.id == bounded.id
    assert await works(new)


ROTATED_WIDER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("scopes", {"scopes": frozenset({Scope.KEYS_WRITE})}, {"scopes": frozenset({Scope.KEYS_WRITE, Scope.INFERENCE})}),
    ("kind", {"kind": ApiKeyKind.SUBSCRIPTION}, {}),
    ("mode", {"mode": ApiKeyMode.TEST}, {}),
    ("models", {"allowed_models": ("echo",)}, {}),
    ("more models", {"allowed_models": ("echo",)}, {"allowed_models": ("echo", "gpt-5.5")}),
    ("origins", {"allowed_origins": ("https://a.example",)}, {}),
    ("addresses", {"allowed_addresses": ("203.0.113.0/24",)}, {}),
    ("expiry", {"expires_at": datetime(2030, 1, 1, tzinfo=UTC)}, {}),
]


@pytest.mark.parametrize(("caller", "wider"), [row[1:] for row in ROTATED_WIDER], ids=[row[0] for row in ROTATED_WIDER])
async def test_a_key_gets_no_secret_of_a_wider_one(books: Suite, caller: dict[str, Any], wider: dict[str, Any]) -> None:
    """Rotating returns a working secret, so a key rotates, and changes, only keys that are no wider than itself."""
    mine = await tenant()
    _, secret = await mine.mint(**({"scopes": DEFAULT_SCOPES} | caller))
    target, old = await mine.mint(**({"scopes": DEFAULT_SCOPES} | wider))
    for change in (keys.rotate(await calling(secret), target.id, 0), keys.update(await calling(secret), target.id, KeyChanges(name="taken over"))):
        with pytest.raises(errors.WiderThanCaller):
            await change
    found = await keys.find(mine.caller(), target.id)
    assert (len(found.secrets), found.name) == (1, None)
    assert await works(old)


CHANGES_WIDER: list[tuple[str, dict[str, Any], KeyChanges]] = [
    ("models", {"allowed_models": ("echo",)}, KeyChanges(allowed_models=None)),
    ("more models", {"allowed_models": ("echo",)}, KeyChanges(allowed_models=("echo", "gpt-5.5"))),
    ("origins", {"allowed_origins": ("https://a.example",)}, KeyChanges(allowed_origins=None)),
    ("addresses", {"allowed_addresses": ("203.0.113.0/24",)}, KeyChanges(allowed_addresses=None)),
    ("no expiry", {"expires_at": datetime(2030, 1, 1, tzinfo=UTC)}, KeyChanges(expires_at=None)),
    ("later expiry", {"expires_at": datetime(2030, 1, 1, tzinfo=UTC)}, KeyChanges(expires_at=datetime(2030, 1, 2, tzinfo=UTC))),
]


@pytest.mark.parametrize(("caller", "changes"), [row[1:] for row in CHANGES_WIDER], ids=[row[0] for row in CHANGES_WIDER])
async def test_a_key_widens_none_beyond_itself(books: Suite, caller: dict[str, Any], changes: KeyChanges) -> None:
    """A key cannot take its own restrictions off, nor another's that are like its own."""
    mine = await tenant()
    key, secret = await mine.mint(**caller)
    with pytest.raises(errors.WiderThanCaller):
        await keys.update(await calling(secret), key.id, changes)
    await keys.update(await calling(secret), key.id, KeyChanges(name="renamed"))


async def test_another_workspaces_key_does_not_exist(books: Suite) -> None:
    """F30: foreign keys are not found, in any operation, and a key never reaches another workspace by naming it."""
    mine, theirs = await tenant(), await tenant()
    for work in (
        keys.find(mine.caller(), theirs.key.id),
        keys.update(mine.caller(), theirs.key.id, KeyChanges(name="mine")),
        keys.rotate(mine.caller(), theirs.key.id),
        keys.revoke(mine.caller(), theirs.key.id),
    ):
        with pytest.raises(errors.NotFound):
            await work
    for header in (str(theirs.workspace_id), str(uuid7()), "no uuid"):
        with pytest.raises(errors.Forbidden):
            await callers.identify(mine.secret, header, sessions=NOBODY, open_signup=False, at=datetime.now(UTC))
    assert await works(theirs.secret)


async def test_scopes_are_asked_for(books: Suite) -> None:
    """Without KEYS_READ nothing is listed and without KEYS_WRITE nothing is changed; the refusal names the scope that is missing."""
    mine = await tenant()
    bare = replace(mine.caller(), scopes=WORKSPACE_SCOPES - {Scope.KEYS_READ, Scope.KEYS_WRITE})
    for work, scope in (
        (keys.page(bare, Page()), "KEYS_READ"),
        (keys.count(bare, KeyFilter()), "KEYS_READ"),
        (keys.create(bare, NewKey()), "KEYS_WRITE"),
        (keys.update(bare, mine.key.id, KeyChanges(name="x")), "KEYS_WRITE"),
        (keys.rotate(bare, mine.key.id), "KEYS_WRITE"),
        (keys.revoke(bare, mine.key.id), "KEYS_WRITE"),
    ):
        with pytest.raises(errors.MissingScope) as refusal:
            await work
        assert refusal.value.scopes == (scope,)


async def pages(mine: Tenant, size: int, *, backwards: bool) -> list[UUID]:
    """Walk the list of keys page by page."""
    seen: list[UUID] = []
    cursor: UUID | None = None
    while True:
        page = Page(size, before=cursor, backwards=True) if backwards else Page(size, after=cursor)
        found = await keys.page(mine.caller(), page)
        ids = [key.id for key in found.items]
        seen = ids + seen if backwards else seen + ids
        if not (found.has_previous if backwards else found.has_next):
            return seen
        cursor = ids[0] if backwards else ids[-1]


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_pages_show_every_key_once_newest_first(books: Suite, size: int) -> None:
    """F40: forwards and backwards, whatever the page's size, each key is seen once, newest first; revoked ones stay listed."""
    mine = await tenant()
    made = [mine.key.id, *[(await mine.mint(name=f"key {n}"))[0].id for n in range(6)]]
    await keys.revoke(mine.caller(), made[2])
    assert await pages(mine, size, backwards=False) == made[::-1]
    assert await pages(mine, size, backwards=True) == made[::-1]
    assert await keys.count(mine.caller(), KeyFilter(statuses=(ApiKeyStatus.REVOKED,))) == 1
    assert await keys.count(mine.caller(), KeyFilter(name_contains="KEY 4")) == 1


@pytest.mark.parametrize(
    ("new", "path"),
    [
        ({"name": " "}, ("name",)),
        ({"name": "x" * 201}, ("name",)),
        ({"name": "a\x00b"}, ("name",)),
        ({"allowed_models": ("",)}, ("allowedModels", "0")),
        ({"allowed_models": ("m",) * 101}, ("allowedModels",)),
        ({"allowed_origins": ("https://a.example/path",)}, ("allowedOrigins", "0")),
        ({"allowed_origins": ("https://a.example", "HTTPS://A.EXAMPLE")}, ("allowedOrigins", "1")),
        ({"allowed_addresses": ("203.0.113.1/24",)}, ("allowedAddresses", "0")),
        ({"idempotency_key": ""}, ("idempotencyKey",)),
        ({"idempotency_key": "k" * 256}, ("idempotencyKey",)),
    ],
)
async def test_a_malformed_key_is_refused_by_name(books: Suite, new: dict[str, Any], path: tuple[str, ...]) -> None:
    """What cannot be kept is refused, naming the field."""
    mine = await tenant()
    with pytest.raises(errors.InvalidInput) as refusal:
        await keys.create(mine.caller(), NewKey(**new))
    assert refusal.value.path == path
