"""The secrets of API keys: `tg_live_` or `tg_test_`, 30 random base62 characters, and a base62 CRC32 of all before it.

The shape is GitHub's: a scanner can tell a leaked key from a look-alike, and the door refuses a malformed one without the database. 178 bits
of randomness make SHA-256 the right hash; a slow one would only be a lever for denial of service.
"""

import hashlib
import hmac
import re
import secrets as random
import zlib
from uuid import UUID

import msgspec

from models.enums import ApiKeyMode

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIXES = ("tg_live_", "tg_test_")
_SHAPE = re.compile(r"(tg_(?:live|test)_[0-9A-Za-z]{30})([0-9A-Za-z]{6})")


def base62(number: int, width: int) -> str:
    """Return a number in base 62, padded with zeros to `width` characters."""
    digits = ""
    while number:
        number, rest = divmod(number, 62)
        digits = ALPHABET[rest] + digits
    return digits.rjust(width, "0")


def make(mode: ApiKeyMode) -> str:
    """Make a new secret."""
    body = f"tg_{mode.value}_" + "".join(random.choice(ALPHABET) for _ in range(30))
    return body + base62(zlib.crc32(body.encode()), 6)


def seed(installation: str, credential: str, idempotency_key: str) -> bytes:
    """Return what a secret can be made of again by who shows the same credential and idempotency key, at this installation, and by nobody else."""
    said = msgspec.json.encode([credential, idempotency_key])
    return hmac.new(installation.encode(), b"tallygate key made again 1\0" + said, hashlib.sha256).digest()


def remake(mode: ApiKeyMode, seed: bytes, key_id: UUID) -> str:
    """Make the secret of a key that comes of a seed: the same each time, as hard to guess as any, and nowhere stored."""
    number = int.from_bytes(hmac.digest(seed, key_id.bytes, "sha512"))
    body = f"tg_{mode.value}_" + base62(number % 62**30, 30)
    return body + base62(zlib.crc32(body.encode()), 6)


def well_formed(secret: str) -> bool:
    """Tell whether shape and checksum fit, without asking the database."""
    found = _SHAPE.fullmatch(secret)
    return found is not None and base62(zlib.crc32(found[1].encode()), 6) == found[2]


def mode(secret: str) -> ApiKeyMode:
    """Return the mode that a well-formed secret says it has; the database has the last word."""
    return ApiKeyMode.TEST if secret.startswith(PREFIXES[1]) else ApiKeyMode.LIVE


def fingerprint(secret: str) -> str:
    """Return SHA-256 in hex: all that is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
