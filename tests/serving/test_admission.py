"""Admission: exactly what a balance can pay is let in, whatever the concurrency."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from domain import errors
from domain.access import keys
from domain.access.callers import WORKSPACE_SCOPES
from domain.money.catalogue import Book
from domain.serving.calls import Admitted, Calls, Opening
from models import database
from models.enums import ApiKeyKind, ApiKeyMode, Scope
from tests.conftest import Suite
from tests.serving.openings import calls, ending, listed, opening, priced, used
from tests.support.world import broken, tenant

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def book(books: Suite) -> Book:
    """The catalogue, read once."""
    read = Book()
    await read.refresh()
    return read


async def together(processes: Sequence[Calls], openings: Sequence[Opening]) -> list[Admitted | BaseException]:
    """Ask for all of them at once, spread over the processes; return what each heard."""
    return list(await asyncio.gather(*(processes[n % len(processes)].admit(asked) for n, asked in enumerate(openings)), return_exceptions=True))


@pytest.mark.parametrize(("number", "batch", "processes"), [(400, 1, 1), (2_000, 7, 2), (10_000, 500, 1), (10_000, 500, 2)])
async def test_a_balance_lets_in_exactly_what_it_can_pay(book: Book, number: int, batch: int, processes: int) -> None:
    """F1, M2: of N calls of a microdollar each at once, on a balance worth N / 2, exactly N / 2 are admitted and the books are clean.

    So in batches of one, of seven, of five hundred, and over two processes that share the balance.
    """
    mine = await tenant(credit_microusd=number // 2)
    price = listed(book, "echo")
    heard = await together([calls(book, batch=batch) for _ in range(processes)], [opening(mine.secret, price, input_tokens=1, max_output=0) for _ in range(number)])
    admitted = [answer for answer in heard if isinstance(answer, Admitted)]
    refused = [answer for answer in heard if isinstance(answer, errors.BoundReached) and answer.passes]
    assert (len(admitted), len(refused)) == (number // 2, number - number // 2)
    assert {answer.hold_microusd for answer in admitted} == {1}
    balance = await mine.balance()
    assert (balance.balance, balance.held, balance.available) == (number // 2, number // 2, 0)
    assert await broken(mine) == []


async def test_parallel_requests_do_not_pass_one_balance(book: Book) -> None:
    """F1: 64 parallel calls that need 7 microdollars each, of a balance of 100: exactly 14 are admitted, and 2 are left.

    The others are told to come again, because the balance is held, not gone; once it is gone, they are told what they need.
    """
    mine = await tenant(credit_microusd=100)
    price = listed(book, "echo")
    processes = [calls(book), calls(book, batch=3), calls(book, batch=1)]
    heard = await together(processes, [opening(mine.secret, price, input_tokens=7, max_output=0) for _ in range(64)])
    assert sum(isinstance(answer, Admitted) for answer in heard) == 14
    assert sum(isinstance(answer, errors.BoundReached) and answer.bound == "balance" and answer.passes for answer in heard) == 50
    balance = await mine.balance()
    assert (balance.held, balance.available) == (98, 2)
    await asyncio.gather(*(processes[0].settle(ending(answer, price, used(7, 0))) for answer in heard if isinstance(answer, Admitted)))
    with pytest.raises(errors.InsufficientCredit) as refusal:
        await processes[0].admit(opening(mine.secret, price, input_tokens=7, max_output=0))
    assert (refusal.value.available_microusd, refusal.value.required_microusd) == (2, 7)
    assert await broken(mine) == []


async def test_a_call_is_clamped_to_what_the_balance_affords(book: Book) -> None:
    """A call whose worst case is too dear gets as much output as there is money for: (25 - 5) / 2 = 10 tokens of 1000."""
    mine = await tenant(credit_microusd=25)
    price = listed(book, "echo")
    admitted = await calls(book).admit(opening(mine.secret, price, input_tokens=5, max_output=1000))
    assert (admitted.hold_microusd, admitted.output_tokens, admitted.clamped) == (25, 10, True)
    await calls(book).settle(ending(admitted, price, used(5, 10)))
    with pytest.raises(errors.InsufficientCredit) as refusal:
        await calls(book).admit(opening(mine.secret, price, input_tokens=5, max_output=1000))
    assert (refusal.value.available_microusd, refusal.value.required_microusd) == (0, 7)
    assert "$0.00 can be spent" in refusal.value.message
    assert "at least $0.000007" in refusal.value.message


async def test_a_stream_holds_one_instalment_of_output(book: Book) -> None:
    """A stream holds its input and a first instalment, 5 + 2 x 10; a call that does not stream holds its worst case, 5 + 2 x 1000."""
    mine = await tenant(credit_microusd=10_000)
    price = listed(book, "echo")
    streamed = await calls(book).admit(opening(mine.secret, price, input_tokens=5, max_output=1000, instalment=10))
    whole = await calls(book).admit(opening(mine.secret, price, input_tokens=5, max_output=1000))
    assert (streamed.hold_microusd, streamed.output_tokens, streamed.clamped) == (25, 10, False)
    assert (whole.hold_microusd, whole.output_tokens, whole.clamped) == (2005, 1000, False)


async def test_a_free_model_is_not_blocked_by_an_empty_balance(book: Book) -> None:
    """F34: a price of 0 is a decision: its calls are admitted without credit, and hold nothing."""
    mine = await tenant()
    admitted = await calls(book).admit(opening(mine.secret, priced("gratis", uncached_input="0", output="0"), input_tokens=500, max_output=500))
    assert (admitted.hold_microusd, admitted.output_tokens, admitted.clamped) == (0, 500, False)
    assert await broken(mine) == []


async def test_a_test_key_reaches_echo_alone_and_touches_no_money(book: Book) -> None:
    """A test key's call of `echo` holds nothing of an empty balance and is charged nothing; any other model is forbidden to it."""
    mine = await tenant()
    _, secret = await mine.mint(mode=ApiKeyMode.TEST)
    echo = listed(book, "echo")
    admitted = await calls(book).admit(opening(secret, echo, input_tokens=9, max_output=90))
    settled = await calls(book).settle(ending(admitted, echo, used(9, 9)))
    assert (admitted.hold_microusd, settled.charge_microusd) == (0, 0)
    with pytest.raises(errors.Forbidden, match="only the built-in model `echo`"):
        await calls(book).admit(opening(secret, listed(book, "gpt-5.5"), input_tokens=9, max_output=90))
    assert (await mine.balance()).balance == 0
    assert await database.fetch_value("SELECT count(*) FROM transfer WHERE workspace_id = $1", mine.workspace_id) == 0
    assert await broken(mine) == []


VERDICTS: list[tuple[str, dict[str, Any], dict[str, Any], type[errors.Refusal], str]] = [
    ("scope", {"scopes": frozenset({Scope.USAGE_READ})}, {}, errors.Forbidden, "lacks scope INFERENCE"),
    ("kind", {"kind": ApiKeyKind.SUBSCRIPTION}, {}, errors.NotOnThisRoute, "tool routes only"),
    ("model", {"allowed_models": ("gpt-5.5",)}, {}, errors.Forbidden, "may not use this model"),
    ("origin", {"allowed_origins": ("https://a.example",)}, {"origin": "https://b.example"}, errors.Forbidden, "from this origin"),
    ("no origin", {"allowed_origins": ("https://a.example",)}, {}, errors.Forbidden, "from this origin"),
    ("address", {"allowed_addresses": ("203.0.113.0/24",)}, {"address": "203.0.114.1"}, errors.Forbidden, "from this address"),
    ("no address", {"allowed_addresses": ("203.0.113.0/24",)}, {}, errors.Forbidden, "from this address"),
]


@pytest.mark.parametrize(("new", "call", "refusal", "words"), [verdict[1:] for verdict in VERDICTS], ids=[verdict[0] for verdict in VERDICTS])
async def test_a_key_is_refused_what_it_may_not(book: Book, new: dict[str, Any], call: dict[str, Any], refusal: type[errors.Refusal], words: str) -> None:
    """What a key is restricted to is decided in the admission itself; a refused call holds nothing and leaves no record."""
    mine = await tenant(credit_microusd=1000)
    _, secret = await mine.mint(**({"scopes": WORKSPACE_SCOPES} | new))
    with pytest.raises(refusal, match=words):
        await calls(book).admit(opening(secret, listed(book, "echo"), input_tokens=1, max_output=1, **call))
    assert (await mine.balance()).held == 0
    assert await database.fetch_value('SELECT count(*) FROM "call" WHERE workspace_id = $1', mine.workspace_id) == 0


async def test_a_key_is_let_in_where_it_may(book: Book) -> None:
    """The same restrictions let in what they name: the model by its own name, however it was asked for, the origin, the address."""
    mine = await tenant(credit_microusd=1000)
    _, secret = await mine.mint(allowed_models=("echo",), allowed_origins=("https://a.example",), allowed_addresses=("203.0.113.0/24", "2001:db8::/32"))
    asked: dict[str, Any] = {"requested_model": "alias", "origin": "https://a.example"}
    for address in ("203.0.113.77", "2001:db8::77"):
        await calls(book).admit(opening(secret, listed(book, "echo"), input_tokens=1, max_output=1, address=address, **asked))
    assert (await mine.balance()).held == 6


async def test_a_subscription_key_never_spends_cash(book: Book) -> None:
    """F25: a subscription key without a subscription is refused on the tools' road too, whatever cash there is; a pay-per-token key is let in there."""
    mine = await tenant(credit_microusd=1000)
    _, secret = await mine.mint(kind=ApiKeyKind.SUBSCRIPTION)
    with pytest.raises(errors.BoundReached, match="no subscription"):
        await calls(book).admit(opening(secret, listed(book, "echo"), input_tokens=1, max_output=1, road="tool"))
    assert (await mine.balance()).held == 0
    await calls(book).admit(opening(mine.secret, listed(book, "echo"), input_tokens=1, max_output=1, road="tool"))
    assert (await mine.balance()).held == 3


async def test_a_stopped_workspace_lets_nothing_in(book: Book) -> None:
    """When its owner has stopped all calls, every key of the workspace is refused."""
    mine = await tenant(credit_microusd=1000)
    await database.fetch("UPDATE workspace SET stopped_at = clock_timestamp() WHERE id = $1", mine.workspace_id)
    with pytest.raises(errors.Forbidden, match="stopped by its owner"):
        await calls(book).admit(opening(mine.secret, listed(book, "echo"), input_tokens=1, max_output=1))


async def test_a_revoked_key_fails_on_its_very_next_call(book: Book) -> None:
    """K1, F28: once `revoke` has returned, the next admission fails in every process, and a call under way is settled as it would have been."""
    mine = await tenant(credit_microusd=1000)
    processes = [calls(book), calls(book, batch=1)]
    price = listed(book, "echo")
    under_way = await processes[0].admit(opening(mine.secret, price, input_tokens=1, max_output=10))
    await keys.revoke(mine.caller(), mine.key.id)
    for process in processes:
        with pytest.raises(errors.Unauthenticated):
            await process.admit(opening(mine.secret, price, input_tokens=1, max_output=1))
    assert (await processes[1].settle(ending(under_way, price, used(1, 10)))).charge_microusd == 21
    assert await broken(mine) == []


async def test_an_expired_or_unknown_key_is_not_believed(book: Book) -> None:
    """An expired key, an unknown one, and one whose grace is over all hear the same."""
    mine = await tenant(credit_microusd=1000)
    price = listed(book, "echo")
    expired, secret = await mine.mint(expires_at=datetime.now(UTC) + timedelta(hours=1))
    await database.fetch("UPDATE api_key SET expires_at = clock_timestamp() WHERE workspace_id = $1 AND id = $2", mine.workspace_id, expired.id)
    rotated, old = await mine.mint()
    await keys.rotate(mine.caller(), rotated.id, 0)
    messages = set()
    for one in (secret, old, "tg_live_" + "0" * 36):
        with pytest.raises(errors.Unauthenticated) as refusal:
            await calls(book).admit(opening(one, price, input_tokens=1, max_output=1))
        messages.add(refusal.value.message)
    assert messages == {"This API key is unknown, revoked or expired."}


async def test_a_client_that_leaves_while_it_is_admitted_leaves_no_hold(book: Book) -> None:
    """F4, F5: admissions that are cancelled at any turn of the loop end with nothing held, nothing charged, and clean books."""
    mine = await tenant(credit_microusd=1_000_000)
    price = listed(book, "echo")
    process = calls(book)
    for turns in range(20):
        admission = asyncio.create_task(process.admit(opening(mine.secret, price, input_tokens=5, max_output=50)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not admission.cancel():  # a busy machine may have let it in by now: then it ends as any call does
            await process.settle(ending(await admission, price, used(0, 0)))
            continue
        with pytest.raises(asyncio.CancelledError):
            await admission
    await process.close()
    balance = await mine.balance()
    assert (balance.balance, balance.held, balance.available) == (1_000_000, 0, 1_000_000)
    open_holds = await database.fetch_value("SELECT count(*) FROM hold WHERE workspace_id = $1 AND state = 'open'", mine.workspace_id)
    assert open_holds == 0
    assert await broken(mine) == []


async def test_an_admission_that_is_sent_again_keeps_its_first_hold(book: Book) -> None:
    """When a connection breaks around a commit the same call is asked for again: one call, one hold, the same answer."""
    mine = await tenant(credit_microusd=1000)
    price = listed(book, "echo")
    asked = opening(mine.secret, price, input_tokens=5, max_output=10)
    first = await calls(book).admit(asked)
    item = {"n": 0, "again": True, "id": str(asked.id), "hash": asked.fingerprint, "road": "generic", "echo": True, "candidates": ["echo"], "requested_model": "echo"}
    amounts = {"instalment": 10, "max_output": 10, "input_tokens": 5, "input_picousd": asked.input_picousd, "output_picousd": asked.output_picousd}
    row = await database.fetch_row("SELECT * FROM admit_6(json_build_array($1::json), true)", as_json(item | amounts))
    assert row is not None
    assert (row["verdict"], row["hold_microusd"], row["output"]) == ("admitted", first.hold_microusd, first.output_tokens)
    assert (await mine.balance()).held == 25
    assert await broken(mine) == []


def as_json(item: dict[str, Any]) -> str:
    """Return JSON text, as the batches send it."""
    return msgspec.json.encode(item).decode()
