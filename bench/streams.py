"""`python -m bench.streams`: streams of 100 chunks, and of 400, our metered path beside our unmetered one and nginx, in one run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import uvloop

from bench.answers import DialectName
from bench.rounds import Course, Scenario, compare, ratio, table, write_json
from bench.stage import WrongBooks

CHUNKS = 100
HELD = "500 streams held, 10 ms apart"
SCENARIOS = (
    Scenario("4 streams, 0 ms apart", 4, 400, (CHUNKS, 0)),
    Scenario("4 streams, 10 ms apart", 4, 400, (CHUNKS, 10)),
    Scenario("50 streams, 10 ms apart", 50, 400, (CHUNKS, 10)),
    Scenario("50 streams of 400 chunks, 10 ms apart", 50, 400, (4 * CHUNKS, 10)),
    Scenario(HELD, 500, 400, (CHUNKS, 10)),
)
GOAL_CHUNK_OF_NGINX = 2.0
GOAL_METERING_OF_UNMETERED = 1.3
GOAL_DELAY_OF_NGINX = 2.0
GOAL_RATE_OF_NGINX = 0.8
GOAL_MEMORY_MEBIBYTES = 200
HEAD = ("leg", "gateway us", "postgres us", "both us", "x nginx", "x unmetered", "chunks/s", "delay p50", "delay p99", "MiB")


def _cost(course: Course) -> float:
    """Return the processor time for a chunk, gateway and database together, in microseconds."""
    return course.median("gateway_us", "chunks") + course.median("postgres_us", "chunks")


def _rows(courses: dict[str, Course]) -> Iterator[list[str]]:
    nginx, unmetered = courses.get("nginx"), courses["unmetered"]
    for course in courses.values():
        yield [
            course.leg,
            f"{course.median('gateway_us', 'chunks'):.1f}",
            f"{course.median('postgres_us', 'chunks'):.1f}",
            f"{_cost(course):.1f}",
            ratio(_cost(course), _cost(nginx) if nginx else None),
            ratio(_cost(course), _cost(unmetered)),
            f"{course.median('chunks', 'seconds'):.0f}",
            f"{course.median('delay_p50_ms'):.2f}",
            f"{course.median('delay_p99_ms'):.1f}",
            f"{course.memory_mebibytes:.0f}",
        ]


def goals(scenario: str, courses: dict[str, Course]) -> Iterator[str]:
    """Say for each goal of a scenario whether it is reached, and by how much it is not."""
    metered, unmetered, nginx = courses["metered"], courses["unmetered"], courses.get("nginx")

    def told(what: str, value: float, goal: float, *, least: bool = False) -> str:
        reached = value >= goal if least else value <= goal
        return f"{what}: {value:.2f}, goal at {'least' if least else 'most'} {goal:g}: {'reached' if reached else 'MISSED'}"

    if "10 ms" in scenario:
        if nginx:
            yield told("processor time for a chunk, of nginx", _cost(metered) / _cost(nginx), GOAL_CHUNK_OF_NGINX)
        yield told("metered stream, of unmetered", _cost(metered) / _cost(unmetered), GOAL_METERING_OF_UNMETERED)
    if scenario.startswith("50 ") and nginx:
        direct = courses["direct"].median("delay_p50_ms")
        added, theirs = metered.median("delay_p50_ms") - direct, nginx.median("delay_p50_ms") - direct
        yield told(f"median delay added ({added:.2f} ms, nginx {theirs:.2f} ms), of nginx", added / max(theirs, 0.001), GOAL_DELAY_OF_NGINX)
    if scenario == HELD:
        if nginx:
            yield told("chunk rate, of nginx", metered.median("chunks", "seconds") / nginx.median("chunks", "seconds"), GOAL_RATE_OF_NGINX, least=True)
        yield told("peak memory of the gateway in MiB", metered.memory_mebibytes, GOAL_MEMORY_MEBIBYTES)


def _lines(found: dict[str, dict[str, Course]]) -> Iterator[dict[str, Any]]:
    for scenario, courses in found.items():
        nginx = courses.get("nginx")
        for course in courses.values():
            yield {
                "bench": "streams",
                "scenario": scenario,
                "leg": course.leg,
                "streams": sum(sample.answers for sample in course.samples),
                "gateway_us_per_chunk": round(course.median("gateway_us", "chunks"), 2),
                "postgres_us_per_chunk": round(course.median("postgres_us", "chunks"), 2),
                "chunks_per_second": round(course.median("chunks", "seconds"), 1),
                "delay_p50_ms": round(course.median("delay_p50_ms"), 3),
                "delay_p99_ms": round(course.median("delay_p99_ms"), 3),
                "stream_p50_ms": round(course.median("latency_p50_ms"), 1),
                "of_nginx": round(_cost(course) / _cost(nginx), 3) if nginx else None,
                "of_unmetered": round(_cost(course) / _cost(courses["unmetered"]), 3),
                "memory_mebibytes": round(course.memory_mebibytes, 1),
            }


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="How long each leg of each round begins new streams.")
@click.option("--rounds", default=3, show_default=True, help="How often every leg runs; the medians are over these.")
@click.option("--dialect", type=click.Choice(["openai", "anthropic"]), default="openai", show_default=True)
@click.option("--only", default="", help="Run only scenarios whose name has this text.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON lines here and not to stdout.")
def main(seconds: float, rounds: int, dialect: DialectName, only: str, path: Path | None) -> None:
    """Compare streams; exits with 1 when any stream or the books were wrong."""
    chosen = [scenario for scenario in SCENARIOS if only in scenario.name]
    try:
        found = uvloop.run(compare(chosen, dialect=dialect, seconds=seconds, rounds=rounds))
    except (WrongBooks, RuntimeError) as error:
        sys.exit(f"The run does not count: {error}")
    for scenario, courses in found.items():
        print(f"\n{scenario} (processor time for a chunk, delays in ms)")
        print(table(HEAD, _rows(courses)))
        for line in goals(scenario, courses):
            print(f"  {line}")
    print("\nBooks: after every metered leg charges were streams times price to the picodollar, and audit was empty.\n")
    write_json(path, _lines(found))


if __name__ == "__main__":
    main()
