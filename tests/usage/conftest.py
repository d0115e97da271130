"""A migrated database for the tests of usage."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from models import database as db
from tests.support.servers import Servers

ROOT = Path(__file__).parents[2]
SQL = ("micros_1", "window_1", "admit_1", "settle_1", "progress_1", "post_1", "audit_1", "fold_1")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with Servers() as servers:
        servers.create_database("template_usage")
        url = servers.owner_dsn("template_usage")
        environment = {**os.environ, "DATABASE_URL": url, "MIGRATION_DATABASE_URL": url}
        subprocess.run([sys.executable, "-m", "tortoise", "migrate"], cwd=ROOT, env=environment, check=True, capture_output=True)
        for name in SQL:
            servers.postgres.run_sql((ROOT / "domain" / "sql" / f"{name}.sql").read_text(), database="template_usage")
        yield servers


@pytest.fixture
async def database(servers: Servers, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of a fresh database whose pool is open."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    servers.create_database(name, template="template_usage")
    url = servers.admin_dsn(name)
    await db.open_pool(url, pool=8)
    yield url
    await db.close_pool()
    servers.drop_database(name)
