"""Stretches over which something is counted, as text: `1m`, `5h`, `24h`, `7d`, `day`, `week`, `month`, `billing_period`, `lifetime`, `concurrent`."""

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.errors import InvalidInput

CALENDAR = ("day", "week", "month", "billing_period", "lifetime", "concurrent")
_ROLLING = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_SECONDS = 400 * 86400
_ABOUT_SECONDS = {"day": 86_400, "week": 604_800, "month": 2_678_400, "billing_period": 2_678_401, "lifetime": 2**40, "concurrent": 0}


def check_window(text: str, *, path: tuple[str, ...]) -> str:
    """Return `text` when it is a window; raises InvalidInput, naming `path`."""
    rolling = _ROLLING.fullmatch(text)
    if text in CALENDAR or (rolling and int(rolling[1]) * _SECONDS[rolling[2]] <= LONGEST_SECONDS):
        return text
    raise InvalidInput("A window is like 1m, 5h, 24h or 7d, or one of day, week, month, billing_period, lifetime, concurrent.", path=path)


def length_seconds(window: str) -> int:
    """Return about how long a window is, to find the longest; 0 for what is counted at any one time."""
    return _ABOUT_SECONDS[window] if window in _ABOUT_SECONDS else int(window[:-1]) * _SECONDS[window[-1]]


_NOWHERE = ("right/", "posix/", "localtime", "posixrules", "Factory")
"""Files beside the zones in a machine's database, and how their names begin: of clocks that count leap seconds, or that differ from machine to machine."""


def check_zone(name: str, *, path: tuple[str, ...]) -> str:
    """Return `name` when it is an IANA time zone or UTC; raises InvalidInput, naming `path`."""
    try:
        if name.startswith(_NOWHERE):
            raise ZoneInfoNotFoundError(name)
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput("No such IANA time zone.", path=path) from None
    return name
