"""`python -m bench.ledger`: admissions and settlements a second, in groups and alone, beside one guarded UPDATE each."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import click
import uvloop

from bench import answers, stage
from bench.processes import cpu_microseconds
from bench.rounds import table, write_json
from bench.stage import Stage, Tenant, WrongBooks
from domain.access.secrets import fingerprint
from domain.money.catalogue import Book, PriceVersion
from domain.serving.calls import Admitted, AttemptMade, Calls, Consumption, Ending, Opening
from embedded.provision import DATABASE, OWNER
from models import database
from models.enums import UsageOutcome
from models.ids import uuid7

BATCHES = (1, 50, 500)
MANY = 100
POOL = 12
HOLD_MICROUSD = 487
TABLE = """
CREATE TABLE guarded (LIKE account INCLUDING ALL);
ALTER TABLE guarded SET (fillfactor = 50);
INSERT INTO guarded SELECT * FROM account WHERE kind = 'cash';
GRANT SELECT, UPDATE ON guarded TO tallygate_app;
"""
GUARDED = "guarded UPDATE"
WARM_COUNT = 300
HEAD = ("accounts, operation, how", "a second", "our us", "postgres us", "us x UPDATE", "rate x UPDATE")
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class Course:
    """What one way of doing one operation took, over all rounds: seconds, and microseconds of processor time here and in Postgres."""

    accounts: int
    how: str
    operation: str
    done: int = 0
    seconds: float = 0.0
    own_us: float = 0.0
    postgres_us: float = 0.0

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.done / self.seconds

    @property
    def each_us(self) -> float:
        """Processor time for one, in microseconds, here and in Postgres."""
        return (self.own_us + self.postgres_us) / self.done


Courses = dict[tuple[int, str, str], Course]


def groups(batch: int) -> str:
    """Name the way of groups of at most so many."""
    return f"groups of {batch}"


@dataclass(slots=True)
class Run:
    """One run: who pays, and what each should have paid in the end."""

    tenants: Sequence[Tenant]
    price: PriceVersion
    postgres_pid: int
    settled: dict[UUID, int] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def timed(self, course: Course, done: int) -> AsyncIterator[None]:
        """Add what happens inside to a course."""
        before, own, started = cpu_microseconds(self.postgres_pid), time.process_time(), time.perf_counter()
        yield
        course.seconds += time.perf_counter() - started
        course.own_us += (time.process_time() - own) * 1e6
        course.postgres_us += cpu_microseconds(self.postgres_pid) - before
        course.done += done


def opening(tenant: Tenant, price: PriceVersion) -> Opening:
    """Return a call that asks to be let in, as the proxy would write it."""
    return Opening(
        id=uuid7(),
        fingerprint=fingerprint(tenant.secret),
        road="generic",
        endpoint="/v1/chat/completions",
        api_name="chat",
        dialect="openai",
        requested_model=answers.WHOLE_MODEL,
        model=answers.WHOLE_MODEL,
        echo=False,
        upstream="mock",
        price=price,
        streamed=False,
        input_tokens=answers.INPUT_TOKENS,
        requested_max_output=512,
        max_output_tokens=512,
        instalment_tokens=512,
        created_at=stage.now(),
    )


def ending(admitted: Admitted, opened: Opening) -> Ending:
    """Return its end: the fixed usage, one attempt."""
    at = stage.now()
    attempt = AttemptMade(
        id=uuid7(),
        number=1,
        upstream="mock",
        model=opened.model,
        outcome=UsageOutcome.SUCCEEDED,
        http_status=200,
        error_code=None,
        started_at=opened.created_at,
        first_byte_at=at,
        finished_at=at,
    )
    used = {bucket.value: quantity for bucket, quantity in answers.USED.items()}
    return Ending(
        workspace_id=admitted.workspace_id,
        call_id=opened.id,
        model=opened.model,
        provider="mock",
        price=opened.price,
        consumption=Consumption(model=opened.model, quantities=used, reported=True),
        outcome=UsageOutcome.SUCCEEDED,
        http_status=200,
        error_code=None,
        latency_ms=12,
        attempts=(attempt,),
    )


async def _at_once(work: Callable[[Item], Awaitable[Answer]], items: Sequence[Item], at_once: int) -> list[Answer]:
    gate = asyncio.Semaphore(at_once)

    async def one(item: Item) -> Answer:
        async with gate:
            return await work(item)

    return await asyncio.gather(*(one(item) for item in items))


async def _guarded_hold(tenant: Tenant) -> None:
    held = await database.fetch_value(
        "UPDATE guarded SET held = held + $2, updated_at = now() WHERE workspace_id = $1 AND credits - debits - held - floor >= $2 RETURNING held",
        tenant.workspace_id,
        HOLD_MICROUSD,
    )
    assert held is not None


async def _guarded_charge(tenant: Tenant) -> None:
    left = await database.fetch_value(
        "UPDATE guarded SET held = held - $2, debits = debits + $2, updated_at = now() WHERE workspace_id = $1 AND held >= $2 RETURNING credits - debits",
        tenant.workspace_id,
        HOLD_MICROUSD,
    )
    assert left is not None


async def _by_updates(run: Run, accounts: int, count: int, at_once: int, courses: Courses) -> None:
    payers = [run.tenants[number % accounts] for number in range(count)]
    for operation, work in (("admit", _guarded_hold), ("settle", _guarded_charge)):
        course = courses.setdefault((accounts, GUARDED, operation), Course(accounts, GUARDED, operation))
        async with run.timed(course, count):
            await _at_once(work, payers, at_once)


async def _by_calls(
    run: Run, calls: Calls, batch: int, accounts: int, count: int, at_once: int, courses: Courses
) -> None:
    how = groups(batch)
    opened = [opening(run.tenants[number % accounts], run.price) for number in range(count)]
    course = courses.setdefault((accounts, how, "admit"), Course(accounts, how, "admit"))
    async with run.timed(course, count):
        admitted = await _at_once(calls.admit, opened, at_once)
    endings = [ending(one, other) for one, other in zip(admitted, opened, strict=True)]
    course = courses.setdefault((accounts, how, "settle"), Course(accounts, how, "settle"))
    async with run.timed(course, count):
        await _at_once(calls.settle, endings, at_once)
    for one in admitted:
        run.settled[one.workspace_id] = run.settled.get(one.workspace_id, 0) + 1


async def compare(*, seconds: float, rounds: int, at_once: int) -> list[Course]:
    """Run everything in rounds, each operation for about `seconds`; raises WrongBooks."""
    courses: Courses = {}
    counts: dict[tuple[int, str], int] = {}
    with Stage() as place:
        async with place.books(pool=POOL):
            await stage.offer([answers.WHOLE_MODEL])
            book = Book()
            await book.refresh()
            price = book.price(answers.WHOLE_MODEL, stage.now())
            assert price is not None
            each_picousd = stage.cost_picousd(price, answers.USED)
            tenants = [await stage.tenant(f"tenant {number}") for number in range(MANY)]
            place.postgres.run_sql(TABLE, database=DATABASE, role=OWNER)
            assert place.postgres.pid is not None
            run = Run(tenants, price, place.postgres.pid)
            for number in range(rounds + 1):  # the first round warms up, and tells how many fit into `seconds`
                for accounts in (1, MANY):
                    await _by_updates(run, accounts, counts.get((accounts, GUARDED), WARM_COUNT), at_once, courses)
                    for batch in BATCHES:
                        calls = Calls(book, batch=batch, hold_seconds=600)
                        await _by_calls(run, calls, batch, accounts, counts.get((accounts, groups(batch)), WARM_COUNT), at_once, courses)
                        await calls.close()
                        await stage.check_books({workspace: settled * each_picousd for workspace, settled in run.settled.items()})
                print(f"round {number} of {rounds}", file=sys.stderr)
                if number == 0:
                    for course in courses.values():
                        fits = max(WARM_COUNT, int(course.rate * seconds))
                        counts[course.accounts, course.how] = min(fits, counts.get((course.accounts, course.how), fits))
                    courses = {}
    return list(courses.values())


def _lines(courses: Sequence[Course]) -> Iterator[dict[str, Any]]:
    for course in courses:
        yield {
            "bench": "ledger",
            "accounts": course.accounts,
            "how": course.how,
            "operation": course.operation,
            "done": course.done,
            "per_second": round(course.rate, 1),
            "own_us": round(course.own_us / course.done, 1),
            "postgres_us": round(course.postgres_us / course.done, 1),
            "of_guarded_update": round(course.each_us / _guarded(courses, course).each_us, 3),
        }


def _guarded(courses: Sequence[Course], course: Course) -> Course:
    return next(other for other in courses if (other.accounts, other.operation, other.how) == (course.accounts, course.operation, GUARDED))


def _rows(courses: Sequence[Course]) -> Iterator[list[str]]:
    for course in sorted(courses, key=lambda course: (course.accounts, course.operation)):
        yield [
            f"{course.accounts}, {course.operation}, {course.how}",
            f"{course.rate:.0f}",
            f"{course.own_us / course.done:.0f}",
            f"{course.postgres_us / course.done:.0f}",
            f"{course.each_us / _guarded(courses, course).each_us:.2f}",
            f"{course.rate / _guarded(courses, course).rate:.2f}",
        ]


@click.command()
@click.option("--seconds", default=1.5, show_default=True, help="About how long each operation runs in each round.")
@click.option("--rounds", default=3, show_default=True, help="How often everything runs.")
@click.option("--at-once", default=500, show_default=True, help="How many operations are under way at once.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON lines here and not to stdout.")
def main(seconds: float, rounds: int, at_once: int, path: Path | None) -> None:
    """Compare the ledger's hot path with guarded UPDATEs; exits with 1 when the books were wrong."""
    try:
        courses = uvloop.run(compare(seconds=seconds, rounds=rounds, at_once=at_once))
    except WrongBooks as error:
        sys.exit(f"The run does not count: {error}")
    print("\nProcessor time for one operation; a guarded UPDATE moves a counter in a table of its own, and records nothing.")
    print(table(HEAD, _rows(courses)))
    print("\nBooks: after every group charges were calls times price to the picodollar, and audit was empty.\n")
    write_json(path, _lines(courses))


if __name__ == "__main__":
    main()
