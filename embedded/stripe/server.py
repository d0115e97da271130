"""The simulator over HTTP: Stripe's API under `/v1`, and the pages that a customer is sent to."""

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from embedded.stripe import billing, pages
from embedded.stripe.account import API_VERSION, Account, Json, Missing, Refused, shown
from embedded.stripe.deliveries import Deliveries
from embedded.stripe.endpoints import ENDPOINTS, Endpoint
from embedded.stripe.parameters import BadParameter, read, tree_of


@dataclass
class Fault:
    """What goes wrong with the next requests whose `METHOD /path` matches: answered `status`, after the work is done if `late`."""

    pattern: str
    status: int = 500
    late: bool = False
    times: int = 1


@dataclass
class Simulator:
    """One account served over HTTP, as an ASGI application. `url` is its base address as the gateway and the customer see it."""

    url: str
    webhook_url: str | None
    webhook_secret: str
    keep: Path | None = None
    requests: list[tuple[str, Json]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.account = Account(self.url, self.keep)
        self.deliveries = Deliveries(self.account, self.webhook_url, self.webhook_secret)
        routes: list[BaseRoute] = pages.routes(self.account)
        routes.append(Route("/v1/{path:path}", self._api, methods=["GET", "POST", "DELETE"]))
        self._application = Starlette(routes=routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        await self._application(scope, receive, send)

    async def close(self) -> None:
        """Stop delivering events."""
        await self.deliveries.close()

    async def _api(self, request: Request) -> Response:
        path = f"/v1/{request.path_params['path']}"
        if not re.fullmatch(r"(Bearer|bearer) sk_test_\w+", request.headers.get("authorization", "")):
            return _error(Refused("Invalid API Key provided.", status=401, kind="invalid_request_error", code="api_key_invalid"))
        body = await request.body() if request.method == "POST" else request.url.query.encode()
        fault = next((fault for fault in self.faults if re.search(fault.pattern, f"{request.method} {path}")), None)
        if fault is not None:
            fault.times -= 1
            if fault.times == 0:
                self.faults.remove(fault)
            if fault.late:
                self._answer(request.method, path, body, request.headers.get("idempotency-key"))
            return _error(Refused("An unknown error occurred.", status=fault.status, kind="api_error"))
        return self._answer(request.method, path, body, request.headers.get("idempotency-key"))

    def _answer(self, method: str, path: str, body: bytes, key: str | None) -> Response:
        print_ = hashlib.sha256(f"{method} {path} ".encode() + body).hexdigest()
        kept = self.account.replies.get(key) if key is not None and method == "POST" else None
        if kept is not None and kept[3] > self.account.now() - 86400:
            if kept[0] != print_:
                message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
                return _error(Refused(message, kind="idempotency_error"))
            return _reply(kept[1], kept[2], replayed=True)
        try:
            status, answer = 200, self._perform(method, path, body)
        except BadParameter as fault:
            return _error(Refused(str(fault), code=fault.code), param=fault.param)  # nothing was begun, so the key is not used up
        except Missing as fault:
            status, answer = 404, _described(Refused(str(fault), code="resource_missing"), param=fault.param)
        except Refused as fault:
            status, answer = fault.status, _described(fault)
        if key is not None and method == "POST":
            self.account.replies[key] = [print_, status, answer, self.account.now()]
        self.account.save()
        return _reply(status, answer)

    def _perform(self, method: str, path: str, body: bytes) -> Json:
        billing.tick(self.account)
        found = _endpoint(method, path)
        if found is None:
            raise Refused(f"Unrecognized request URL ({method}: {path}).", status=404)
        endpoint, places = found
        params = read(endpoint.params, tree_of(body))
        self.requests.append((f"{method} {endpoint.path}", params))
        expand = params.pop("expand", [])
        answer = endpoint.answer(self.account, places, params)
        return _expanded(self.account, answer, expand)


def _endpoint(method: str, path: str) -> tuple[Endpoint, Mapping[str, str]] | None:
    for endpoint in ENDPOINTS:
        match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", endpoint.path), path)
        if match and endpoint.method == method:
            return endpoint, match.groupdict()
    return None


def _expanded(account: Account, answer: Json, wanted: list[str]) -> Json:
    told: Json = json.loads(json.dumps(_shown(answer), default=str))
    for path in wanted:
        _expand(account, told, path.split("."))
    return told


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in shown(value).items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def _expand(account: Account, place: Any, path: list[str]) -> None:
    if isinstance(place, list):
        for item in place:
            _expand(account, item, path)
        return
    if isinstance(place, dict) and path[0] == "payments" and place.get("object") == "invoice":  # which is told to those alone who ask for it
        parts = [_shown(each) for each in account.all("invoice_payment", invoice=place["id"])]
        place["payments"] = {"object": "list", "url": f"/v1/invoices/{place['id']}/payments", "has_more": False, "data": parts}
    if not isinstance(place, dict) or path[0] not in place:
        raise Refused(f"This property cannot be expanded ({'.'.join(path)}).", code="property_cannot_be_expanded")
    inner = place[path[0]]
    if isinstance(inner, str) and inner in account.objects:
        place[path[0]] = inner = json.loads(json.dumps(_shown(account.objects[inner])))
    if len(path) > 1 and inner is not None:
        _expand(account, inner, path[1:])


def _described(fault: Refused, *, param: str | None = None) -> Json:
    told: Json = {"type": fault.kind, "message": str(fault)}
    optional = {"code": fault.code, "decline_code": fault.decline, "param": param, "payment_intent": _shown(fault.payment) if fault.payment else None}
    return {"error": told | {name: value for name, value in optional.items() if value is not None}}


def _error(fault: Refused, *, param: str | None = None) -> Response:
    return _reply(fault.status, _described(fault, param=param))


def _reply(status: int, answer: Json, *, replayed: bool = False) -> Response:
    fields = {"stripe-version": API_VERSION, "request-id": "req_simulated"}
    if replayed:
        fields["idempotent-replayed"] = "true"
    return JSONResponse(answer, status, headers=fields)


Made = Callable[[], Simulator]


@contextlib.asynccontextmanager
async def simulating(url: str, webhook_url: str, secret: str, keep: Path) -> AsyncIterator[Simulator]:
    """Hold a simulator whose account is remembered in the file `keep`; whoever holds it serves it at `url`."""
    simulator = Simulator(url, webhook_url, secret, keep)
    try:
        yield simulator
    finally:
        simulator.account.save()
        await simulator.close()
