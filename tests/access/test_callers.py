"""Who calls: sessions of the local issuer and of OIDC issuers, and what their people may do."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from clients.issuers import KEYS_SECONDS, LOCAL_ISSUER, Issuer, Issuers, _local_key, local_session
from configuration import load_configuration
from domain import errors
from domain.access import callers, members, users, workspaces
from domain.access.callers import ROLE_SCOPES, WORKSPACE_SCOPES, Caller
from domain.errors import Forbidden, Unauthenticated, Unavailable
from models import database
from models.enums import Role, Scope
from models.ids import uuid7
from tests.access import jwks
from tests.access.jwks import AUDIENCE, IssuerServer
from tests.conftest import SECRET, Suite
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

LOCAL = Issuers([], local_secret=SECRET)


async def identify(token: str, *, sessions: Issuers = LOCAL, workspace: object = None, open_signup: bool = False) -> Caller:
    """Return who calls with a token, as every door learns it."""
    header = None if workspace is None else str(workspace)
    caller = await callers.identify(token, header, sessions=sessions, open_signup=open_signup, at=datetime.now(UTC))
    assert caller is not None
    return caller


def local(email: str, **changes: Any) -> str:
    """Sign a token as the local issuer would, with other claims."""
    now = datetime.now(UTC)
    claims = {"iss": LOCAL_ISSUER, "sub": email, "email": email, "email_verified": True, "iat": now, "exp": now + timedelta(hours=1)} | changes
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, _local_key(SECRET), algorithm="HS256")


async def test_a_local_session_is_the_person_it_names(books: Suite) -> None:
    """A session of `manage.py login` is its person, in the own workspace, with the owner's rights and never an operator's."""
    mine = await tenant()
    caller = await identify(local_session(SECRET, mine.owner_email.upper(), None, at=datetime.now(UTC)))
    assert (caller.user_id, caller.workspace_id, caller.role) == (mine.owner.user_id, mine.workspace_id, Role.OWNER)
    assert caller.scopes == WORKSPACE_SCOPES
    assert not caller.operator
    assert caller.key_id is None
    assert await callers.identify(None, None, sessions=LOCAL, open_signup=False, at=datetime.now(UTC)) is None


async def test_a_forged_local_session_is_not_believed(books: Suite) -> None:
    """Expired, of the future, without needed claims, of another secret, unsigned, of another algorithm, changed, absurd: none is believed, and none says why."""
    now, email = datetime.now(UTC), "someone@example.com"
    genuine = local(email)
    head, body, signature = genuine.split(".")
    unsigned = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    other = base64.urlsafe_b64encode(json.dumps({"iss": LOCAL_ISSUER, "sub": "boss@example.com", "iat": 1, "exp": 9**12}).encode()).rstrip(b"=").decode()
    forged = [
        local(email, exp=now - timedelta(minutes=1)),
        local(email, iat=now + timedelta(hours=1)),
        local(email, nbf=now + timedelta(hours=1)),
        local(email, exp=None),
        local(email, iat=None),
        local(email, sub=None),
        local(email, sub=""),
        local(email, sub="x" * 401),
        local(email, sub="a\x00b"),
        local(email, exp="soon"),
        local(email, exp=now + timedelta(days=32)),
        local(email, exp=10**400),
        local(email, iss="https://elsewhere.example"),
        jwt.PyJWS().encode(json.dumps({"iss": [LOCAL_ISSUER], "sub": email, "iat": 1, "exp": 9**12}).encode(), _local_key(SECRET), algorithm="HS256"),
        jwt.PyJWS().encode(json.dumps({"iss": LOCAL_ISSUER, "sub": {"a": 1}, "iat": 1, "exp": 9**12}).encode(), _local_key(SECRET), algorithm="HS256"),
        jwt.PyJWS().encode(b"[]", _local_key(SECRET), algorithm="HS256"),
        jwt.PyJWS().encode(b"\xff\xfe", _local_key(SECRET), algorithm="HS256"),
        jwt.encode({"iss": LOCAL_ISSUER, "sub": email, "iat": now, "exp": now + timedelta(hours=1)}, b"x" * 32, algorithm="HS256"),
        jwt.encode({"iss": LOCAL_ISSUER, "sub": email, "iat": now, "exp": now + timedelta(hours=1)}, _local_key(SECRET) * 2, algorithm="HS512"),
        f"{unsigned}.{body}.",
        f"{unsigned}.{body}.{signature}",
        f"{head}.{other}.{signature}",
        genuine[:-6] + "AAAAAA",
        genuine + ".x",
        "a.b.c",
        "..",
        "no token",
        "x" * 20_000,
        "x" * 9_000 + "." + "y" * 9_000 + ".z",
    ]
    heard = await asyncio.gather(*(LOCAL.verify(token) for token in forged), return_exceptions=True)
    assert [place for place, answer in enumerate(heard) if not isinstance(answer, Unauthenticated)] == []
    assert len({str(answer) for answer in heard}) == 1
    with pytest.raises(Unauthenticated):
        await Issuers([], local_secret=None).verify(genuine)
    assert (await LOCAL.verify(genuine)).subject == email
    assert (await LOCAL.verify(local(email, exp=now - timedelta(seconds=10)))).subject == email, "clocks may differ by half a minute"


@pytest.fixture(params=["RS256", "EdDSA"])
async def issuer(request: pytest.FixtureRequest) -> AsyncIterator[IssuerServer]:
    """A running issuer with one key, `k1`."""
    async with jwks.serve(request.param) as running:
        yield running


def believing(issuer: IssuerServer, audience: str | None = AUDIENCE) -> Issuers:
    """Return what a process that believes this issuer has."""
    return Issuers([Issuer(issuer.url, audience, issuer.algorithm, None)], local_secret=None)


async def test_a_token_of_an_issuer_is_believed(books: Suite, issuer: IssuerServer) -> None:
    """Genuine tokens of a configured issuer name their subject; keys are fetched once for all, however many come at once."""
    sessions = believing(issuer)
    claims = await asyncio.gather(*(sessions.verify(issuer.token("k1", sub=f"user_{n}", email="Nina@Example.com", email_verified=True, name="Nina")) for n in range(20)))
    assert [said.subject for said in claims] == [f"user_{n}" for n in range(20)]
    assert {(said.issuer, said.email, said.email_verified, said.name) for said in claims} == {(issuer.url, "Nina@Example.com", True, "Nina")}
    assert issuer.fetched == 1


async def test_an_unknown_key_id_asks_the_issuer_once_a_minute(books: Suite, issuer: IssuerServer) -> None:
    """Random key ids cannot make us hammer an issuer: a hundred of them ask it not once more within the minute."""
    sessions = believing(issuer)
    await sessions.verify(issuer.token("k1"))
    key = issuer.keys["k1"]
    heard = await asyncio.gather(*(sessions.verify(issuer.token(f"random-{n}", key=key)) for n in range(100)), return_exceptions=True)
    assert {type(answer) for answer in heard} == {Unauthenticated}
    assert issuer.fetched == 1
    assert (await sessions.verify(issuer.token("k1"))).subject == "user_1"


async def test_a_first_unknown_key_id_is_looked_up(books: Suite, issuer: IssuerServer) -> None:
    """A key that an issuer has begun to use is found when its first token comes, and an older one that it dropped is over with that."""
    sessions = believing(issuer)
    issuer.add("k2")
    assert (await sessions.verify(issuer.token("k2"))).subject == "user_1"
    assert (await sessions.verify(issuer.token("k1"))).subject == "user_1"
    assert issuer.fetched == 1


async def test_a_key_that_its_issuer_withdrew_is_soon_not_believed(books: Suite, issuer: IssuerServer) -> None:
    """Keys are asked for again when they are old: one that is not published any more is over then, and not first at the next restart."""
    sessions = believing(issuer)
    stolen = issuer.keys["k1"]
    await sessions.verify(issuer.token("k1"))
    del issuer.keys["k1"]
    issuer.add("k2")
    assert (await sessions.verify(issuer.token("k1", key=stolen))).subject == "user_1"
    sessions._keys[issuer.url].asked_at -= KEYS_SECONDS  # as if it had been that long
    with pytest.raises(Unauthenticated):
        await sessions.verify(issuer.token("k1", key=stolen))
    assert (await sessions.verify(issuer.token("k2"))).subject == "user_1"
    assert issuer.fetched == 2


async def test_an_issuer_whose_name_ends_with_a_slash_is_believed(books: Suite, issuer: IssuerServer, tmp_path: Path) -> None:
    """Tokens name their issuer to the letter, and some end with a slash (Auth0's do): the configuration file keeps it."""
    path = tmp_path / "tallygate.toml"
    path.write_text(f'[[issuers]]\nurl = "{issuer.url}/"\nalgorithm = "{issuer.algorithm}"\naudience = "{AUDIENCE}"\n')
    [entry] = load_configuration(path).issuers
    sessions = Issuers([Issuer(entry.url, entry.audience, entry.algorithm, entry.jwks_url)], local_secret=None)
    assert (await sessions.verify(issuer.token("k1", iss=f"{issuer.url}/"))).subject == "user_1"
    with pytest.raises(Unauthenticated):
        await sessions.verify(issuer.token("k1"))


async def test_known_keys_work_while_the_issuer_is_down(books: Suite, issuer: IssuerServer) -> None:
    """An issuer that is away costs nothing but new keys; one that was never reached says so, and is not asked again at once."""
    sessions, stranger = believing(issuer), believing(issuer)
    await sessions.verify(issuer.token("k1"))
    issuer.down = True
    for _ in range(3):
        assert (await sessions.verify(issuer.token("k1"))).subject == "user_1"
    before = issuer.fetched
    with pytest.raises(Unavailable):
        await stranger.verify(issuer.token("k1"))
    for _ in range(5):
        with pytest.raises((Unauthenticated, Unavailable)):
            await stranger.verify(issuer.token("k1"))
    assert issuer.fetched == before + 1


async def test_a_forged_token_of_an_issuer_is_not_believed(books: Suite, issuer: IssuerServer) -> None:
    """Another audience, another issuer, another key, the public key as a secret, no algorithm, another algorithm, a key in the header: none is believed."""
    sessions = believing(issuer)
    now = datetime.now(UTC)
    public = issuer.keys["k1"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "user_1", "iat": int(now.timestamp()), "exp": int(now.timestamp()) + 300}

    def by_hand(header: dict[str, Any], key: bytes) -> str:
        """Sign with HS256 whatever the key looks like; PyJWT itself would refuse to."""
        signed = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims))
        mac = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), key)
        return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    async with jwks.serve(issuer.algorithm) as other, jwks.serve("EdDSA" if issuer.algorithm == "RS256" else "RS256") as foreign:
        jwk = other.published()[0]
        forged = [
            issuer.token("k1", aud="another"),
            issuer.token("k1", aud=None),
            issuer.token("k1", iss=other.url),
            issuer.token("k1", iss=issuer.url + "/"),
            issuer.token("k1", exp=now - timedelta(minutes=1)),
            issuer.token("k1", exp=None),
            issuer.token("k1", iat=None),
            issuer.token("k1", sub=None),
            issuer.token("k1", sub=17),
            issuer.token("k1", key=other.keys["k1"]),
            issuer.token("k1", key=other.keys["k1"], headers={"jwk": jwk, "jku": f"{other.url}/keys", "x5u": other.url}),
            issuer.token("k1", key=foreign.keys["k1"], algorithm=foreign.algorithm),
            by_hand({"alg": "HS256", "typ": "JWT", "kid": "k1"}, public),
            by_hand({"alg": "none", "typ": "JWT", "kid": "k1"}, public),
            by_hand({"alg": "HS256", "typ": "JWT"}, public),
            by_hand({"alg": "HS256", "typ": "JWT", "kid": ["k1"]}, public),
        ]
        for token in forged:
            with pytest.raises(Unauthenticated):
                await sessions.verify(token)
        assert (other.fetched, foreign.fetched) == (0, 0)
    assert (await sessions.verify(issuer.token("k1"))).subject == "user_1"
    assert (await believing(issuer, None).verify(issuer.token("k1", aud="anything"))).subject == "user_1"


async def test_every_issuer_has_one_algorithm(books: Suite) -> None:
    """A key of another algorithm in an issuer's set is no key of ours, also when a token of it is signed rightly."""
    async with jwks.serve("RS256") as issuer:
        sessions = Issuers([Issuer(issuer.url, AUDIENCE, "RS512", f"{issuer.url}/keys")], local_secret=None)
        with pytest.raises(Unauthenticated):
            await sessions.verify(issuer.token("k1"))
        assert isinstance(issuer.keys["k1"], RSAPrivateKey)


async def test_signup_by_invitation_leaves_a_stranger_without_a_workspace(books: Suite, issuer: IssuerServer) -> None:
    """With SIGNUP=invite a first log-in makes a person and nothing else, and they make no workspace themselves; the refusal says that an owner must invite them."""
    sessions = believing(issuer)
    caller = await identify(issuer.token("k1", sub=uuid7().hex), sessions=sessions)
    assert (caller.workspace_id, caller.scopes, caller.role) == (None, frozenset(), None)
    with pytest.raises(Forbidden, match="by invitation"):
        caller.require(Scope.USAGE_READ)
    with pytest.raises(Forbidden, match="by invitation"):
        await workspaces.create(caller, "Mine all the same", "UTC", None)
    assert caller.user_id is not None
    assert await workspaces.of_user(caller.user_id) == []
    again = await identify(issuer.token("k1", sub=uuid7().hex), sessions=sessions)
    assert again.user_id != caller.user_id


async def test_open_signup_makes_one_workspace(books: Suite, issuer: IssuerServer) -> None:
    """With SIGNUP=open a first log-in makes a workspace that its person owns: one, also of ten log-ins at once, and none after."""
    sessions, subject = believing(issuer), uuid7().hex
    heard = await asyncio.gather(*(identify(issuer.token("k1", sub=subject, name="Nina New"), sessions=sessions, open_signup=True) for _ in range(10)))
    assert len({caller.user_id for caller in heard}) == 1
    assert len({caller.workspace_id for caller in heard}) == 1
    assert {caller.role for caller in heard} == {Role.OWNER}
    assert heard[0].user_id is not None
    [place] = await workspaces.of_user(heard[0].user_id)
    assert place.workspace.name == "Nina New's workspace"
    kinds = await database.fetch_value("SELECT count(*) FROM account WHERE workspace_id = $1", place.workspace.id)
    assert kinds == 10


async def test_an_address_counts_only_when_it_was_verified(books: Suite, issuer: IssuerServer) -> None:
    """An issuer's unverified address is not kept: nobody becomes somebody else by claiming an address."""
    sessions = believing(issuer)
    for verified, kept in ((False, None), ("true", None), (True, "boss@example.com")):
        caller = await identify(issuer.token("k1", sub=uuid7().hex, email="Boss@Example.com", email_verified=verified), sessions=sessions)
        assert caller.user_id is not None
        assert (await users.find_many([caller.user_id]))[caller.user_id].email == kept


async def test_the_header_chooses_among_ones_own_workspaces(books: Suite) -> None:
    """F30: X-Workspace-Id reaches workspaces that one is a member of, with the role one has there, and no other; without it the own one is meant."""
    mine, theirs, strange = await tenant(), await tenant(), await tenant()
    invited = await members.invite(theirs.caller(), f"{uuid7().hex}@example.com", Role.VIEWER)
    mail = await members.invitation_mail(theirs.workspace_id, invited.id, SECRET)
    assert mail is not None
    await members.accept(mine.caller(), mail.token, SECRET)
    token = local_session(SECRET, mine.owner_email, None, at=datetime.now(UTC))
    assert (await identify(token)).workspace_id == mine.workspace_id
    there = await identify(token, workspace=theirs.workspace_id)
    assert (there.workspace_id, there.role, there.scopes) == (theirs.workspace_id, Role.VIEWER, ROLE_SCOPES[Role.VIEWER])
    for header in (strange.workspace_id, uuid7(), "nonsense", ""):
        with pytest.raises(Forbidden):
            await identify(token, workspace=header)
    await members.remove(theirs.caller(), invited.id)
    with pytest.raises(Forbidden):
        await identify(token, workspace=theirs.workspace_id)


async def test_an_operator_reaches_every_workspace(books: Suite) -> None:
    """An operator is made by command, not by a claim; then X-Workspace-Id reaches any workspace that there is."""
    mine, theirs = await tenant(), await tenant()
    assert mine.owner.user_id is not None
    claimed = await identify(local(mine.owner_email, operator=True, scopes=["operator"], role="operator"))
    assert not claimed.operator
    await users.make_operator(mine.owner.user_id)
    token = local(mine.owner_email)
    there = await identify(token, workspace=theirs.workspace_id)
    assert (there.operator, there.workspace_id, there.role) == (True, theirs.workspace_id, None)
    with pytest.raises(Forbidden):
        await identify(token, workspace=uuid7())


async def test_roles_are_what_they_say() -> None:
    """F30: no role is the operator; only owners and admins write members; billing sees no keys; viewers write nothing."""
    assert all(Scope.OPERATOR not in scopes for scopes in ROLE_SCOPES.values())
    assert {role for role, scopes in ROLE_SCOPES.items() if Scope.MEMBERS_WRITE in scopes} == {Role.OWNER, Role.ADMIN}
    assert {role for role, scopes in ROLE_SCOPES.items() if Scope.BILLING_WRITE in scopes} == {Role.OWNER, Role.ADMIN, Role.BILLING}
    assert not {Scope.KEYS_READ, Scope.KEYS_WRITE, Scope.INFERENCE} & ROLE_SCOPES[Role.BILLING]
    assert not [scope for scope in ROLE_SCOPES[Role.VIEWER] if scope.name.endswith("WRITE")]


async def test_a_person_alone_makes_workspaces(books: Suite) -> None:
    """A signed-in person makes workspaces, once for each idempotency key, with a zone that exists; a key makes none."""
    mine = await tenant()
    made = await asyncio.gather(*(workspaces.create(mine.caller(), "Second", "Asia/Kathmandu", "k") for _ in range(8)))
    assert len({workspace.id for workspace in made}) == 1
    assert (made[0].name, made[0].default_timezone) == ("Second", "Asia/Kathmandu")
    with pytest.raises(errors.IdempotencyConflict):
        await workspaces.create(mine.caller(), "Third", "Asia/Kathmandu", "k")
    for zone in ("Mars/Olympus", "../../etc/passwd", ""):
        with pytest.raises(errors.InvalidInput):
            await workspaces.create(mine.caller(), "Third", zone, None)
    caller = await identify(mine.secret)
    with pytest.raises(Forbidden):
        await workspaces.create(caller, "Third", "UTC", None)
