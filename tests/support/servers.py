"""One Postgres and one Valkey for a whole run of tests, and servers of a test's own that may be killed."""

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from embedded.postgres import Postgres
from embedded.provision import APPLICATION, OWNER, provision
from embedded.valkey import Valkey

# A kill of a process loses nothing that was written without fsync (only a kill of the machine does), and tests kill only processes.
QUICK = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off", "max_connections": "300", "shared_buffers": "64MB"}


class Servers:
    """A Postgres and a Valkey in a temporary folder, as a context; their data goes with it.

    `admin_dsn`, `owner_dsn` and `app_dsn` are URLs of one database as the superuser, as the role that owns the tables, and as the
    application's role. Every call blocks; none needs or disturbs an event loop. All raise EmbeddedError.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tg-"))  # short: a socket's path has 107 bytes
        self.postgres = Postgres(self.folder / "p", settings=QUICK)
        self.valkey = Valkey(self.folder / "v")

    def __enter__(self) -> Self:
        try:
            self.postgres.start()
            self.valkey.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop both servers and remove their data."""
        self.valkey.stop()
        self.postgres.stop()
        shutil.rmtree(self.folder)

    @property
    def redis_url(self) -> str:
        """The URL of the Valkey for arq and redis-py."""
        return self.valkey.url

    def admin_dsn(self, database: str) -> str:
        """The URL of a database as the superuser."""
        return self.postgres.dsn(database=database)

    def owner_dsn(self, database: str) -> str:
        """The URL of a database as `tallygate_owner` (MIGRATION_DATABASE_URL)."""
        return self.postgres.dsn(OWNER, database)

    def app_dsn(self, database: str) -> str:
        """The URL of a database as `tallygate_app` (DATABASE_URL)."""
        return self.postgres.dsn(APPLICATION, database)

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Make the roles and a database: an empty one, or a copy (about 40 ms) of one that nobody is connected to."""
        if template is not None:
            statement = """CREATE DATABASE :"name" OWNER :"owner" TEMPLATE :"template" STRATEGY WAL_LOG;"""
            self.postgres.run_sql(statement, variables={"name": name, "owner": OWNER, "template": template})
        provision(self.postgres, name)

    def drop_database(self, name: str) -> None:
        """Remove a database, ending its sessions; without effect when there is none."""
        self.postgres.run_sql("""DROP DATABASE IF EXISTS :"name" WITH (FORCE);""", variables={"name": name})
