"""Global IDs: a type's name and the row's own key in one opaque text."""

import base64
import binascii
import re
from typing import Final
from uuid import UUID

import strawberry

SHAPE: Final = re.compile(r"([A-Z][A-Za-z]{1,40}):([0-9A-Za-z._:@/+-]{1,200})", re.ASCII)


def encode(kind: str, key: UUID | str | int) -> strawberry.ID:
    """The global ID of the row `key` of the GraphQL type `kind`, as base64url without padding."""
    return strawberry.ID(base64.urlsafe_b64encode(f"{kind}:{key}".encode()).rstrip(b"=").decode())


def decode(global_id: str) -> tuple[str, str] | None:
    """The type's name and the row's key, or None for anything that `encode` did not make."""
    try:
        text = base64.b64decode(global_id.encode("ascii") + b"=" * (-len(global_id) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    match = SHAPE.fullmatch(text)
    if match is None or encode(match[1], match[2]) != global_id:
        return None
    return match[1], match[2]


def key_of(kind: str, global_id: str) -> str | None:
    """The row's key when the ID is one of the type `kind`, else None."""
    found = decode(global_id)
    return found[1] if found is not None and found[0] == kind else None


def uuid_of(kind: str, global_id: str) -> UUID | None:
    """The row's UUID when the ID is one of the type `kind`, else None."""
    key = key_of(kind, global_id)
    return None if key is None else parse_uuid(key)


def parse_uuid(text: str) -> UUID | None:
    """The UUID that is written so, and no other way; else None."""
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None
