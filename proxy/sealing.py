"""Answers as they are kept: sealed with a key made of the caller's API key and the idempotency key, so that the database alone opens none.

AES-256-GCM (NIST SP 800-38D) under a key of HKDF-SHA256 (RFC 5869); the nonce is random, and every answer has a key of its own.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as its client saw it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def _key(secret: str, idempotency_key: str, name: str) -> bytes:
    return HKDF(SHA256(), 32, salt=bytes.fromhex(name), info=b"tallygate idempotent answer 1").derive(secret.encode() + b"\0" + idempotency_key.encode())


def request_hash(idempotency_key: str, key_id: UUID, road: bytes, body: bytes) -> str:
    """Return what tells one request from another, in hex, and nothing of it to anybody without the idempotency key."""
    return hmac.new(key_id.bytes + idempotency_key.encode(), road + b"\0" + body, hashlib.sha256).hexdigest()


def seal(kept: Kept, secret: str, idempotency_key: str, name: str) -> bytes:
    """Seal an answer; `name` is the id under which it is kept, and is sealed in with it."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(_key(secret, idempotency_key, name)).encrypt(nonce, msgspec.msgpack.encode(kept), name.encode())


def unseal(sealed: bytes, secret: str, idempotency_key: str, name: str) -> Kept | None:
    """Open an answer; None when it was sealed for another secret, as before a rotation."""
    try:
        text = AESGCM(_key(secret, idempotency_key, name)).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
    except InvalidTag:
        return None
    return msgspec.msgpack.decode(text, type=Kept)
