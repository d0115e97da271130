"""Rounds of legs: each scenario is run on every leg in turn, again and again, so that what the machine does besides falls on all alike."""

import contextlib
import json
import statistics
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import answers, legs, load, stage
from bench.answers import DialectName
from bench.legs import Leg
from bench.processes import cpu_microseconds, on_cores, peak_memory_mebibytes, split_cores
from bench.stage import EIGHT_BOUNDS, Stage
from domain.money.catalogue import Book, PriceVersion

WARM_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load; `stream` is chunks and milliseconds between them, `bounded` adds the leg whose key has eight bounds."""

    name: str
    connections: int
    prompt_bytes: int
    stream: tuple[int, int] | None = None
    bounded: bool = False

    @property
    def model(self) -> str:
        """The model to ask for."""
        return answers.stream_model(*self.stream) if self.stream else answers.WHOLE_MODEL


@dataclass(slots=True)
class Sample:
    """One leg of one round; processor time in microseconds, latencies and delays in milliseconds."""

    answers: int
    chunks: int
    seconds: float
    gateway_us: int
    postgres_us: int
    latency_p50_ms: float
    latency_p99_ms: float
    delay_p50_ms: float
    delay_p99_ms: float


@dataclass(slots=True)
class Course:
    """All samples of one leg in one scenario."""

    leg: str
    samples: list[Sample] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    memory_mebibytes: float = 0.0

    def median(self, of: str, per: str | None = None) -> float:
        """Return the median over the rounds of a number, by answer or by chunk."""
        values: list[float] = [getattr(sample, of) / (max(getattr(sample, per), 1) if per else 1) for sample in self.samples]
        return statistics.median(values)


class Field:
    """Everything that a run compares, started; and what each tenant should have paid."""

    def __init__(self, all_legs: Sequence[Leg], price: PriceVersion) -> None:
        self.legs = all_legs
        self._each_picousd = stage.cost_picousd(price, answers.USED)
        self._answers: dict[str, int] = {}

    async def sample(self, leg: Leg, scenario: Scenario, dialect: DialectName, seconds: float) -> tuple[Sample, load.Tally]:
        """Run one leg once, and prove its books."""
        body = answers.request_body(dialect, scenario.model, scenario.prompt_bytes, streamed=scenario.stream is not None)
        request = load.http_request(leg.port, answers.PATHS[dialect], body, leg.tenant.secret if leg.tenant else None)
        expected = load.Expected(dialect, scenario.stream[0] if scenario.stream else None, leg.rewrites)
        before = cpu_microseconds(leg.pid), cpu_microseconds(leg.database_pid) if leg.database_pid else 0
        tally = await load.run(leg.port, request, expected, connections=scenario.connections, seconds=seconds)
        after = cpu_microseconds(leg.pid), cpu_microseconds(leg.database_pid) if leg.database_pid else 0
        if leg.tenant:
            self._answers[leg.name] = self._answers.get(leg.name, 0) + tally.answers
        return (
            Sample(
                answers=tally.answers,
                chunks=tally.chunks,
                seconds=tally.seconds,
                gateway_us=after[0] - before[0],
                postgres_us=after[1] - before[1],
                latency_p50_ms=stage.quantile(tally.latencies, 0.5) * 1000,
                latency_p99_ms=stage.quantile(tally.latencies, 0.99) * 1000,
                delay_p50_ms=stage.quantile(tally.delays, 0.5) * 1000,
                delay_p99_ms=stage.quantile(tally.delays, 0.99) * 1000,
            ),
            tally,
        )

    async def check(self, leg: Leg) -> int:
        """Return what a metered leg's tenant has paid by now, in microdollars; raises WrongBooks when it is not exactly answers times price."""
        if leg.tenant is None:
            return 0
        return await stage.check_books({leg.tenant.workspace_id: self._answers.get(leg.name, 0) * self._each_picousd})


@contextlib.asynccontextmanager
async def field_of(scenarios: Sequence[Scenario], dialect: DialectName) -> AsyncIterator[Field]:
    """Start every leg that the scenarios need, on a stage of their own."""
    models = sorted({scenario.model for scenario in scenarios})
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(Stage())
        async with place.books():
            await stage.offer(models)
            book = Book()
            await book.refresh()
            price = book.price(models[0], stage.now())
            assert price is not None
            tenants = {"metered": await stage.tenant("metered")}
            if any(scenario.bounded for scenario in scenarios):
                tenants["metered, 8 bounds"] = await stage.tenant("metered with bounds", bounds=EIGHT_BOUNDS)
            direct = stack.enter_context(legs.mock(place))
            before = stack.enter_context(legs.nginx(place, direct.port))
            plain = stack.enter_context(legs.unmetered(place, direct.port))
            # its own way of cutting streams cannot be told apart chunk by chunk, and it speaks the other dialect only in translation
            other = stack.enter_context(legs.litellm(place, direct.port, models)) if dialect == "openai" and not any(scenario.stream for scenario in scenarios) else None
            real = stack.enter_context(legs.metered(place, direct.port, models, tenants))
            stack.enter_context(on_cores(split_cores()[1]))
            yield Field([leg for leg in (direct, before, plain, other, *real) if leg is not None], price)


async def compare(scenarios: Sequence[Scenario], *, dialect: DialectName, seconds: float, rounds: int) -> dict[str, dict[str, Course]]:
    """Run every scenario on every leg, in rounds; raises WrongBooks, and RuntimeError when an answer was wrong or missing on any leg."""
    found: dict[str, dict[str, Course]] = {}
    async with field_of(scenarios, dialect) as ground:
        for scenario in scenarios:
            courses = found[scenario.name] = {}
            running = [leg for leg in ground.legs if scenario.bounded or leg.name != "metered, 8 bounds"]
            for number in range(rounds + 1):  # the first round warms up
                for leg in running:
                    course = courses.setdefault(leg.name, Course(leg.name))
                    sample, tally = await ground.sample(leg, scenario, dialect, seconds if number else WARM_SECONDS)
                    if tally.errors:
                        raise RuntimeError(f"{scenario.name}, {leg.name}: {dict(tally.errors)} beside {tally.answers} right answers")
                    if number:
                        course.samples.append(sample)
                    course.memory_mebibytes = peak_memory_mebibytes(leg.pid)
                    await ground.check(leg)
                print(f"{scenario.name}: round {number} of {rounds}", file=sys.stderr)
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay a table out for a terminal; the first column is text, the others numbers."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    laid = ["  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(zip(line, widths, strict=True))) for line in lines]
    return "\n".join([laid[0], "  ".join("-" * width for width in widths), *laid[1:]])


def ratio(value: float, base: float | None) -> str:
    """Write a ratio, or a dash where there is nothing to compare with."""
    return f"{value / base:.2f}" if base else "-"


def write_json(path: Path | None, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, to a file or to stdout."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if path is None:
        print(text, end="")
    else:
        path.write_text(text)
