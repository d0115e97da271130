"""The operator's commands about Stripe, each in a process of its own against the simulator."""

import asyncio
import os
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from embedded.stripe import payments as bank
from tests.conftest import environment_of
from tests.payments.conftest import BOOKS
from tests.payments.lives import Till
from tests.payments.test_entries import half_an_hour_ago
from tests.support import commands
from tests.support.commands import Done
from tests.support.gateway import ROOT
from tests.support.servers import Servers
from tests.support.stripe import KEY

pytestmark = pytest.mark.anyio

__all__ = ["half_an_hour_ago"]  # a fixture that every test here uses


SOLD = {tier["slug"]: tier["price_cents"] for tier in tomllib.loads((ROOT / "operations/tiers.toml").read_text())["tier"] if tier["price_cents"]}
"""What the shipped file of tiers sells, and at how many cents."""


async def test_what_moved_and_what_is_sold(till: Till, servers: Servers, tmp_path: Path) -> None:
    """`stripe entries` prints each entry with its transfer, or NOTHING; `explain` takes that away, once; `sync` makes a price for each paid tier."""
    stripe = {"STRIPE_SECRET_KEY": KEY, "STRIPE_API_URL": till.simulator.url}
    environment = {"PATH": os.environ["PATH"], **environment_of(servers, BOOKS, tmp_path), **stripe}

    async def manage(*arguments: str) -> Done:
        return await asyncio.to_thread(commands.run, environment, "stripe", *arguments)

    _, _, ours = await till.bought()
    await till.hear()
    other = bank.create_customer(till.account, {})
    shirt = bank.new_payment(till.account, 5_000, "usd", customer=other["id"])
    bank.succeed(till.account, shirt, bank.charge(till.account, shirt, bank.attach_card(till.account, None, "4242"), status="pending"))
    lines = {}
    for payment in (shirt["id"], ours):
        charge = till.account.get("charge", till.account.get("payment_intent", payment)["latest_charge"])
        entry = till.account.get("balance_transaction", charge["balance_transaction"])
        at, fee = datetime.fromtimestamp(entry["created"], UTC), f"{entry['fee'] / 100:.2f}"
        told = "NOTHING" if payment == shirt["id"] else f"transfer top_up:{ours}"
        lines[entry["created"], entry["id"]] = (f"{at:%Y-%m-%d %H:%M} {entry['id']} charge {charge['id']} {entry['amount'] / 100:.2f} USD, fee {fee}: {told}")
    (entry_id,) = [id_ for (_, id_), line in lines.items() if line.endswith("NOTHING")]

    shown = await manage("entries", "--most", "1000")
    assert shown.code == 0, shown.errors
    newest_first = [lines[key] for key in sorted(lines, reverse=True)]
    assert [line for line in shown.output.splitlines() if line in newest_first] == newest_first  # among what other tests left
    done = await manage("explain", entry_id, "--reason", "a shirt", "--actor", "otto")
    assert (done.code, done.output) == (0, f"{entry_id} is explained: a shirt\n")
    shown = await manage("entries", "--unexplained")
    assert (shown.code, shown.output) == (0, "0 entries\n")
    again = await manage("explain", entry_id, "--reason", "two shirts")
    assert (again.code, again.output, "It is accounted for already." in again.errors) == (1, "", True)

    made = await manage("sync")
    prices = {price["lookup_key"]: (price["id"], price["unit_amount"]) for price in till.account.all("price")}
    assert {key: cents for key, (_, cents) in prices.items()} == {f"tallygate:{slug}": cents for slug, cents in SOLD.items()}
    assert made.output.splitlines() == [*(f"{slug}: {prices[f'tallygate:{slug}'][0]}" for slug in SOLD), f"{len(SOLD)} tiers are on sale at Stripe"]
