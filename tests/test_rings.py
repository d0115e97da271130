"""The shape of the program, proven over its syntax tree: which ring may import what, and what every folder and file looks like.

docs/architecture.md says it in words; the tables below are the same as data. A new edge is a decision: write it here, with its reason.
"""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_LINES = 600

# What each ring, a folder or a file of the root, may import of ours.
RINGS: dict[str, set[str]] = {
    "app": {"connections", "exchanges", "settings", "runtime", "logs", "schema", "resolvers", "rest", "proxy", "jobs", "hosting", "console"},
    "manage": {"settings", "logs", "app", "jobs", "operations", "embedded", "domain", "clients"},
    "runtime": {"settings", "configuration", "domain", "clients", "models", "embedded"},
    "connections": {"exchanges"},
    "exchanges": set(),
    "settings": set(),
    "configuration": {"settings"},
    "logs": set(),
    "schema": {"resolvers", "domain"},
    "resolvers": {"domain", "runtime"},
    "rest": {"domain", "runtime"},
    "proxy": {"domain", "runtime", "clients"},
    "jobs": {"domain", "runtime"},
    "hosting": {"domain", "runtime"},
    "operations": {"domain", "clients", "runtime", "models", "settings", "configuration"},
    "domain": {"models"},
    "clients": {"domain"},
    "models": set(),
    "embedded": set(),
    "console": set(),
}
# What stands outside and looks in: it may use every ring, and no ring may use it.
OUTSIDE = ("tests", "bench", "examples")
# What every ring may name, because it is vocabulary and no behaviour: the words that tables store (each door must say them), how ids are
# minted (ids enter at the edge), and which exceptions of the driver mean "away" or "in the way" (whoever retries must tell them apart).
VOCABULARY = ("models.enums", "models.ids", "models.database.UNREACHABLE", "models.database.CONTENDED")
WITH_VOCABULARY = set(RINGS) - {"connections", "exchanges", "settings", "configuration", "logs", "embedded", "console", "models"}
# Single files that may import one thing more, each with its reason; one that is not needed any more must go.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("jobs/worker.py", "clients.queue"): "the receiving end of the queue: name, function and encoding must be the sender's",
    ("jobs/commands.py", "settings.Settings"): "`manage worker` hands its settings to the process that it starts",
    ("operations/doctor.py", "console.build.DIST"): "the doctor says whether the page is built",
    ("rest/health.py", "models.database"): "readiness asks whether the database answers: no rule of the domain, and no table",
    ("rest/health.py", "models.migrate"): "readiness asks whether the database is up to date: no rule of the domain, and no table",
    ("rest/health.py", "settings.VERSION"): "GET /version tells it",
    ("rest/openapi.py", "settings.VERSION"): "the description of the paths carries it",
}
# Inside the domain: what is sold and what it costs must not depend on how usage is reported.
APART: dict[str, set[str]] = {"domain/serving": {"domain.usage"}, "domain/money": {"domain.usage"}}
# What a ring may import of others' packages; only for rings that must not know a door or an outside system.
PACKAGES: dict[str, set[str]] = {
    "domain": {"asyncpg", "msgspec", "structlog", "jwt"},  # jwt: the format of client tokens, read and written in memory
    "models": {"asyncpg", "tortoise"},
    "settings": {"pydantic", "pydantic_settings"},
}
# Doors' and outside systems' packages, and the only rings that may know them.
FOREIGN: dict[str, set[str]] = {
    "strawberry": {"schema", "resolvers"},
    "graphql": {"schema"},
    "starlette": {"app", "schema", "rest", "console", "hosting", "embedded"},  # embedded: the pages of the simulated Stripe
    "arq": {"clients", "jobs"},
    "aiohttp": {"clients", "proxy", "embedded"},  # embedded: the simulated Stripe delivers its events
    "redis": {"clients", "operations"},
    "stripe": {"clients", "embedded"},  # embedded: the simulator checks requests against the SDK's own types
    "obstore": {"clients"},
    "tortoise": {"models"},
}


class Import(NamedTuple):
    """One name that a file imports, and where."""

    path: str
    line: int
    name: str

    @property
    def ring(self) -> str:
        """The folder or file of the root that imports."""
        return self.path.split("/")[0].removesuffix(".py")

    @property
    def place(self) -> str:
        """What an editor opens."""
        return f"{self.path}:{self.line}: imports {self.name}"


def tracked() -> list[str]:
    """Every file of the repository, by its path."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(path for path in listed.stdout.splitlines() if (ROOT / path).is_file())


FILES = tracked()
PYTHON = [path for path in FILES if path.endswith(".py")]
OURS = {path.split("/")[0].removesuffix(".py") for path in PYTHON}


def imports_of(path: str) -> Iterator[Import]:
    """Every import of a file, wherever it stands in it, as the full name of what is imported."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(), path)):
        if isinstance(node, ast.Import):
            yield from (Import(path, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Import(path, node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module", "import_module"):
            yield Import(path, node.lineno, f"something that this test cannot see: {ast.unparse(node)}")


PRODUCT = [path for path in PYTHON if path.split("/")[0] not in OUTSIDE]


@functools.cache
def imports() -> tuple[Import, ...]:
    """Every import of the product; looked for when a test asks, because every process of a run collects this file."""
    return tuple(found for path in PRODUCT for found in imports_of(path))


def is_within(name: str, allowed: str) -> bool:
    """Tell whether a dotted name is another one or lies inside it."""
    return name == allowed or name.startswith(f"{allowed}.")


def is_allowed(found: Import) -> bool:
    """Tell whether the tables allow an import of one of our rings by another."""
    target = found.name.split(".")[0]
    if found.name.startswith("."):
        return False  # imports are absolute, so that a search for a name finds all who use it
    return (
        target == found.ring
        or target in RINGS[found.ring]
        or (found.ring in WITH_VOCABULARY and any(is_within(found.name, word) for word in VOCABULARY))
        or any(path == found.path and is_within(found.name, name) for path, name in EXCEPTIONS)
    )


def refuse(faults: Iterable[str]) -> None:
    """Fail with one line for each fault, each beginning with its place."""
    lines = list(faults)
    assert not lines, "\n".join(["", *lines])


def test_every_folder_is_a_ring() -> None:
    """A new folder or file of the root has its place in the shape."""
    assert {found.ring for found in imports()} | {path.split("/")[0].removesuffix(".py") for path in PRODUCT} == set(RINGS)


@pytest.mark.parametrize("ring", sorted(RINGS))
def test_arrows_point_inward(ring: str) -> None:
    """A ring imports only what the table allows it."""
    refuse(found.place for found in imports() if found.ring == ring and found.name.split(".")[0] in OURS | {""} and not is_allowed(found))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("domain/access/keys.py", "runtime.Runtime"),
        ("domain/access/keys.py", "clients.queue.ArqQueue"),
        ("domain/access/keys.py", ".secrets"),
        ("schema/keys.py", "models.access.ApiKey"),
        ("schema/keys.py", "rest.keys"),
        ("proxy/relay.py", "models.database"),
        ("proxy/relay.py", "models.database.fetch"),
        ("rest/aaas.py", "clients.queue"),
        ("models/access.py", "domain.errors"),
        ("embedded/echo.py", "models.enums"),
    ],
)
def test_the_tables_refuse(path: str, name: str) -> None:
    """What would turn an arrow round is refused, so that a quiet pass means something."""
    assert not is_allowed(Import(path, 1, name))


@pytest.mark.parametrize("folder", OUTSIDE)
def test_no_ring_imports_what_looks_in(folder: str) -> None:
    """What is served does not need what tests or measures it."""
    refuse(found.place for found in imports() if is_within(found.name, folder))


def test_no_import_is_hidden_in_a_call() -> None:
    """Every import is a statement, so that the other tests here see it."""
    refuse(found.place for found in imports() if found.name.startswith("something that this test cannot see"))


@pytest.mark.parametrize("folder", sorted(APART))
def test_what_is_sold_does_not_know_how_it_is_reported(folder: str) -> None:
    """Serving and money import nothing from usage."""
    refuse(found.place for found in imports() if found.path.startswith(f"{folder}/") and any(is_within(found.name, name) for name in APART[folder]))


@pytest.mark.parametrize("ring", sorted(PACKAGES))
def test_packages_of_the_inner_rings(ring: str) -> None:
    """The inner rings know the database's driver and encodings, and no framework, queue or client."""
    foreign = [found for found in imports() if found.ring == ring and found.name.split(".")[0] not in OURS]
    ours = PACKAGES[ring]
    refuse(found.place for found in foreign if found.name.split(".")[0] not in ours | set(sys.stdlib_module_names))


@pytest.mark.parametrize("package", sorted(FOREIGN))
def test_who_may_know_an_outside_package(package: str) -> None:
    """A framework, queue or vendor's library is known to the rings that are about it, and to no other."""
    refuse(found.place for found in imports() if is_within(found.name, package) and found.ring not in FOREIGN[package])


@pytest.mark.parametrize(("path", "name"), sorted(EXCEPTIONS))
def test_exceptions_are_needed(path: str, name: str) -> None:
    """An exception whose import is gone does not stay in the table."""
    assert any(found.path == path and is_within(found.name, name) for found in imports())


def test_every_package_has_its_charter() -> None:
    """Each folder says in the one line of its `__init__.py` what it is for."""
    faults = []
    for path in PYTHON:
        folder = (ROOT / path).parent
        if folder != ROOT and f"{path.rsplit('/', 1)[0]}/__init__.py" not in FILES and path.split("/")[0] not in ("ops", "examples"):
            faults.append(f"{path}: its folder has no __init__.py")
        if path.endswith("__init__.py"):
            charter = ast.get_docstring(ast.parse((ROOT / path).read_text())) or ""
            if not re.fullmatch(r"[A-Z].{3,160}\.", charter):
                faults.append(f"{path}:1: a docstring of one line, with a full stop")
    refuse(faults)


def test_every_module_says_what_it_promises() -> None:
    """The first sentence of a file is its charter."""
    assert [path for path in PYTHON if "/migrations/" not in path and not ast.get_docstring(ast.parse((ROOT / path).read_text()))] == []


def test_no_file_is_called_utils() -> None:
    """A file is named after what is in it."""
    assert [path for path in FILES if re.search(r"(^|/)(utils?|helpers?|common|misc)\.\w+$", path)] == []


def test_no_file_is_too_long() -> None:
    """What does not fit into 600 lines is two things; contracts, licences and lock files are not ours to cut."""
    exempt = re.compile(r"^tests/contract/|\.lock$|package-lock\.json$|^LICENSE$")
    lengths = {path: (ROOT / path).read_bytes().count(b"\n") for path in FILES if not exempt.search(path)}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_LINES} == {}


