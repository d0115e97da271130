"""Where providers are, as requests need it."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

Field = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections lead: what they are kept by."""

    host: str
    port: int
    secure: bool


@dataclass(frozen=True, slots=True)
class Target:
    """An address: its origin, and how a request to it starts."""

    origin: Origin
    start: bytes


@lru_cache(maxsize=1024)
def target_of(url: str) -> Target:
    """Return what an address means; raises ValueError for one that is no provider's."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{parts.scheme}://{parts.hostname or ''} is no address of an upstream")
    secure = parts.scheme == "https"
    host = parts.hostname.encode("idna").decode() if not parts.hostname.isascii() else parts.hostname
    shown = f"[{host}]" if ":" in host else host
    shown = shown if parts.port is None else f"{shown}:{parts.port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    start = f"POST {path} HTTP/1.1\r\nhost: {shown}\r\naccept-encoding: identity\r\n".encode("ascii")
    return Target(Origin(host, parts.port or (443 if secure else 80), secure), start)
