"""Which upstream gets a call, in which order others follow, and what a logical model chooses: decided over the shipped prices."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from domain.errors import Unavailable, UnknownModel
from domain.money.catalogue import Book
from domain.serving.health import LimitLeft, Trouble
from domain.serving.routers import Features, Router, Rule
from domain.serving.routing import Asked, Plan, Routes, Upstream, score
from models.enums import ModelCapability
from tests.conftest import Suite

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC) + timedelta(hours=1)


def _upstream(name: str, **changes: object) -> Upstream:
    plain = Upstream(name, "anthropic", f"http://{name}.invalid", "x-api-key", None, None, "anthropic", {})
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]  # each test names fields of the class


def _asked(model: str, conversation: bytes | None = b"c", *, features: Features | None = None, tokens: int = 100, test: bool = False) -> Asked:
    return Asked(model, ("anthropic", "openai"), tokens, 1000, lambda: features or Features(), lambda: conversation, uuid4().bytes, echo_only=test)


def _names(plan: Plan) -> list[tuple[str, str]]:
    return [(candidate.model.name, candidate.upstream.name) for candidate in plan.candidates]


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.seconds


@pytest.fixture(scope="module")
async def book(books: Suite) -> Book:
    """The shipped models and prices."""
    read = Book()
    await read.refresh()
    return read


def _routes(book: Book, upstreams: Sequence[Upstream], routers: Sequence[Router] = (), clock: Clock | None = None) -> Routes:
    return Routes(book, upstreams, routers, clock=clock or Clock())


async def test_priority_then_dialect_then_the_file(book: Book) -> None:
    """The lowest priority comes first, then the caller's dialect, and three are tried at most."""
    other = {"dialect": "openai", "models": ("claude-opus-5-5",)}
    routes = _routes(book, [_upstream("translated", **other), _upstream("spare", priority=1), _upstream("native"), _upstream("last", priority=9)])
    plan = routes.plan(_asked("claude-opus-5-5"), NOW)
    assert [name for _, name in _names(plan)] == ["native", "translated", "spare"]
    assert (plan.reason, plan.routed, plan.candidates[0].reason) == ("named", False, "first")


async def test_weights_are_shares_and_a_conversation_stays(book: Book) -> None:
    """Of 4000 conversations three quarters go to the upstream of weight 3, each always to the same one; weight 0 gets none, and is asked last."""
    routes = _routes(book, [_upstream("one"), _upstream("three", weight=3), _upstream("none", weight=0)])
    counted: Counter[str] = Counter()
    for number in range(4000):
        plans = [routes.plan(_asked("claude-opus-5-5", f"c{number}".encode()), NOW) for _ in range(2)]
        assert _names(plans[0]) == _names(plans[1])
        assert plans[0].candidates[2].upstream.name == "none"
        counted[plans[0].candidates[0].upstream.name] += 1
        assert plans[0].candidates[0].reason == "sticky"
    assert 2860 < counted["three"] < 3140
    assert counted["one"] + counted["three"] == 4000
    assert routes.plan(_asked("claude-opus-5-5", None), NOW).candidates[0].reason == "weight"


async def test_an_upstream_that_goes_away_moves_only_its_own(book: Book) -> None:
    """What keeps prompt caches warm: without `b`, its conversations go elsewhere, and no other conversation moves."""
    for number in range(500):
        lot = f"c{number}".encode()
        best = max("abc", key=lambda name: score(lot, name, 1))
        without = max("ac", key=lambda name: score(lot, name, 1))
        assert without == best or best == "b"


async def test_a_cooling_upstream_is_passed_over_and_gets_its_conversations_back(book: Book) -> None:
    """While it cools down it stands last, as what is asked when nothing else is left; after it, the same conversation comes back to it."""
    clock = Clock()
    routes = _routes(book, [_upstream("left"), _upstream("right")], clock=clock)
    first = routes.plan(_asked("claude-opus-5-5"), NOW).candidates[0].upstream.name
    routes.health[first].begin(0)
    routes.health[first].failed(0, Trouble.BUSY, "upstream_529", "", retry_after_seconds=30)
    moved = routes.plan(_asked("claude-opus-5-5"), NOW)
    assert [candidate.upstream.name for candidate in moved.candidates][1] == first
    assert moved.candidates[0].reason == "spare"
    clock.seconds = 30
    assert routes.plan(_asked("claude-opus-5-5"), NOW).candidates[0].upstream.name == first


async def test_a_providers_limit_is_no_cool_down(book: Book) -> None:
    """An upstream without requests left comes after one with, and before one that cools down."""
    routes = _routes(book, [_upstream("limited"), _upstream("cooling", priority=1), _upstream("free", priority=2)])
    routes.health["limited"].heard([LimitLeft("requests", 1, 0, 60.0)])
    routes.health["cooling"].cool(60.0)
    assert [name for _, name in _names(routes.plan(_asked("claude-opus-5-5"), NOW))] == ["free", "limited", "cooling"]


async def test_the_operators_bound_refuses_when_nothing_else_is_left(book: Book) -> None:
    """Two calls a minute go left, the others right; where there is no right, the third is told to come back in half a minute."""
    both = _routes(book, [_upstream("left", requests_per_minute=2), _upstream("right", priority=1)])
    alone = _routes(book, [_upstream("left", requests_per_minute=2)])
    for routes in (both, alone):
        for _ in range(2):
            routes.health["left"].begin(0)
    assert _names(both.plan(_asked("claude-opus-5-5"), NOW)) == [("claude-opus-5-5", "right")]
    with pytest.raises(Unavailable) as refused:
        alone.plan(_asked("claude-opus-5-5"), NOW)
    assert refused.value.retry_after_seconds == 30


async def test_a_disabled_upstream_serves_nothing(book: Book) -> None:
    """The configuration says so."""
    routes = _routes(book, [_upstream("off", enabled=False)])
    with pytest.raises(UnknownModel):
        routes.plan(_asked("claude-opus-5-5"), NOW)
    assert routes.offered() == []


# Logical models.


async def test_auto_is_the_cheapest_that_can(book: Book) -> None:
    """Haiku for a short call; for one of 150,000 tokens, where Haiku's whole price rises, still the cheapest of what fits; nothing that cannot."""
    routes = _routes(book, [_upstream("anthropic"), _upstream("openai", dialect="openai", vendor="openai")])
    plan = routes.plan(_asked("auto"), NOW)
    assert (plan.candidates[0].model.name, plan.reason, plan.routed) == ("claude-haiku-5-5", "router auto", True)
    costs = [candidate.price.standard for candidate in plan.candidates]
    assert len(costs) == 3
    for tokens in (10, 150_000, 500_000):
        chosen = routes.plan(_asked("auto", tokens=tokens), NOW).candidates
        assert all(candidate.model.context_window is None or candidate.model.context_window >= tokens for candidate in chosen)
    for features in (Features(tools=True), Features(images=True)):
        chosen = routes.plan(_asked("auto", features=features), NOW).candidates
        needed = ModelCapability.TOOLS if features.tools else ModelCapability.VISION
        assert all(needed in candidate.model.capabilities for candidate in chosen)


async def test_auto_is_echo_for_a_test_key_and_where_nothing_else_is_served(book: Book) -> None:
    """`echo` is chosen for nobody else: it answers nothing of use."""
    echo = _upstream("echo", models=("echo",), vendor=None)
    assert _names(_routes(book, [echo]).plan(_asked("auto"), NOW)) == [("echo", "echo")]
    both = _routes(book, [echo, _upstream("anthropic")])
    assert _names(both.plan(_asked("auto", test=True), NOW)) == [("echo", "echo")]
    assert "echo" not in {name for name, _ in _names(both.plan(_asked("auto"), NOW))}
    with pytest.raises(UnknownModel):
        _routes(book, [_upstream("anthropic")]).plan(_asked("auto", test=True), NOW)


RULES = Router(
    "team",
    "Team",
    "listed",
    (
        Rule("claude-fable-5-2", above_input_tokens=100_000),
        Rule("claude-opus-5-5", images=True),
        Rule("claude-sonnet-5-5", tools=True, up_to_picousd=20_000_000_000),
        Rule("claude-haiku-5-5"),
    ),
)


@pytest.mark.parametrize(
    ("tokens", "features", "chosen"),
    [
        (100_000, Features(), ["claude-haiku-5-5"]),
        (100_001, Features(), ["claude-fable-5-2", "claude-haiku-5-5"]),
        (10, Features(images=True), ["claude-opus-5-5", "claude-haiku-5-5"]),
        (10, Features(tools=True), ["claude-sonnet-5-5", "claude-haiku-5-5"]),
        (5_000, Features(tools=True), ["claude-sonnet-5-5", "claude-haiku-5-5"]),
        (5_001, Features(tools=True), ["claude-haiku-5-5"]),
    ],
)
async def test_rules_hold_by_length_tools_images_and_price(book: Book, tokens: int, features: Features, chosen: list[str]) -> None:
    """The first rule that holds is the choice, the others that hold are its fallbacks; 5,000 tokens in and 1,000 out of Sonnet are two cents."""
    routes = _routes(book, [_upstream("anthropic")], [RULES])
    assert [name for name, _ in _names(routes.plan(_asked("team", tokens=tokens, features=features), NOW))] == chosen


async def test_a_weighted_router_splits_conversations_over_models(book: Book) -> None:
    """One in ten conversations goes to the other model, and stays there."""
    router = Router("canary", "Canary", "weighted", (Rule("claude-opus-5-5", weight=9), Rule("claude-sonnet-5-5", weight=1)))
    routes = _routes(book, [_upstream("anthropic")], [router])
    counted: Counter[str] = Counter()
    for number in range(2000):
        plans = [routes.plan(_asked("canary", f"c{number}".encode()), NOW) for _ in range(2)]
        assert _names(plans[0]) == _names(plans[1])
        counted[plans[0].candidates[0].model.name] += 1
    assert 140 < counted["claude-sonnet-5-5"] < 260


async def test_a_model_whose_upstreams_cool_down_comes_after_one_that_can_answer(book: Book) -> None:
    """A router prefers a model that answers now to its first choice."""
    router = Router("pair", "Pair", "listed", (Rule("claude-opus-5-5"), Rule("gpt-5.5")))
    routes = _routes(book, [_upstream("anthropic"), _upstream("openai", dialect="openai", vendor="openai")], [router])
    routes.health["anthropic"].cool(60.0)
    assert _names(routes.plan(_asked("pair"), NOW)) == [("gpt-5.5", "openai"), ("claude-opus-5-5", "anthropic")]


async def test_what_no_model_can_serve_is_refused_with_the_reason(book: Book) -> None:
    """Two million tokens fit no model behind `auto`: the refusal says so, and is no claim that there is no `auto`."""
    with pytest.raises(UnknownModel, match="too long"):
        _routes(book, [_upstream("anthropic")]).plan(_asked("auto", tokens=2_000_000), NOW)


async def test_routers_are_listed_with_what_they_choose_from(book: Book) -> None:
    """`auto` first, then the configured ones; what they share is what they can do; one whose models nobody serves is not there."""
    nobody = Router("nobody", "Nobody", "listed", (Rule("gpt-5.5"),))
    routes = _routes(book, [_upstream("anthropic")], [RULES, nobody])
    offered = routes.offered()
    assert [model.name for model in offered][:2] == ["auto", "team"]
    assert offered[1].routes_to == ("claude-fable-5-2", "claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")
    assert (offered[1].vendor, offered[1].context_window, offered[1].max_output_tokens) == (None, None, None)
    assert ModelCapability.VISION in offered[1].capabilities
    assert routes.find("nobody") is None
    assert routes.find("team") == offered[1]
    with pytest.raises(UnknownModel):
        routes.plan(_asked("nobody"), NOW)
