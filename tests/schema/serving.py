"""A GraphQL server for tests, its callers, and a client."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import httpx2
import uvicorn
from starlette.applications import Starlette

from domain.access import callers, keys, users, workspaces
from domain.access.callers import Caller, SessionClaims
from domain.access.keys import KeyView, NewKey
from domain.access.workspaces import WorkspaceView
from domain.errors import Unauthenticated
from domain.money.catalogue import Book
from models.enums import Scope
from resolvers.asking import Facilities
from schema.build import build
from schema.engine import Contract
from schema.throttle import Throttle
from schema.view import GraphQLView, routes

ISSUER = "https://issuer.test"
SIGNING_SECRET = "signs-invitations-in-tests-0123456789"
RESPONSE_TYPE = "application/graphql-response+json"


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.seconds


CLOCK = Clock()


@cache
def served_schema() -> Contract:
    """The schema of this process, whose rate limit refills as `CLOCK` says."""
    return build(Throttle(CLOCK))


@dataclass
class Issuer:
    """An issuer of sessions outside of us: it knows the tokens that it gave."""

    sessions: dict[str, SessionClaims] = field(default_factory=dict)

    async def verify(self, token: str) -> SessionClaims:
        """Return what a token says."""
        try:
            return self.sessions[token]
        except KeyError:
            raise Unauthenticated from None

    def log_in(self, email: str, name: str) -> str:
        """Return a token for a person with a verified address."""
        token = f"session-{uuid4().hex}"
        self.sessions[token] = SessionClaims(issuer=ISSUER, subject=email, email=email, email_verified=True, name=name)
        return token


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def data(self) -> Any:
        """The data of an answer without errors."""
        assert "errors" not in self.body, self.body["errors"]
        return self.body["data"]

    @property
    def codes(self) -> list[str]:
        """The codes of its errors."""
        return [error["extensions"]["code"] for error in self.body.get("errors", [])]


@dataclass
class Gateway:
    """A running server, and who may call it."""

    url: str
    issuer: Issuer
    book: Book
    http: httpx2.AsyncClient

    async def ask(
        self,
        document: str,
        *,
        credential: str | None = None,
        operation: str | None = None,
        accept: str = RESPONSE_TYPE,
        workspace: UUID | None = None,
        **variables: Any,
    ) -> Answer:
        """Run one operation."""
        headers = {"accept": accept}
        if credential is not None:
            headers["authorization"] = f"Bearer {credential}"
        if workspace is not None:
            headers["x-workspace-id"] = str(workspace)
        body = {"query": document, "operationName": operation, "variables": variables}
        response = await self.http.post("/graphql", json=body, headers=headers)
        return Answer(response.status_code, response.headers, response.json())

    async def owner(self, email: str | None = None, name: str = "Olive Owner") -> "Owner":
        """A person with a workspace of their own, signed in."""
        email = email or f"{uuid4().hex}@example.test"
        person = await users.create(ISSUER, email, name, operator=False, at=datetime.now(UTC))
        workspace = await workspaces.create_for(person.id, f"{name}'s lab", "UTC", at=datetime.now(UTC))
        session = self.issuer.log_in(email, name)
        caller = await self.caller(session)
        return Owner(session, person.id, workspace, caller, email)

    async def operator(self) -> str:
        """A session of a person who runs the installation and is a member of a workspace of their own."""
        owner = await self.owner(name="Otto Operator")
        await users.make_operator(owner.user_id)
        return owner.session

    async def caller(self, credential: str) -> Caller:
        """Who a credential stands for."""
        caller = await callers.identify(credential, None, sessions=self.issuer, open_signup=False, at=datetime.now(UTC))
        assert caller is not None
        return caller

    async def key(self, owner: "Owner", *, scopes: frozenset[Scope] | None = None, name: str | None = None) -> tuple[KeyView, str]:
        """A key of the owner's workspace, and its secret."""
        key, secret = await keys.create(owner.caller, NewKey(name=name, scopes=scopes))
        assert secret is not None
        return key, secret


@dataclass
class Owner:
    """A person who owns a workspace."""

    session: str
    user_id: UUID
    workspace: WorkspaceView
    caller: Caller
    email: str


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Gateway]:
    """Serve GraphQL alone, on a port of the machine's choice."""
    issuer, book = Issuer(), Book()

    async def identify(credential: str | None, workspace: str | None) -> Caller | None:
        return await callers.identify(credential, workspace, sessions=issuer, open_signup=False, at=datetime.now(UTC))

    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    facilities = Facilities(book=book, signing_secret=SIGNING_SECRET, public_url=url, version="1.2.3")
    view = GraphQLView(served_schema(), facilities, identify, lambda request: request.headers.get("x-request-id") or uuid4().hex)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes(view)), log_config=None, lifespan="off", ws="websockets-sansio"))
    serving = asyncio.create_task(server.serve([listening]))
    try:
        async with httpx2.AsyncClient(base_url=url) as http:
            yield Gateway(url, issuer, book, http)
    finally:
        server.should_exit = True
        await serving
