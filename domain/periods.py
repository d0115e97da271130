"""Stretches over which something is counted, as text: `1m`, `5h`, `24h`, `7d`, `day`, `week`, `month`, `billing_period`, `lifetime`, `concurrent`."""

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.errors import InvalidInput

CALENDAR = ("day", "week", "month", "billing_period", "lifetime", "concurrent")
_ROLLING = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_SECONDS = 400 * 86400


def check_window(text: str, *, path: tuple[str, ...]) -> str:
    """Return `text` when it is a window; raises InvalidInput, naming `path`."""
    rolling = _ROLLING.fullmatch(text)
    if text in CALENDAR or (rolling and int(rolling[1]) * _SECONDS[rolling[2]] <= LONGEST_SECONDS):
        return text
    raise InvalidInput("A window is like 1m, 5h, 24h or 7d, or one of day, week, month, billing_period, lifetime, concurrent.", path=path)


def check_zone(name: str, *, path: tuple[str, ...]) -> str:
    """Return `name` when it is an IANA time zone or UTC; raises InvalidInput, naming `path`."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput("No such IANA time zone.", path=path) from None
    return name
