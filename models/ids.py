"""Time-ordered identities."""

import os
import time
import uuid
from datetime import UTC, datetime


def uuid7(at_milliseconds: int | None = None) -> uuid.UUID:
    """Make a version 7 UUID of this instant, or of `at_milliseconds` since the epoch (RFC 9562, section 5.7)."""
    now = time.time_ns() // 1_000_000 if at_milliseconds is None else at_milliseconds
    value = (now & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def instant(of: uuid.UUID) -> datetime:
    """Return the instant inside a version 7 UUID, to the millisecond."""
    return datetime.fromtimestamp((of.int >> 80) / 1000, UTC)
