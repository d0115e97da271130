"""Who calls: session tokens and the workspace that they mean."""

import base64
from datetime import UTC, datetime
from uuid import UUID

import httpx2
import pytest

from clients.issuers import local_session
from domain.access import workspaces
from rest.callers import credentials, header
from tests.conftest import SECRET
from tests.support.world import Tenant, operator_key, tenant

pytestmark = pytest.mark.anyio


def session(of: Tenant) -> dict[str, str]:
    """The header of the owner's session."""
    return {"Authorization": f"Bearer {local_session(SECRET, of.owner_email, None, at=datetime.now(UTC))}"}


def _global(kind: str, key: UUID) -> str:
    """Write an id as GraphQL shows it."""
    return base64.urlsafe_b64encode(f"{kind}:{key}".encode()).decode().rstrip("=")


async def test_a_session_means_the_persons_own_workspace(client: httpx2.AsyncClient) -> None:
    """Without X-Workspace-Id it is the first one that the person owns; with it, the one that it names, if the person is a member."""
    mine, theirs = await tenant(credit_microusd=7), await tenant(credit_microusd=9)
    second = await workspaces.create(mine.caller(), "Second", "UTC", None)
    named = ((None, 7), (str(mine.workspace_id), 7), (str(second.id), 0), (_global("Workspace", second.id), 0))
    for name, balance in named:
        told = await client.get("/tenant/credits", headers=session(mine) | ({} if name is None else {"X-Workspace-Id": name}))
        assert (told.status_code, told.json()["balance_micros"]) == (200, balance)
    for foreign in (str(theirs.workspace_id), _global("Workspace", theirs.workspace_id), _global("User", second.id), "nonsense", "", "V29ya3NwYWNl"):
        refused = await client.get("/tenant/credits", headers=session(mine) | {"X-Workspace-Id": foreign})
        assert refused.status_code == 403, foreign
        assert set(refused.json()["error"]) == {"type", "message"}


async def test_a_session_makes_a_key(client: httpx2.AsyncClient) -> None:
    """A signed-in owner mints a key that works."""
    mine = await tenant(credit_microusd=7)
    made = await client.post("/v1/keys", json={"name": "from a session"}, headers=session(mine))
    assert made.status_code == 201
    told = await client.get("/v1/credits/balance", headers={"Authorization": f"Bearer {made.json()['key']}"})
    assert told.json()["balanceMicrousd"] == 7


async def test_an_operator_sees_a_named_workspace(client: httpx2.AsyncClient) -> None:
    """An operator's key means its own workspace, and any other that it names."""
    mine, theirs = await tenant(credit_microusd=7), await tenant(credit_microusd=9)
    bearer = {"Authorization": f"Bearer {await operator_key(mine)}"}
    assert (await client.get("/tenant/credits", headers=bearer)).json()["balance_micros"] == 7
    assert (await client.get("/tenant/credits", headers={**bearer, "X-Workspace-Id": str(theirs.workspace_id)})).json()["balance_micros"] == 9


async def test_only_the_models_take_x_api_key(client: httpx2.AsyncClient) -> None:
    """`x-api-key` is a credential of inference clients, and of no other path."""
    mine = await tenant()
    assert (await client.get("/v1/models", headers={"x-api-key": mine.secret})).status_code == 200
    for path in ("/v1/keys", "/tenant/keys"):
        assert (await client.get(path, headers={"x-api-key": mine.secret})).status_code == 401


async def test_every_answer_has_its_own_id(client: httpx2.AsyncClient) -> None:
    """Good or bad, an answer carries an id that is ours, whatever the client sends."""
    mine = await tenant()
    answers = [await client.get("/v1/keys", headers={**headers, "X-Request-Id": "theirs"}) for headers in (mine.bearer, mine.bearer, {})]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 3
    assert "theirs" not in ids
    assert [answer.headers["request-id"] for answer in answers] == ids


def test_credentials_of_a_request() -> None:
    """Bearer in any case comes first, x-api-key where it counts, repeats once, blanks never."""
    headers = [(b"authorization", b"bEaReR  one "), (b"x-api-key", b"two"), (b"x-api-key", b"one"), (b"x-api-key", b" "), (b"authorization", b"Basic three")]
    assert credentials(headers, api_key_field=True) == ["one", "two"]
    assert credentials(headers, api_key_field=False) == ["one"]
    assert header(headers, b"x-api-key") == "two"
    assert header(headers, b"x-workspace-id") is None
