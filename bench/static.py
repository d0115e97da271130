"""`python -m bench.static`: files of a hosted app, by `manage.py hosting` and by nginx from a folder, side by side in one run."""

import contextlib
import hashlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import uvloop

from bench import legs, load, stage
from bench.legs import Leg
from bench.processes import cpu_microseconds, on_cores, split_cores
from bench.rounds import WARM_SECONDS, Course, Sample, ratio, table, write_json
from bench.stage import Stage
from clients.compressor import Compressor
from clients.storage import Storage
from domain import duties
from domain.access import workspaces
from domain.access.callers import WORKSPACE_SCOPES, Caller
from domain.apps import deployments, publishing, registry
from domain.apps.deployments import NewFile
from domain.apps.registry import NewApp
from models import database

SLUG = "bench-app"
FILES = {"index.html": 1_000, "assets/app-1a2b3c4d.js": 20_000, "assets/photo-5e6f7a8b.png": 200_000}
SCENARIOS = tuple((path, connections) for path in FILES for connections in (32, 1))
GOAL_OF_NGINX = 3.0
HEAD = ("leg", "server us", "postgres us", "both us", "x nginx", "requests/s", "p50 ms", "p99 ms")
MICROS = 1_000


@dataclass(frozen=True, slots=True)
class Content(load.Expected):
    """A file as it must come back."""

    content: bytes = b""

    @property
    def body(self) -> bytes:
        """Its bytes."""
        return self.content


def content_of(path: str) -> bytes:
    """Return a file's bytes, which compress to nothing much."""
    seed = hashlib.sha512(path.encode()).hexdigest().encode()
    return (seed * (FILES[path] // len(seed) + 1))[: FILES[path]]


async def publish(place: Stage) -> None:
    """Make the app and its only version live, as a worker does."""
    at = stage.now()
    workspace = await workspaces.create_for(None, "bench", "UTC", at=at)
    caller = Caller(at=at, workspace_id=workspace.id, name="benchmark", scopes=WORKSPACE_SCOPES)
    app = await registry.create(caller, NewApp(SLUG, "Bench"))
    store = Storage.in_folder(place.folder / "data" / "files")
    files = [NewFile(path, size, hashlib.sha256(content_of(path)).hexdigest()) for path, size in FILES.items()]
    begun, missing = await deployments.create(caller, app.id, files)
    for upload in missing:
        await store.put(upload.key, content_of(upload.path))
    await deployments.finalize(caller, begun.id, store)
    duty = await duties.claim(await database.fetch_value("SELECT job_id FROM deployment WHERE id = $1", begun.id))
    assert duty is not None
    await publishing.publish(duty, store, Compressor())


@contextlib.asynccontextmanager
async def field() -> AsyncIterator[list[Leg]]:
    """Start both servers over the same files."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(Stage())
        async with place.books():
            await publish(place)
        root = place.folder / "root"
        for path in FILES:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content_of(path))
        found = [stack.enter_context(legs.static_nginx(place, root)), stack.enter_context(legs.hosting(place))]
        stack.enter_context(on_cores(split_cores()[1]))
        yield [leg for leg in found if leg is not None]


async def sample(leg: Leg, path: str, connections: int, seconds: float) -> Sample:
    """Ask a leg for a file again and again; raises RuntimeError when an answer was wrong or missing."""
    host = f"{SLUG}.localhost:{leg.port}"
    browser = "user-agent: Mozilla/5.0 (X11; Linux x86_64) bench\r\naccept: */*\r\naccept-encoding: identity\r\naccept-language: en\r\nconnection: keep-alive"
    request = f"GET /{path} HTTP/1.1\r\nhost: {host}\r\n{browser}\r\n\r\n".encode()
    before = cpu_microseconds(leg.pid), cpu_microseconds(leg.database_pid) if leg.database_pid else 0
    tally = await load.run(leg.port, request, Content("openai", None, content=content_of(path)), connections=connections, seconds=seconds)
    after = cpu_microseconds(leg.pid), cpu_microseconds(leg.database_pid) if leg.database_pid else 0
    if tally.errors:
        raise RuntimeError(f"{path}, {leg.name}: {dict(tally.errors)} beside {tally.answers} right answers")
    return Sample(
        answers=tally.answers,
        chunks=0,
        seconds=tally.seconds,
        gateway_us=after[0] - before[0],
        postgres_us=after[1] - before[1],
        latency_p50_ms=stage.quantile(tally.latencies, 0.5) * 1000,
        latency_p99_ms=stage.quantile(tally.latencies, 0.99) * 1000,
        delay_p50_ms=0.0,
        delay_p99_ms=0.0,
    )


async def compare(seconds: float, rounds: int) -> dict[str, dict[str, Course]]:
    """Run every file on every leg, in turns."""
    found: dict[str, dict[str, Course]] = {}
    async with field() as running:
        for path, connections in SCENARIOS:
            name = f"{FILES[path] // MICROS} KB, {connections} connection{'s' if connections > 1 else ''}"
            courses = found[name] = {leg.name: Course(leg.name) for leg in running}
            for number in range(rounds + 1):  # the first round warms up
                for leg in running:
                    taken = await sample(leg, path, connections, seconds if number else WARM_SECONDS)
                    if number:
                        courses[leg.name].samples.append(taken)
            print(f"{name}: {rounds} rounds", file=sys.stderr)
    return found


def cost(course: Course) -> float:
    """Return the processor time of an answer in microseconds, the database's with it."""
    return course.median("gateway_us", "answers") + course.median("postgres_us", "answers")


def _row(course: Course, nginx: float | None) -> list[str]:
    return [
        course.leg,
        f"{course.median('gateway_us', 'answers'):.1f}",
        f"{course.median('postgres_us', 'answers'):.1f}",
        f"{cost(course):.1f}",
        ratio(cost(course), nginx),
        f"{course.median('answers', 'seconds'):.0f}",
        f"{course.median('latency_p50_ms'):.2f}",
        f"{course.median('latency_p99_ms'):.2f}",
    ]


def _lines(found: dict[str, dict[str, Course]]) -> Iterator[dict[str, Any]]:
    for scenario, courses in found.items():
        nginx = cost(courses["nginx"]) if "nginx" in courses else None
        for course in courses.values():
            of_nginx = round(cost(course) / nginx, 3) if nginx else None
            yield {"bench": "static", "scenario": scenario, "leg": course.leg, "us": round(cost(course), 1), "of_nginx": of_nginx}


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="How long each leg of each round runs.")
@click.option("--rounds", default=3, show_default=True, help="How often every leg runs; the medians are over these.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON lines here and not to stdout.")
def main(seconds: float, rounds: int, path: Path | None) -> None:
    """Compare static answers; exits with 1 when any was wrong."""
    try:
        found = uvloop.run(compare(seconds, rounds))
    except RuntimeError as error:
        sys.exit(f"The run does not count: {error}")
    for scenario, courses in found.items():
        nginx = cost(courses["nginx"]) if "nginx" in courses else None
        print(f"\n{scenario} (processor time for an answer)")
        print(table(HEAD, (_row(course, nginx) for course in courses.values())))
        if nginx:
            reached = cost(courses["hosting"]) / nginx
            print(f"  static answer: {reached:.1f} times nginx, goal at most {GOAL_OF_NGINX:.0f}: {'reached' if reached <= GOAL_OF_NGINX else 'MISSED'}")
    write_json(path, _lines(found))


if __name__ == "__main__":
    main()
