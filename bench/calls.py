"""`python -m bench.calls`: calls that do not stream, our metered path beside our unmetered one and nginx, in one run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import uvloop

from bench.answers import DialectName
from bench.rounds import Course, Scenario, compare, ratio, table, write_json
from bench.stage import WrongBooks

SCENARIOS = (
    Scenario("32 connections, small prompt", 32, 400),
    Scenario("128 connections, small prompt", 128, 400, bounded=True),
    Scenario("32 connections, 200 KB prompt", 32, 200_000),
    Scenario("128 connections, 200 KB prompt", 128, 200_000),
)
GOAL_OF_NGINX = 12.0
GOAL_METERING_OF_NGINX = 4.0
GOAL_PARTS_OF_LITELLM = 50.0
HEAD = ("leg", "gateway us", "postgres us", "both us", "x nginx", "x unmetered", "requests/s", "p50 ms", "p99 ms")


def _row(course: Course, nginx: float | None, unmetered: float | None) -> list[str]:
    gateway, postgres = course.median("gateway_us", "answers"), course.median("postgres_us", "answers")
    return [
        course.leg,
        f"{gateway:.0f}",
        f"{postgres:.0f}",
        f"{gateway + postgres:.0f}",
        ratio(gateway + postgres, nginx),
        ratio(gateway + postgres, unmetered),
        f"{course.median('answers', 'seconds'):.0f}",
        f"{course.median('latency_p50_ms'):.1f}",
        f"{course.median('latency_p99_ms'):.1f}",
    ]


def _cost(courses: dict[str, Course], leg: str) -> float | None:
    """Return a leg's processor time for a call, gateway and database together, in microseconds."""
    course = courses.get(leg)
    return None if course is None else course.median("gateway_us", "answers") + course.median("postgres_us", "answers")


def goals(courses: dict[str, Course]) -> Iterator[str]:
    """Say for each goal of a scenario whether it is reached, and by how much it is not."""
    nginx, unmetered = _cost(courses, "nginx"), _cost(courses, "unmetered")
    metered = _cost(courses, "metered, 8 bounds") or _cost(courses, "metered")
    if metered is None or unmetered is None:
        return
    if nginx is None:
        yield "no nginx, no goal: every goal of this scenario is a ratio against it"
        return
    for what, value, goal in (
        ("metered call, gateway and Postgres", metered / nginx, GOAL_OF_NGINX),
        ("metering itself (metered less unmetered)", (metered - unmetered) / nginx, GOAL_METERING_OF_NGINX),
    ):
        yield f"{what}: {value:.1f} times nginx, goal at most {goal:.0f}: {'reached' if value <= goal else 'MISSED'}"

    litellm = _cost(courses, "litellm")
    if litellm is not None:
        parts = litellm / metered
        yield f"metered call: 1/{parts:.0f} of LiteLLM, goal at most 1/{GOAL_PARTS_OF_LITELLM:.0f}: {'reached' if parts >= GOAL_PARTS_OF_LITELLM else 'MISSED'}"


def _lines(found: dict[str, dict[str, Course]]) -> Iterator[dict[str, Any]]:
    for scenario, courses in found.items():
        nginx, unmetered = _cost(courses, "nginx"), _cost(courses, "unmetered")
        for course in courses.values():
            cost = _cost(courses, course.leg)
            assert cost is not None
            yield {
                "bench": "calls",
                "scenario": scenario,
                "leg": course.leg,
                "requests": sum(sample.answers for sample in course.samples),
                "gateway_us": round(course.median("gateway_us", "answers"), 1),
                "postgres_us": round(course.median("postgres_us", "answers"), 1),
                "requests_per_second": round(course.median("answers", "seconds"), 1),
                "latency_p50_ms": round(course.median("latency_p50_ms"), 2),
                "latency_p99_ms": round(course.median("latency_p99_ms"), 2),
                "of_nginx": round(cost / nginx, 3) if nginx else None,
                "of_unmetered": round(cost / unmetered, 3) if unmetered else None,
                "memory_mebibytes": round(course.memory_mebibytes, 1),
            }


@click.command()
@click.option("--seconds", default=2.5, show_default=True, help="How long each leg of each round runs.")
@click.option("--rounds", default=3, show_default=True, help="How often every leg runs; the medians are over these.")
@click.option("--dialect", type=click.Choice(["openai", "anthropic"]), default="openai", show_default=True)
@click.option("--only", default="", help="Run only scenarios whose name has this text.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON lines here and not to stdout.")
def main(seconds: float, rounds: int, dialect: DialectName, only: str, path: Path | None) -> None:
    """Compare calls that do not stream; exits with 1 when any answer or the books were wrong."""
    chosen = [scenario for scenario in SCENARIOS if only in scenario.name]
    try:
        found = uvloop.run(compare(chosen, dialect=dialect, seconds=seconds, rounds=rounds))
    except (WrongBooks, RuntimeError) as error:
        sys.exit(f"The run does not count: {error}")
    for scenario, courses in found.items():
        nginx, unmetered = _cost(courses, "nginx"), _cost(courses, "unmetered")
        print(f"\n{scenario} (processor time for a call)")
        print(table(HEAD, (_row(course, nginx, unmetered) for course in courses.values())))
        for line in goals(courses):
            print(f"  {line}")
    print("\nBooks: after every metered leg charges were requests times price to the picodollar, and audit was empty.\n")
    write_json(path, _lines(found))


if __name__ == "__main__":
    main()
