"""An installation of a test's own: a database, a scripted upstream and gateway processes that may be killed."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from tests.conftest import CONFIGURATION, PROVIDER_KEY, environment_of
from tests.support import upstream as scripted
from tests.support.gateway import Gateway
from tests.support.servers import Servers
from tests.support.upstream import Upstream

HOLD_SECONDS = 4


@dataclass
class Installation:
    """A database `name` on `servers` and what runs over it; `folder` is its data folder."""

    servers: Servers
    name: str
    folder: Path
    upstream: Upstream
    gateways: list[Gateway] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        """The database as the application's role."""
        return self.servers.app_dsn(self.name)

    async def gateway(self, **environment: str) -> Gateway:
        """Start another gateway process and wait until it answers; its holds live 4 s without a sign of life."""
        path = self.folder / "tallygate.toml"
        path.write_text(CONFIGURATION.format(url=self.upstream.url))
        fixed = {"TALLYGATE_CONFIG": str(path), "SCRIPTED_KEY": PROVIDER_KEY, "TALLYGATE_HOLD_SECONDS": str(HOLD_SECONDS)}
        started = Gateway({**environment_of(self.servers, self.name, self.folder), **fixed, **environment}, self.folder / f"gateway-{len(self.gateways)}.log")
        started.start()
        self.gateways.append(started)
        await started.ready()
        return started

    @contextlib.asynccontextmanager
    async def superuser(self) -> AsyncIterator[asyncpg.Connection]:
        """Open a connection that may lock and look at everything."""
        connection = await asyncpg.connect(self.servers.admin_dsn(self.name))
        try:
            yield connection
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def installation(servers: Servers, name: str, folder: Path) -> AsyncIterator[Installation]:
    """Run an installation over a migrated database; its gateways are stopped at the end, and those that still run must end well."""
    async with scripted.serve() as upstream:
        opened = Installation(servers, name, folder, upstream)
        try:
            yield opened
        finally:
            codes = [gateway.terminate() for gateway in opened.gateways]
    assert all(code in (0, -9) for code in codes), codes
