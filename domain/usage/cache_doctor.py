"""The cache doctor: looks at calls that are over, one after the other, and keeps what their prompts missed of the prompt cache.

It works beside the calls. What is not remembered any more, or was never looked at because too much waited, is not known, and is told as no miss.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import msgspec
import structlog

from domain.money.catalogue import Book, PriceVersion
from domain.money.markup import Standing
from domain.serving.calls import Consumption, reckon
from domain.usage import cache_misses
from domain.usage.prompts import Finding, Prompt, Reply, Strand, compare, strand_of, woven
from models.enums import Bucket
from models.ids import instant

KEPT_SECONDS = 6 * 3600
"""How long a conversation's last prompts are remembered: longer than any entry lives, so that one that ran out of time is told as such."""
WAITING_BYTES = 64 * 1024 * 1024
MOST_WAITING = 1000
ASIDE_BYTES = 256 * 1024
"""A larger prompt is digested in a thread, so that it stops no stream."""
PAID_ANEW = (Bucket.CACHE_WRITE_1H, Bucket.CACHE_WRITE_5M, Bucket.UNCACHED_INPUT)

log = structlog.get_logger()
_STRANDS = msgspec.msgpack.Decoder(list[Strand])


@dataclass(frozen=True, slots=True)
class Turn:
    """A call that is over. `read` gives the digests of its prompt under a salt; `paid` when credit paid for it, so that a miss had a price."""

    workspace_id: UUID
    key_id: UUID
    conversation: str | None
    reply: Reply
    price: PriceVersion
    used: Consumption
    paid: bool
    size_bytes: int
    read: Callable[[bytes], Prompt | None] = field(repr=False)
    standing: Standing | None = None


class Memory(Protocol):
    """Keeps small values for a while; may lose any of them."""

    async def get(self, name: str) -> bytes | None:
        """Return a value; raises ConnectionError when it cannot be asked."""

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        """Keep a value; raises ConnectionError when it cannot."""


class Doctor:
    """Looks at one process's calls in the order in which they end. `secret` salts every digest, together with the workspace."""

    def __init__(self, book: Book, memory: Memory, secret: str) -> None:
        self._book = book
        self._memory = memory
        self._secret = secret.encode()
        self._waiting: deque[Turn] = deque()
        self._waiting_bytes = 0
        self._working: asyncio.Task[None] | None = None

    def see(self, turn: Turn) -> None:
        """Take a call to be looked at later; one too many is let go."""
        if len(self._waiting) >= MOST_WAITING or self._waiting_bytes + turn.size_bytes > WAITING_BYTES:
            return
        self._waiting.append(turn)
        self._waiting_bytes += turn.size_bytes
        if self._working is None:
            self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._waiting:
                turn = self._waiting.popleft()
                self._waiting_bytes -= turn.size_bytes
                try:
                    await self._look(turn)
                except Exception as error:  # of a prompt nobody knows more than without a doctor
                    log.warning("prompt not looked at", call=str(turn.reply.call_id), error=type(error).__name__)
        finally:
            self._working = None

    async def _look(self, turn: Turn) -> None:
        salt = hashlib.sha256(b"prompt digests\0" + turn.workspace_id.bytes + self._secret).digest()
        prompt = await asyncio.to_thread(turn.read, salt) if turn.size_bytes > ASIDE_BYTES else turn.read(salt)
        if prompt is None:
            return
        name = _name(salt, turn, prompt)
        kept = await self._memory.get(name)
        strands = _STRANDS.decode(kept) if kept is not None else []
        before = strand_of(strands, prompt)
        await self._memory.put(name, msgspec.msgpack.encode(woven(strands, before, prompt, turn.reply)), seconds=KEPT_SECONDS)
        finding = None if before is None else compare(before, prompt, turn.reply)
        if before is not None and finding is not None:
            await cache_misses.keep(turn.workspace_id, turn.reply.call_id, before.call_id, turn.reply.began_at, finding, self._cost_microusd(turn, finding))

    def _cost_microusd(self, turn: Turn, finding: Finding) -> int:
        """Return what the missed tokens cost more than it would have cost to read them, as the call was charged; nothing where a quota paid."""
        if not turn.paid:
            return 0
        quantities = dict(turn.used.quantities)
        left = finding.missed_tokens
        for bucket in PAID_ANEW:
            moved = min(left, quantities.get(bucket, 0))
            quantities[bucket] = quantities.get(bucket, 0) - moved
            quantities[Bucket.CACHE_READ] = quantities.get(Bucket.CACHE_READ, 0) + moved
            left -= moved
        paid = reckon(self._book, turn.used, turn.price).picousd
        better = reckon(self._book, msgspec.structs.replace(turn.used, quantities=quantities), turn.price).picousd
        rule = self._book.markup.in_force(turn.price.model, turn.standing or Standing(turn.workspace_id), instant(turn.reply.call_id))
        more = paid - better if rule is None else rule.charge(paid) - rule.charge(better)
        return max(more, 0) // 1_000_000

    async def close(self) -> None:
        """Look at what still waits, for two seconds at most."""
        if self._working is not None:
            await asyncio.wait({self._working}, timeout=2)
            if self._working is not None:
                self._working.cancel()


def _name(salt: bytes, turn: Turn, prompt: Prompt) -> str:
    """Return under what a conversation's prompts are remembered: its key with the id that calls give it, or else with how it begins."""
    digest = hashlib.blake2b(turn.key_id.bytes, key=salt, digest_size=16)
    digest.update(b"\1" + prompt.first if turn.conversation is None else b"\2" + turn.conversation.encode())
    return digest.hexdigest()
