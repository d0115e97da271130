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

from clients.bills import Bills
from domain.access import callers, keys, secrets, users, workspaces
from domain.access.callers import Actor, Caller, SessionClaims, Whence
from domain.access.keys import KeyView, NewKey
from domain.access.workspaces import WorkspaceView
from domain.errors import Unauthenticated
from domain.money import catalogue, ledger
from domain.money.catalogue import Book, PriceVersion
from domain.serving.calls import Calls, Consumption, Ending, Opening
from domain.serving.routing import Routes, Upstream
from models.enums import ActorKind, Bucket, Scope, UsageOutcome
from models.ids import uuid7
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
class Served:
    """A running server, and who may call it."""

    url: str
    issuer: Issuer
    book: Book
    calls: Calls
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

    async def credit(self, owner: "Owner", amount_microusd: int) -> None:
        """Give an owner's workspace credit."""
        await ledger.give(owner.workspace.id, amount_microusd, "for tests", uuid4().hex, Actor(ActorKind.SYSTEM, None, "tests"))

    async def offer(self, name: str, *, input_usd: str, output_usd: str) -> PriceVersion:
        """Offer a model at a price for a million tokens."""
        rows = (catalogue.make_row(Bucket.UNCACHED_INPUT, input_usd), catalogue.make_row(Bucket.OUTPUT, output_usd))
        entry = catalogue.ModelEntry(
            name=name, display_name=name.title(), vendor="Acme", rows=rows, context_window=200_000, max_output_tokens=8_000
        )
        now = datetime.now(UTC)
        await catalogue.enter(entry, source="tests", effective_from=now, actor=Actor(ActorKind.SYSTEM, None, "tests"), at=now)
        await self.book.refresh()
        price = self.book.price(name, datetime.now(UTC))
        assert price is not None
        return price

    async def call(self, secret: str, price: PriceVersion, *, input_tokens: int, output_tokens: int, failed: bool = False) -> UUID:
        """Make a call through the books: admitted against the balance, settled at its price. Returns its ID."""
        admitted = await self.calls.admit(
            Opening(
                id=uuid7(),
                fingerprint=secrets.fingerprint(secret),
                road="generic",
                endpoint="/v1/messages",
                api_name="llm_query",
                dialect="anthropic",
                requested_model=price.model,
                model=price.model,
                echo=False,
                upstream="acme",
                price=price,
                streamed=True,
                input_tokens=input_tokens,
                requested_max_output=output_tokens,
                max_output_tokens=output_tokens,
                instalment_tokens=4096,
                created_at=datetime.now(UTC),
            )
        )
        used = {Bucket.UNCACHED_INPUT.value: input_tokens, Bucket.OUTPUT.value: output_tokens}
        await self.calls.settle(
            Ending(
                workspace_id=admitted.workspace_id,
                call_id=admitted.call_id,
                model=price.model,
                provider="acme",
                price=price,
                consumption=Consumption(model=price.model, quantities={} if failed else used, reported=True),
                outcome=UsageOutcome.FAILED if failed else UsageOutcome.SUCCEEDED,
                http_status=500 if failed else 200,
                error_code="upstream_error" if failed else None,
                latency_ms=40,
            )
        )
        return admitted.call_id

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
async def running(*, bills: Bills | None = None, upstreams: tuple[str, ...] = ()) -> AsyncIterator[Served]:
    """Serve GraphQL alone, on a port of the machine's choice; `upstreams` are configured by these names, which begin with their dialect's or are OpenAI's."""
    issuer, book = Issuer(), Book()
    calls = Calls(book, batch=1, hold_seconds=60)

    async def identify(credential: str | None, workspace: str | None, whence: Whence) -> Caller | None:
        return await callers.identify(credential, workspace, sessions=issuer, open_signup=False, at=datetime.now(UTC), whence=whence)

    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    configured = [Upstream(name, "anthropic" if name.startswith("anthropic") else "openai", "http://127.0.0.1:9", "bearer", None, (), None, {}) for name in upstreams]
    facilities = Facilities(
        book=book,
        offered=book.models,
        find=book.find,
        routes=Routes(book, configured),
        signing_secret=SIGNING_SECRET,
        public_url=url,
        version="1.2.3",
        bills=bills,
    )
    view = GraphQLView(served_schema(), facilities, identify, lambda request: request.headers.get("x-request-id") or uuid4().hex)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes(view)), log_config=None, lifespan="off", ws="websockets-sansio"))
    serving = asyncio.create_task(server.serve([listening]))
    try:
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
            yield Served(url, issuer, book, calls, http)
    finally:
        await calls.close()
        server.should_exit = True
        await serving
