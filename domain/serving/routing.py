"""Which upstreams may answer a call, in which order they are asked, and under which model and price: decided before admission, never by a client's address."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from domain.errors import Forbidden, Unavailable, UnknownModel, Unpriced
from domain.money.catalogue import Book, ModelView, PriceVersion
from domain.serving.health import Health, Standing
from domain.serving.routers import AUTO, Features, Router, Target, router_view

ECHO = "echo"
MOST_TRIES = 3
"""How many upstreams a call is sent to at most, one after the other, unless the configuration says otherwise."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long an upstream may take: to be connected to, to its first byte, and between two bytes, in seconds."""

    connect_seconds: float = 10.0
    first_byte_seconds: float = 600.0
    idle_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider that calls may be sent to; `key` never prints. `models` None means every model of `vendor`.

    Of the upstreams of a model those of the lowest `priority` come first; among equals, `weight` is each one's share of conversations.
    `forms` are the APIs of its dialect that it has, None for all.
    """

    name: str
    dialect: str
    url: str
    auth: str
    key: str | None = field(repr=False)
    models: tuple[str, ...] | None
    vendor: str | None
    rename: dict[str, str]
    priority: int = 0
    weight: int = 1
    enabled: bool = True
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    waits: Waits = Waits()
    forms: tuple[str, ...] | None = None

    def serves(self, model: ModelView) -> bool:
        """Tell whether the upstream answers this model."""
        return model.name in self.models if self.models is not None else model.vendor == self.vendor

    def takes(self, asked: "Asked") -> bool:
        """Tell whether a request can be said to the upstream, in its own form or in translation."""
        return self.dialect in asked.dialects and (self.forms is None or not asked.forms or not set(asked.forms).isdisjoint(self.forms))

    def named(self, model: str) -> str:
        """Return the name by which the upstream knows a model."""
        return self.rename.get(model, model)


class Asked(msgspec.Struct, frozen=True):
    """What a request asks of the router.

    `dialects` are the upstream dialects in which it can be served, its own first, `forms` the APIs of a dialect that has several. `look` reads what
    it needs of a model, and is called only where a router chooses one; `stick` gives what stays the same over a conversation, or None, and is
    called only where several upstreams are equal. `lot` decides where there is no conversation. `echo_only` is true for a test key: it reaches
    the built-in model and nothing else. `keepers` are the upstreams that keep what the request names, None when it names nothing.
    """

    model: str
    dialects: tuple[str, ...]
    input_tokens: int
    max_output_tokens: int | None
    look: Callable[[], Features]
    stick: Callable[[], bytes | None]
    lot: bytes
    echo_only: bool = False
    allowed: frozenset[str] | None = None
    forms: tuple[str, ...] = ()
    keepers: frozenset[str] | None = None


class Candidate(msgspec.Struct, frozen=True):
    """One upstream that may be tried: with its model, the price version that would be charged, and why it stands where it does.

    Reasons: `first` (by priority, or no other serves the model), `weight` (by lot), `sticky` (its conversation goes there), `spare` (those that
    would stand before it cool down or are at their limit).
    """

    model: ModelView
    upstream: Upstream
    price: PriceVersion
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """The tries that a call may make, best first, and why their models: `named`, `alias`, or `router` with the router's name.

    `routed` tells that a router and not the client chose the model.
    """

    candidates: tuple[Candidate, ...]
    reason: str
    routed: bool = False

    @property
    def fallback_prices(self) -> tuple[PriceVersion, ...]:
        """The prices that may be charged besides the first candidate's, each once."""
        first, *others = self.candidates
        return tuple({candidate.price.id: candidate.price for candidate in others if candidate.price is not first.price}.values())

    @property
    def why(self) -> str:
        """Why this model and this upstream, in words for a receipt."""
        first = self.candidates[0].reason
        return self.reason if first == "first" else f"{self.reason}, {first}"


_STANDINGS = {standing: place for place, standing in enumerate(Standing)}


class Routes:
    """The upstreams and routers of this process, with what it knows of their health."""

    def __init__(
        self, book: Book, upstreams: Sequence[Upstream], routers: Sequence[Router] = (), *, tries: int = MOST_TRIES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._book = book
        self._tries = tries
        self.clock = clock
        self.upstreams = tuple(upstreams)
        self.routers = {AUTO.name: AUTO} | {router.name: router for router in routers}
        self._known: dict[tuple[str, tuple[str, ...], tuple[str, ...]], tuple[ModelView, list[Upstream]]] = {}
        self.health = {upstream.name: Health(upstream.requests_per_minute, upstream.tokens_per_minute) for upstream in self.upstreams}

    def plan(self, asked: Asked, now: datetime) -> Plan:
        """Return the tries of a call; `now` is the instant whose prices hold.

        Raises UnknownModel; Unpriced for a model that has no price; Unavailable when every upstream is at the operator's own bound.
        """
        at = self.clock()
        model = self._book.find(asked.model)
        if model is not None and asked.model not in self.routers:
            found = self._of_model(model, asked, now, at)
            reason = "named" if model.name == asked.model else "alias"
        elif asked.model in self.routers:
            found = self._of_router(self.routers[asked.model], asked, now, at)
            reason = f"router {asked.model}"
        else:
            found, reason = [], ""
        if not found and asked.model in self.routers and self.find(asked.model) is not None:
            if asked.allowed is not None:
                raise Forbidden(f"This key may use no model that `{asked.model}` could choose for this request.")
            raise UnknownModel(f"None of the models behind `{asked.model}` can serve this request: it is too long for them, or needs tools or images.", path=("model",))
        if not found:
            raise UnknownModel(f"There is no model `{asked.model[:200]}` on this route. GET /v1/models lists those that there are.", path=("model",))
        return Plan(self._within_bounds(found, asked, at)[: self._tries], reason, routed=asked.model in self.routers)

    def _of_model(self, model: ModelView, asked: Asked, now: datetime, at: float) -> list[Candidate]:
        serving = self._serving_of(model, asked)
        if not serving:
            return []
        price = self._book.price(model.name, now)
        if price is None:
            raise Unpriced(f"The model `{model.name}` has no price here, so it is not sold. Its operator can enter one.")
        return self._in_order(model, serving, price, asked, at)

    def _serving_of(self, model: ModelView, asked: Asked) -> list[Upstream]:
        """Return the upstreams that answer a model for requests of a form, in the configuration's order; found once for each, and anew for a changed model."""
        of = (model.name, asked.dialects, asked.forms)
        known = self._known.get(of)
        if known is None or known[0] is not model:
            known = self._known[of] = (model, [upstream for upstream in self.upstreams if upstream.enabled and upstream.takes(asked) and upstream.serves(model)])
        return known[1] if asked.keepers is None else [upstream for upstream in known[1] if upstream.name in asked.keepers]

    def _in_order(self, model: ModelView, serving: list[Upstream], price: PriceVersion, asked: Asked, at: float) -> list[Candidate]:
        if len(serving) == 1:
            return [Candidate(model, serving[0], price, "first")]
        places = {upstream.name: (upstream.priority, asked.dialects.index(upstream.dialect)) for upstream in serving}
        standings = {upstream.name: _STANDINGS[self.health[upstream.name].standing(at, asked.input_tokens)] for upstream in serving}
        if len(set(places.values())) == len(places):  # no lot is to be drawn
            why = "first"
            by_rule = sorted(serving, key=lambda upstream: places[upstream.name])
        else:
            first = min(places.values())
            equals = sum(place == first for place in places.values()) > 1
            stick = asked.stick()
            lot = asked.lot if stick is None else stick
            by_rule = sorted(serving, key=lambda upstream: (places[upstream.name], -score(lot, upstream.name, upstream.weight)))
            why = "first" if not equals else "weight" if stick is None else "sticky"
        ordered = sorted(by_rule, key=lambda upstream: standings[upstream.name])
        return [Candidate(model, upstream, price, why if upstream is by_rule[0] else "spare") for upstream in ordered]

    def _of_router(self, router: Router, asked: Asked, now: datetime, at: float) -> list[Candidate]:
        features = asked.look()
        targets = []
        for model, weight in self._targets(router, echo_only=asked.echo_only):
            price = self._book.price(model.name, now)
            allowed = asked.allowed is None or router.name in asked.allowed or model.name in asked.allowed
            if price is not None and allowed and (model.retires_at is None or model.retires_at > now):
                targets.append(Target(model, price, weight))
        fitting = router.fitting(targets, input_tokens=asked.input_tokens, max_output_tokens=asked.max_output_tokens, features=features)
        lot = asked.stick() or asked.lot if router.choose == "weighted" else asked.lot
        chains = []
        for target in router.ordered(fitting, lambda target: score(lot, target.model.name, target.weight), asked.input_tokens):
            serving = self._serving_of(target.model, asked)
            if serving:
                chains.append(self._in_order(target.model, serving, target.price, asked, at))
        # a model whose every upstream is in trouble comes after those that can answer
        chains.sort(key=lambda chain: min(_STANDINGS[self.health[candidate.upstream.name].standing(at, asked.input_tokens)] for candidate in chain))
        return [candidate for chain in chains for candidate in chain]

    def _targets(self, router: Router, *, echo_only: bool = False) -> list[tuple[ModelView, int]]:
        """Return the models that a router may choose from, and their weights: those that it names, or all that are served."""
        offered = {model.name: model for model in self._served()}
        if echo_only or (router.targets is None and set(offered) <= {ECHO}):
            return [(offered[ECHO], 1)] if ECHO in offered else []
        if router.targets is None:
            return [(model, 1) for model in offered.values() if model.name != ECHO]
        weights: dict[str, tuple[ModelView, int]] = {}
        for rule in router.targets:
            model = self._book.find(rule.model)
            if model is not None and model.name in offered:
                weights.setdefault(model.name, (model, rule.weight))
        return list(weights.values())

    def _within_bounds(self, candidates: list[Candidate], asked: Asked, at: float) -> tuple[Candidate, ...]:
        if not any(self.health[candidate.upstream.name].bounded for candidate in candidates):
            return tuple(candidates)
        waits = {candidate.upstream.name: self.health[candidate.upstream.name].wait_seconds(at, asked.input_tokens) for candidate in candidates}
        within = tuple(candidate for candidate in candidates if waits[candidate.upstream.name] <= 0)
        if not within:
            message = "As many calls go upstream now as the operator of this gateway allows; try again."
            raise Unavailable(message, retry_after_seconds=max(math.ceil(min(waits.values())), 1))
        return within

    @property
    def models(self) -> list[ModelView]:
        """Every model of the book, served or not."""
        return self._book.models()

    def _served(self) -> list[ModelView]:
        return [model for model in self._book.models() if any(upstream.enabled and upstream.serves(model) for upstream in self.upstreams)]

    def offered(self) -> list[ModelView]:
        """Return what a call may name: the routers that have something to choose from, `auto` first, then the models that some upstream answers."""
        routers = [view for router in self.routers.values() if (view := self._view(router))]
        return [*routers, *(model for model in self._served() if model.name not in self.routers)]

    def find(self, name: str) -> ModelView | None:
        """Return the router, or the model of the book, of a name or alias; None when there is none."""
        router = self.routers.get(name)
        return self._book.find(name) if router is None else self._view(router)

    def _view(self, router: Router) -> ModelView | None:
        targets = [model for model, _ in self._targets(router)]
        return router_view(router, targets) if targets else None


def score(lot: bytes, name: str, weight: int) -> float:
    """Return how strongly a lot is drawn to a name: the highest of several gets it, each in proportion to its weight.

    Rendezvous hashing: one that goes away moves only its own, and one that comes back gets exactly these again. Source: Thaler and Ravishankar,
    "Using name-based mappings to increase hit rates" (1998); the weights as in Schindelhauer and Schomaker (2005).
    """
    if weight <= 0:
        return 0.0
    drawn = int.from_bytes(hashlib.blake2b(lot + b"\0" + name.encode(), digest_size=8).digest(), "big")
    return -weight / math.log((drawn + 0.5) / 2**64)

