"""The pages tell the truth: commands, links, variables, paths, queries and files that they name exist."""

import json
import re
import shlex
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from graphql import parse, validate

import manage
from configuration import Configuration
from domain.money.catalogue import entries_of
from domain.money.tiers import tiers_of
from operations import env_example
from proxy.routes import COUNTS, ROADS
from schema.build import build
from schema.throttle import Throttle
from settings import VERSION, Settings
from tests.support.gateway import Gateway

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SETTINGS = {str(field.alias) for field in Settings.model_fields.values()}
# What demo.env and the compose file name besides settings.
OTHER_VARIABLES = {
    *("TALLYGATE_BASE_URL", "TALLYGATE_API_KEY", "TALLYGATE_OPERATOR_KEY"),
    *("TALLYGATE_BROWSER", "TALLYGATE_BROWSER_REQUIRED"),
    *("TALLYGATE_LISTEN", "TALLYGATE_OWNER_PASSWORD", "TALLYGATE_APP_PASSWORD"),
}
CONTROL_PATHS = {"/metrics", "/docs", "/llms.txt", "/llms-full.txt", "/client/tallygate.js", "/graphql", "/graphiql", "/openapi.json"}
METHODS = r"GET|POST|PUT|PATCH|DELETE"


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and where it begins."""

    place: str
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """Every fenced block of these languages, of all pages."""
    found = []
    for page, name in zip(PAGES, NAMES, strict=True):
        text = page.read_text()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if match[1] in languages:
                found.append(Block(f"{name}:{text.count(chr(10), 0, match.start()) + 1}", match[1], match[2]))
    return found


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every simple command of every `sh` block, with its place, as words; assignments before it are left out."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in re.split(r"; |&& ", line):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:
                    continue  # a piece of a longer shell construct
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words:
                    yield block.place, words


MANAGE = [(place, words[3:]) for place, words in commands() if words[:3] == ["python", "-m", "manage"]]
MAKE = [(place, words[1:]) for place, words in commands() if words[0] == "make"]


def test_the_pages_are_found() -> None:
    """The tests below have something to look at."""
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/index.md", "docs/architecture.md"} <= set(NAMES)
    assert len(MANAGE) > 10
    assert len(MAKE) > 4


@pytest.mark.parametrize(("place", "words"), MANAGE, ids=[f"{place} {' '.join(words)}" for place, words in MANAGE])
def test_operator_commands_exist(place: str, words: list[str]) -> None:
    """Every `python -m manage` line parses: command, options, the kinds of their values, and the number of arguments."""
    command: click.Command = manage.main
    context = click.Context(command, info_name="manage")
    if words == ["--help"]:
        return
    while isinstance(command, click.Group):
        assert words, f"{place}: a command is missing"
        found = command.get_command(context, words[0])
        assert found is not None, f"{place}: there is no command {words[0]}"
        command, words = found, words[1:]
    assert "--file" in words or command.make_context(command.name, [*words]) is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, place


@pytest.mark.parametrize(("place", "words"), MAKE, ids=[f"{place} make {' '.join(words)}" for place, words in MAKE])
def test_make_targets_exist(place: str, words: list[str]) -> None:
    """Every `make` line names a target, and a variable that the Makefile reads."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"\$\(([A-Z_]+)\)", makefile))
    for word in words:
        name, separator, _ = word.partition("=")
        assert name in (variables if separator else targets), f"{place}: {word}"


@pytest.mark.parametrize("name", NAMES)
def test_links_resolve(name: str) -> None:
    """Every relative link leads to a file of the repository, and to a heading of it where it names one."""
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT), f"{name}: {target} leads out of the repository"
        assert file.exists(), f"{name}: {target}"
        headings = [re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in file.read_text().splitlines() if line.startswith("#")]
        assert not anchor or anchor in headings, f"{name}: {target}"


def test_every_page_is_on_the_map() -> None:
    """docs/index.md leads to every other page below docs/."""
    linked = set(re.findall(r"\]\(([^)\s#]+)", (ROOT / "docs/index.md").read_text()))
    assert {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")} - {"index.md"} <= linked


def manage_commands() -> Iterator[str]:
    """Every command as it is typed: `credit`, `keys create`."""
    for name, command in manage.main.commands.items():
        for below in command.commands if isinstance(command, click.Group) else [""]:
            yield f"{name} {below}".strip()


def test_what_there_is_stands_in_its_list() -> None:
    """Every root field is in docs/graphql.md, every folder of the program in docs/architecture.md, every command in docs/operations.md."""
    schema = build(Throttle())._schema
    kinds = [kind for kind in (schema.query_type, schema.mutation_type, schema.subscription_type) if kind]
    there = {
        "graphql": {name for kind in kinds for name in kind.fields},
        "architecture": {f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")},
        "operations": set(manage_commands()),
    }
    for page, names in there.items():
        text = (ROOT / f"docs/{page}.md").read_text()
        assert {name for name in names if f"`{name}" not in text} == set(), page


@pytest.mark.parametrize("name", NAMES)
def test_files_exist(name: str) -> None:
    """Every file of ours that a page names in passing is there."""
    ours = {path.name for path in ROOT.iterdir()}
    for written in re.findall(r"`([\w.-]+/[\w./-]+\.\w+|[\w-]+/(?:[\w-]+/)*)`", (ROOT / name).read_text()):
        if written.split("/")[0] in ours - {".tallygate", ".venv"}:
            assert (ROOT / written).exists(), f"{name}: {written}"


@pytest.mark.parametrize("name", NAMES)
def test_variables_exist(name: str) -> None:
    """Every variable of ours that a page names is a setting, or one that demo.env or the compose file has."""
    text = (ROOT / name).read_text()
    assert set(re.findall(r"\bTALLYGATE_[A-Z_]+[A-Z]\b", text)) <= SETTINGS | OTHER_VARIABLES


def test_other_variables_exist() -> None:
    """What the pages may name besides settings is written by the first run, or read by the compose file or the tests."""
    sources = (ROOT / "embedded/first_run.py").read_text() + (ROOT / "docker-compose.yml").read_text() + (ROOT / "tests/support/chromium.py").read_text()
    assert {name for name in OTHER_VARIABLES if name not in sources} == set()


def test_env_example_is_made_from_the_settings() -> None:
    """`.env.example` is what `python -m operations.env_example` writes, with every setting once, and the required ones without a value."""
    text = (ROOT / ".env.example").read_text()
    assert text == env_example.lines()
    assignments = re.findall(r"^(# )?([A-Z0-9_]+)=(.*)$", text, re.MULTILINE)
    assert sorted(name for _, name, _ in assignments) == sorted(SETTINGS)
    required = {str(field.alias) for field in Settings.model_fields.values() if field.is_required()}
    assert {name for comment, name, value in assignments if not comment and not value} == required


def test_defaults_of_env_example_are_accepted() -> None:
    """Every default that `.env.example` shows is the one that the settings take when it is set so."""
    shown = dict(re.findall(r"^# ([A-Z0-9_]+)=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    needed = {"DATABASE_URL": "postgresql://role@host/name", "REDIS_URL": "redis://host", "TALLYGATE_SECRET": "s" * 32}
    assert Settings.model_validate(needed | shown) == Settings.model_validate(needed)


def documented_paths(text: str) -> set[str]:
    """Every HTTP path of ours that a page names: after a method, after our base address, or alone in a code span."""
    written = re.findall(rf"\b(?:{METHODS}) (/[\w./{{}}-]*)", text)
    written += re.findall(r"(?:\$TALLYGATE_BASE_URL|http://127\.0\.0\.1:8\d{3})(/[\w./{}-]*)", text)
    written += re.findall(r"`(/(?:v1/|tenant/|graph|health|ready|version|openapi|metrics)[\w./{}-]*)`", text)
    return {path.rstrip(".") for path in written}


@pytest.mark.anyio
async def test_paths_exist(gateway: Gateway) -> None:
    """Every HTTP path that a page names is served; what is not served yet is not named as a path."""
    with urllib.request.urlopen(f"{gateway.url}/openapi.json") as response:
        described = set(json.load(response)["paths"])
    served = described | set(ROADS) | COUNTS | CONTROL_PATHS
    unknown = {name: documented_paths((ROOT / name).read_text()) - served for name in NAMES}
    assert {name: paths for name, paths in unknown.items() if paths} == {}


@pytest.mark.anyio
async def test_paths_are_told(gateway: Gateway) -> None:
    """Every method of every path that the server describes is named on a page; of tools' roads, each with the same paths below it, only the plain ones."""
    with urllib.request.urlopen(f"{gateway.url}/openapi.json") as response:
        described = json.load(response)["paths"]
    text = "\n".join(page.read_text() for page in PAGES)
    names = {f"{method.upper()} {path}" for path, methods in described.items() if path not in COUNTS for method in methods if method.upper() in METHODS.split("|")}
    assert {name for name in names if not re.search(re.escape(name) + r"(?![\w/{])", text)} == set()


def queries() -> list[Block]:
    """Every GraphQL document: in a block of its own, or in the body of a curl line."""
    inside = [
        Block(block.place, "graphql", json.loads(body)["query"])
        for block in blocks("sh")
        for body in re.findall(r"-d '(\{\"query\".*?\})'", block.text)
    ]
    return [*blocks("graphql"), *inside]


@pytest.mark.parametrize("block", queries(), ids=[block.place for block in queries()])
def test_queries_are_valid(block: Block) -> None:
    """Every GraphQL document of a page is valid against the served schema."""
    schema = build(Throttle())._schema
    assert [error.message for error in validate(schema, parse(block.text))] == [], block.place


@pytest.mark.parametrize("block", blocks("toml"), ids=[block.place for block in blocks("toml")])
def test_files_are_valid(block: Block) -> None:
    """Every TOML example is a price file, a tiers file or a configuration file that is taken as it stands."""
    document = tomllib.loads(block.text)
    if "model" in document:
        assert len(entries_of(document)) == len(document["model"])
    elif "tier" in document:
        assert len(tiers_of(document)) == len(document["tier"])
    else:
        assert Configuration.model_validate(document) != Configuration()


@pytest.mark.parametrize("block", blocks("python", "json"), ids=[block.place for block in blocks("python", "json")])
def test_examples_parse(block: Block) -> None:
    """Every Python and JSON example is at least well-formed."""
    if block.language == "json":
        json.loads(block.text)
    else:
        compile(block.text, block.place, "exec")


def test_the_changelog_has_this_version() -> None:
    """The version that runs has its section, and it is the newest one."""
    assert re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == VERSION
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize("name", [*NAMES, ".env.example"])
def test_no_page_knows_the_machine_it_was_written_on(name: str) -> None:
    """No page names a folder of somebody's machine, or a host of a package index."""
    assert re.findall(r"(?<![\w.])/(?:work|root|tmp|home|Users)/\S*|pypi\.org|registry\.\S+", (ROOT / name).read_text()) == []
