"""The servers of a whole run: one Postgres, one Valkey, one database, and one gateway process that every door's test talks to."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from models import database
from operations.database import migrate
from settings import Settings
from tests.support import chromium, s3
from tests.support import upstream as scripted
from tests.support.gateway import Gateway
from tests.support.s3 import FrontDoor
from tests.support.servers import Servers
from tests.support.upstream import Upstream

# A property is true or false however slow the machine is; where CI is set, the examples are the same in every run (Hypothesis' own profile).
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

STORIES = Path(__file__).parent / "browser"
NOT_RUN = pytest.StashKey[bool]()
SECRET = "tests-only-" + "s" * 40
SUITE = "suite"
TEMPLATE = "template_suite"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Every asynchronous test runs on asyncio, in one loop."""
    return "asyncio"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The Postgres and the Valkey of this run."""
    with Servers() as started:
        yield started


def environment_of(servers: Servers, name: str, data: Path) -> dict[str, str]:
    """Return the environment of a process that serves a database of the run."""
    return {
        "DATABASE_URL": servers.app_dsn(name),
        "MIGRATION_DATABASE_URL": servers.owner_dsn(name),
        "REDIS_URL": servers.redis_url,
        "TALLYGATE_SECRET": SECRET,
        "TALLYGATE_DATA": str(data),
        "TALLYGATE_LOCAL_ISSUER": "true",
        "TALLYGATE_WORKER": "inside",
        "TALLYGATE_WEBHOOKS_PRIVATE": "true",
    }


@pytest.fixture(scope="session")
def template(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated database that nobody is connected to, to be cloned."""
    servers.create_database(TEMPLATE)
    environment = environment_of(servers, TEMPLATE, tmp_path_factory.mktemp("template"))
    asyncio.run(migrate(Settings.model_validate(environment)))
    return TEMPLATE


@dataclass(frozen=True, slots=True)
class Suite:
    """The database of the run, and the environment of processes that serve it."""

    environment: dict[str, str]
    settings: Settings
    folder: Path


@pytest.fixture(scope="session")
def suite(servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The run's own database; tests keep apart by each making a workspace of its own."""
    servers.create_database(SUITE, template=template)
    folder = tmp_path_factory.mktemp("suite")
    environment = environment_of(servers, SUITE, folder)
    return Suite(environment, Settings.model_validate(environment), folder)


@pytest.fixture(scope="session")
async def books(suite: Suite) -> AsyncIterator[Suite]:
    """The test process's own pool on the run's database, for builders and for looking at the books."""
    await database.open_pool(suite.environment["DATABASE_URL"], pool=10)
    yield suite
    await database.close_pool()


@pytest.fixture(scope="session")
async def _provider() -> AsyncIterator[Upstream]:
    async with scripted.serve() as started:
        yield started


@pytest.fixture
def provider(_provider: Upstream) -> Upstream:
    """The scripted upstream behind models `scripted-claude` and `scripted-gpt`; it has seen nothing yet."""
    _provider.requests.clear()
    _provider.script(scripted.status(500))
    return _provider


CONFIGURATION = """
[upstreams.scripted-anthropic]
dialect = "anthropic"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["claude-opus-5-5", "claude-haiku-5-5"]

[upstreams.scripted-openai]
dialect = "openai"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["gpt-5.5"]
"""
PROVIDER_KEY = "sk-provider-canary-5f1c2b7d9e"


@pytest.fixture(scope="session")
async def gateway(books: Suite, _provider: Upstream) -> AsyncIterator[Gateway]:
    """The run's gateway: a process of its own, with `echo`, the scripted upstream behind real model names, and the simulated Stripe."""
    path = books.folder / "tallygate.toml"
    path.write_text(CONFIGURATION.format(url=_provider.url))
    own = {"TALLYGATE_CONFIG": str(path), "SCRIPTED_KEY": PROVIDER_KEY, "TALLYGATE_STRIPE_SIMULATOR": "true"}
    started = Gateway({**books.environment, **own}, books.folder / "gateway.log")
    started.start()
    await started.ready()
    yield started
    assert started.terminate() == 0, started.log.read_text(errors="replace")[-4000:]


@pytest.fixture(scope="session")
async def bucket(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontDoor]:
    """The run's S3 server, behind a front door that a test may tell to hold or refuse."""
    async with s3.serving(tmp_path_factory.mktemp("s3") / "s3.log") as opened:
        yield opened


def pytest_configure(config: pytest.Config) -> None:
    """Where browser stories are required, a run without a browser does not begin."""
    if os.environ.get(chromium.REQUIRED) and chromium.find() is None:
        raise pytest.UsageError(f"Browser stories are required here ({chromium.REQUIRED}), and there is no browser: {chromium.VARIABLE} may name one.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave browser stories out where there is no browser. The search for canaries comes last: it looks at what everything else left behind."""
    stories = [item for item in items if item.path.is_relative_to(STORIES)]
    if stories and chromium.find() is None:
        items[:] = [item for item in items if not item.path.is_relative_to(STORIES)]
        config.hook.pytest_deselected(items=stories)
        config.stash[NOT_RUN] = True
    items.sort(key=lambda item: "test_canary" in item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist tells its controller whether it left stories out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["stories not run"] = session.config.stash.get(NOT_RUN, False)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The controller hears it."""
    if getattr(node, "workeroutput", {}).get("stories not run"):
        node.config.stash[NOT_RUN] = True


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of a run that left browser stories out says so."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if config.stash.get(NOT_RUN, False) and reporter is not None and not hasattr(config, "workerinput"):
        reporter.write_line(f"Browser stories were not run: there is no browser on the path, and {chromium.VARIABLE} names none.")
