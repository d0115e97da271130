"""`python -m bench.soak`: an hour of calls, streams and reports on one server with its worker inside, and what memory it has minute by minute."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import uvloop

from bench import answers, legs, load, stage
from bench.processes import memory_mebibytes, on_cores, split_cores
from bench.rounds import table, write_json
from bench.stage import Stage, Tenant, WrongBooks
from domain.money.catalogue import Book

STREAM = (100, 10)
TURN_SECONDS = 1.0
"""Each turn begins with calls and streams, one connection each way, and ends with a report."""
WARM_MINUTES = 5
GOAL_MEBIBYTES, GOAL_GROWTH = 200.0, 1.05
REPORT = b'{"query": "{ usage(range: { last: LAST_7_DAYS }) { totals { requests cost { microUsd } } series { start metrics { tokens } } } }"}'


def _requests(port: int, secret: str) -> list[tuple[bytes, load.Expected]]:
    """Return calls and streams of both dialects, with what must come back."""
    return [
        (load.http_request(port, path, answers.request_body(dialect, model, 400, streamed=chunks is not None), secret), load.Expected(dialect, chunks))
        for dialect, path in answers.PATHS.items()
        for model, chunks in ((answers.WHOLE_MODEL, None), (answers.stream_model(*STREAM), STREAM[0]))
    ]


async def _report(port: int, secret: str) -> None:
    """Ask for a report; raises WrongBooks when there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(load.http_request(port, "/graphql", REPORT, secret).replace(b"user-agent", b"connection: close\r\nuser-agent", 1))
    told = await reader.read()
    writer.close()
    if b'"requests":' not in told:
        raise WrongBooks(f"a report says {told[-300:]!r}")


async def _measure(port: int, pid: int, tenant: Tenant, minutes: int, connections: int) -> tuple[list[float], int]:
    """Return the memory after each minute, and how many answers there were; raises RuntimeError for a wrong one."""
    asked, count, began = _requests(port, tenant.secret), 0, time.monotonic()
    found: list[float] = []
    while len(found) < minutes:
        for request, expected in asked:
            tally = await load.run(port, request, expected, connections=connections, seconds=TURN_SECONDS / 10)
            if tally.errors:
                raise RuntimeError(f"{dict(tally.errors)} beside {tally.answers} right answers")
            count += tally.answers
        await _report(port, tenant.secret)
        await asyncio.sleep(max(0.0, TURN_SECONDS - (time.monotonic() - began) % TURN_SECONDS))
        if time.monotonic() - began >= 60 * (len(found) + 1):
            found.append(memory_mebibytes(pid))
            print(f"minute {len(found)}: {found[-1]:.1f} MiB, {count:,} answers", file=sys.stderr)
    return found, count


async def run(minutes: int, connections: int) -> tuple[list[float], int]:
    """Start everything, and prove the books at the end; raises WrongBooks and RuntimeError."""
    models = [answers.WHOLE_MODEL, answers.stream_model(*STREAM)]
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(Stage())
        async with place.books():
            await stage.offer(models)
            book = Book()
            await book.refresh()
            price = book.price(models[0], stage.now())
            assert price is not None
            tenant = await stage.tenant("soak")
            direct = stack.enter_context(legs.mock(place))
            (real,) = stack.enter_context(legs.metered(place, direct.port, models, {"metered": tenant}, worker=True))
            stack.enter_context(on_cores(split_cores()[1]))
            found, count = await _measure(real.port, real.pid, tenant, minutes, connections)
            await stage.check_books({tenant.workspace_id: count * stage.cost_picousd(price, answers.USED)})
            return found, count


def _rows(found: Sequence[float]) -> list[tuple[str, str]]:
    shown = sorted({0, WARM_MINUTES - 1, *range(9, len(found), 10), len(found) - 1})
    return [(f"{minute + 1}", f"{found[minute]:.1f}") for minute in shown if minute < len(found)]


@click.command()
@click.option("--minutes", default=60, show_default=True)
@click.option("--connections", default=8, show_default=True, help="How many calls, and then streams, there are at once.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON lines here and not to stdout.")
def main(minutes: int, connections: int, path: Path | None) -> None:
    """Say whether memory stays where it is; exits with 1 when an answer or the books were wrong."""
    try:
        found, count = uvloop.run(run(minutes, connections))
    except (WrongBooks, RuntimeError) as error:
        sys.exit(f"The run does not count: {error}")
    print(table(("minute", "MiB"), _rows(found)))
    warm, last = max(found[: WARM_MINUTES + 1]), found[-1]
    for what, value, goal in (("memory at the end in MiB", last, GOAL_MEBIBYTES), (f"of that in the first {WARM_MINUTES} minutes", last / warm, GOAL_GROWTH)):
        print(f"  {what}: {value:.2f}, goal at most {goal:g}: {'reached' if value <= goal else 'MISSED'}")
    print(f"\n{count:,} answers; charges were answers times price to the picodollar, and audit was empty.\n")
    write_json(path, [{"bench": "soak", "minute": minute + 1, "memory_mebibytes": round(value, 1)} for minute, value in enumerate(found)])


if __name__ == "__main__":
    main()
