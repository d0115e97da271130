"""The tiers file: read whole, or refused with the entry at fault; kept in the database, where a tier that left the file stays for those who have it."""

import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.errors import InvalidInput
from domain.money import tiers
from domain.money.tiers import Limit, Tier, tiers_of
from models.enums import BillingCycle, Resource
from runtime import SHIPPED_TIERS, load_tiers
from settings import SettingsError
from tests.money.own_books import OwnBooks


def entry(**changes: Any) -> dict[str, Any]:
    """A tier as a file has it."""
    limits = [{"resource": "tokens", "window": "24h", "limit": 1000}]
    return {"slug": "team", "name": "Team", "price_cents": 5000, "limits": limits} | changes


def test_a_tier_is_read_as_it_is_written() -> None:
    """Every entry of the file arrives, with the defaults that the page names."""
    (team,) = tiers_of({"tier": [entry(limits=[{"resource": "tokens", "window": "5h", "limit": 7}, {"resource": "apps", "window": "concurrent", "limit": "unlimited"}])]})
    limits = (Limit(Resource.TOKENS, "5h", 7), Limit(Resource.APPS, "concurrent", None))
    assert team == Tier("team", "Team", "Tallygate", 5000, BillingCycle.MONTHLY, 0, None, limits)


def test_the_shipped_file_is_read() -> None:
    """What is shipped is sound, and is what a process reads that is given no other."""
    assert load_tiers(None) == tiers_of(tomllib.loads(SHIPPED_TIERS.read_text()))
    assert [tier.slug for tier in load_tiers(None)] == ["free", "pro", "max"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"tier": [entry(colour="red")]}, "colour"),
        ({"tiers": []}, "tiers"),
        ({"tier": [entry(slug="No Slug")]}, "tier.No Slug.slug"),
        ({"tier": [entry(), entry()]}, "twice"),
        ({"tier": [entry(name="")]}, "tier.team.name"),
        ({"tier": [entry(price_cents=-1)]}, "tier.team.price_cents"),
        ({"tier": [entry(price_cents=19.5)]}, "price_cents"),
        ({"tier": [entry(billing_cycle="weekly")]}, "billing_cycle"),
        ({"tier": [entry(trial_days=10_000)]}, "tier.team.trial_days"),
        ({"tier": [entry(presets=["Cursor!"])]}, "tier.team.presets"),
        ({"tier": [entry(limits=[])]}, "tier.team.limits"),
        ({"tier": [entry(limits=[{"resource": "apps", "window": "concurrent", "limit": 1}])]}, "tier.team.limits"),
        ({"tier": [entry(limits=[{"resource": "tokens", "window": "yearly", "limit": 1}])]}, "tier.team.limits.0"),
        ({"tier": [entry(limits=[{"resource": "tokens", "window": "concurrent", "limit": 1}])]}, "tier.team.limits.0.window"),
        ({"tier": [entry(limits=[{"resource": "apps", "window": "24h", "limit": 1}])]}, "tier.team.limits.0.window"),
        ({"tier": [entry(limits=[{"resource": "tokens", "window": "24h", "limit": -1}])]}, "tier.team.limits.0.limit"),
        ({"tier": [entry(limits=[{"resource": "tokens", "window": "24h", "limit": "many"}])]}, "limit"),
        ({"tier": [entry(limits=[{"resource": "tokens", "window": "24h", "limit": 10**18}])]}, "tier.team.limits.0.limit"),
        ({"tier": [entry(limits=[{"resource": "gold", "window": "24h", "limit": 1}])]}, "gold"),
        ({"tier": [entry(limits=[{"resource": "tokens", "window": "24h", "limit": 1}] * 2)]}, "tier.team.limits.1"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_and_says_where(document: dict[str, Any], says: str) -> None:
    """An unknown key, a missing or impossible value: refused as a whole, naming the entry."""
    with pytest.raises(InvalidInput) as refused:
        tiers_of(document)
    assert says in refused.value.message


def test_a_process_does_not_start_with_a_bad_file(tmp_path: Any) -> None:
    """A file that is absent, no TOML or malformed is one sentence that names the setting."""
    bad = tmp_path / "tiers.toml"
    with pytest.raises(SettingsError, match="TALLYGATE_TIERS"):
        load_tiers(bad)
    for text in ("[[tier", '[[tier]]\nslug = "x"\n', "\x00"):
        bad.write_text(text)
        with pytest.raises(SettingsError, match="TALLYGATE_TIERS"):
            load_tiers(bad)


def test_the_database_has_what_the_file_says(own: OwnBooks) -> None:
    """A tier is entered, changed, retired when it leaves the file and offered again when it comes back; keeping the same again changes nothing."""

    async def work() -> None:
        team, club = tiers_of({"tier": [entry(), entry(slug="club", price_cents=100, presets=["cursor"])]})
        await tiers.keep([team, club], at=datetime.now(UTC))
        assert await tiers.listed() == [club, team]
        stamps = await own.admin.fetch("SELECT slug, updated_at FROM tier ORDER BY slug")
        await tiers.keep([team, club], at=datetime.now(UTC))
        assert await own.admin.fetch("SELECT slug, updated_at FROM tier ORDER BY slug") == stamps
        (dearer,) = tiers_of({"tier": [entry(price_cents=6000)]})
        await tiers.keep([dearer], at=datetime.now(UTC))
        assert await tiers.listed() == [dearer]
        assert (await tiers.find_many(["club"]))["club"].retired
        await tiers.keep([team, club], at=datetime.now(UTC))
        assert await tiers.listed() == [club, team]

    own.run(work())
