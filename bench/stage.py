"""What every benchmark stands on: an embedded Postgres and Valkey of its own, and workspaces with a key and a balance."""

import contextlib
import math
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from domain.access import keys, workspaces
from domain.access.callers import WORKSPACE_SCOPES, Actor, Caller
from domain.access.limits import BoundInput
from domain.money import catalogue, ledger
from domain.money.catalogue import ModelEntry, PriceVersion
from domain.sql import install
from embedded.postgres import Postgres
from embedded.provision import APPLICATION, DATABASE, OWNER, provision
from embedded.valkey import Valkey
from models import database
from models.enums import ActorKind, Bucket, Measure
from models.migrate import migrate

SECRET = "a-secret-for-benchmarks-that-guards-nothing-at-all"
CREDIT_MICROUSD = 1_000_000_000_000
USD_PER_MILLION = {Bucket.UNCACHED_INPUT: "0.150001", Bucket.OUTPUT: "0.600007"}
"""Prices that leave a rest of picodollars, so that a wrong carry shows."""
BENCHMARK = Actor(ActorKind.SYSTEM, None, "benchmark")
EIGHT_BOUNDS = tuple(
    BoundInput(measure, window, 10**12)
    for measure, window in (
        (Measure.MONEY, "5h"),
        (Measure.MONEY, "day"),
        (Measure.MONEY, "month"),
        (Measure.TOKENS, "1m"),
        (Measure.TOKENS, "day"),
        (Measure.CALLS, "1m"),
        (Measure.CALLS, "day"),
        (Measure.CONCURRENT, "concurrent"),
    )
)
"""Bounds as a careful owner sets them, wide enough to stop nothing; each is a counter that every call moves."""


class WrongBooks(Exception):
    """The run was fast and wrong; the message says what the books say and what they should."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A workspace with credit and one key."""

    workspace_id: UUID
    key_id: UUID
    secret: str


class Stage:
    """A Postgres with its default durability (fsync, synchronous commit) and a Valkey in a temporary folder, as a context.

    `settings` are added to the server's. Leaving the context removes everything. Raises EmbeddedError.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tgb-"))  # short: a socket's path has 107 bytes
        self.postgres = Postgres(self.folder / "p", settings=settings)
        self.valkey = Valkey(self.folder / "v")

    def __enter__(self) -> "Stage":
        try:
            self.postgres.start()
            self.valkey.start()
            provision(self.postgres)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop both servers and remove their data."""
        self.valkey.stop()
        self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The database as the application's role."""
        return self.postgres.dsn(APPLICATION, DATABASE)

    @property
    def owner_url(self) -> str:
        """The database as the role that owns the tables."""
        return self.postgres.dsn(OWNER, DATABASE)

    @contextlib.asynccontextmanager
    async def books(self, *, pool: int = 4) -> AsyncIterator[None]:
        """Migrate the database and open this process's pool, through which the domain's functions then work."""
        await migrate(self.owner_url, self.url, install.statements())
        await database.open_pool(self.url, pool=pool)
        try:
            yield
        finally:
            await database.close_pool()


def now() -> datetime:
    """Return this instant, in UTC."""
    return datetime.now(UTC)


async def offer(names: Sequence[str]) -> None:
    """Offer models of these names, all at USD_PER_MILLION."""
    at = now()
    rows = tuple(catalogue.make_row(bucket, usd) for bucket, usd in USD_PER_MILLION.items())
    for name in names:
        entry = ModelEntry(name=name, display_name=name, vendor=None, rows=rows, max_output_tokens=4096)
        await catalogue.enter(entry, source="benchmark", effective_from=at, actor=BENCHMARK, at=at)


async def tenant(name: str, *, bounds: Sequence[BoundInput] = ()) -> Tenant:
    """Make a workspace with CREDIT_MICROUSD and one pay-per-token key with these bounds."""
    at = now()
    workspace = await workspaces.create_for(None, name, "UTC", at=at)
    await ledger.give(workspace.id, CREDIT_MICROUSD, "benchmark", name, BENCHMARK)
    caller = Caller(at=at, workspace_id=workspace.id, name="benchmark", scopes=WORKSPACE_SCOPES)
    new = keys.NewKey(
        name=name,
        budgets=tuple(bound for bound in bounds if bound.measure is Measure.MONEY),
        limits=tuple(bound for bound in bounds if bound.measure is not Measure.MONEY),
    )
    key, secret = await keys.create(caller, new)
    assert secret is not None
    return Tenant(workspace.id, key.id, secret)


def cost_picousd(price: PriceVersion, quantities: Mapping[Bucket, int]) -> int:
    """Return what quantities cost by the rows themselves: not through `quote`, which is under test."""
    return sum(quantity * next(row.picousd for row in price.rows if row.bucket is bucket) for bucket, quantity in quantities.items())


async def check_books(tenants: Mapping[UUID, int]) -> int:
    """Prove that each workspace paid exactly so many picodollars, in whole micros with the rest carried, and that `audit` is empty.

    Returns the charges in microdollars. Raises WrongBooks.
    """
    charged = 0
    for workspace_id, picousd in tenants.items():
        row = await database.fetch_row(
            """
            SELECT credits - debits AS balance, held, carry_picousd,
                   (SELECT coalesce(sum(t.amount), 0) FROM transfer t WHERE t.workspace_id = a.workspace_id AND t.kind = 'charge') AS charged
              FROM account a WHERE a.workspace_id = $1 AND a.kind = 'cash'
            """,
            workspace_id,
        )
        assert row is not None
        micros, carry = divmod(picousd, 1_000_000)
        found = (int(row["charged"]), CREDIT_MICROUSD - row["balance"], row["carry_picousd"], row["held"])
        if found != (micros, micros, carry, 0):
            raise WrongBooks(f"workspace {workspace_id}: charged, spent, carry, held are {found} and should be {(micros, micros, carry, 0)}")
        charged += micros
    broken = await ledger.audit()
    if broken:
        raise WrongBooks(f"audit has {len(broken)} rows, the first: {broken[0]}")
    return charged


def quantile(sorted_values: Sequence[float], share: float) -> float:
    """Return the value below which this share of sorted values lies; NaN of none."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))] if sorted_values else math.nan
