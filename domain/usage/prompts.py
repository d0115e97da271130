"""Prompts as the cache doctor remembers them: salted digests of their beginnings, and what two of them in a row tell.

A provider's prompt cache holds the beginning of a prompt, in the order tools, system prompt, messages. A digest stands after each element of it, over
everything up to there, so the first that differs says where two prompts part. No text can be had back from them, nor tried against them without the
installation's secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from models.enums import CacheMissReason, PromptPart

LEAST_TOKENS = 1024
"""No provider caches a shorter prompt."""
GRAIN_TOKENS = 128
"""Providers count what they read in steps as large as this."""
FIRST_MARKS, LAST_MARKS = 64, 128
"""How many elements of a prompt are remembered, of its beginning and of its end; of a longer one, the middle is one element."""
MOST_STRANDS = 4
"""How many prompts of a conversation are remembered: a tool's helpers speak under the conversation's name, each with a prompt of its own."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """The digest of a prompt up to an element's end; `end_bytes` is how much that is. `index` counts the elements of a part."""

    part: PromptPart
    index: int
    end_bytes: int
    digest: bytes


class Prompt(msgspec.Struct, frozen=True, array_like=True):
    """A prompt: `tools`, `system` and `first`, the first message, each by itself, and the marks of all. `marked` when it says what is to be cached."""

    tools: bytes
    system: bytes
    first: bytes
    marked: bool
    marks: tuple[Mark, ...]

    @property
    def size_bytes(self) -> int:
        """How long it is in all."""
        return self.marks[-1].end_bytes if self.marks else 0

    def thinned(self) -> "Prompt":
        """Return it with as many marks as are kept."""
        if len(self.marks) <= FIRST_MARKS + LAST_MARKS:
            return self
        return msgspec.structs.replace(self, marks=self.marks[:FIRST_MARKS] + self.marks[-LAST_MARKS:])


class Strand(msgspec.Struct, frozen=True, array_like=True):
    """The last prompt of a strand of a conversation, and what its answer said: `cached_tokens` stood in the cache from `ready_at` on."""

    call_id: UUID
    ready_at: datetime
    model: str
    upstream: str
    prompt_tokens: int
    cached_tokens: int
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call's answer said of its prompt. `automatic` where the provider caches without being told."""

    call_id: UUID
    began_at: datetime
    ready_at: datetime
    model: str
    upstream: str
    automatic: bool
    fresh_tokens: int
    read_tokens: int
    written_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """All of the prompt."""
        return self.fresh_tokens + self.read_tokens + self.written_tokens

    @property
    def cached_tokens(self) -> int:
        """How much of the prompt stands in the cache afterwards."""
        if self.automatic:
            return self.prompt_tokens // GRAIN_TOKENS * GRAIN_TOKENS
        return self.read_tokens + self.written_tokens


@dataclass(frozen=True, slots=True)
class Finding:
    """A miss: why, and where the two prompts part, None where they do not. `shared_tokens` stand before that, `missed_tokens` were paid anew."""

    reason: CacheMissReason
    part: PromptPart | None
    message_index: int | None
    shared_tokens: int
    missed_tokens: int


def strand_of(strands: Sequence[Strand], prompt: Prompt) -> Strand | None:
    """Return the strand that a prompt goes on; None for a new one.

    It begins with the same message, and has the same tools or the same system prompt; failing that, it has both, and begins anew.
    """
    same = [strand for strand in strands if strand.prompt.tools == prompt.tools or strand.prompt.system == prompt.system]
    begun = next((strand for strand in same if strand.prompt.first == prompt.first), None)
    return begun or next((strand for strand in same if strand.prompt.tools == prompt.tools and strand.prompt.system == prompt.system), None)


def woven(strands: Sequence[Strand], before: Strand | None, prompt: Prompt, reply: Reply) -> list[Strand]:
    """Return the strands with this prompt as the newest, in place of the one it goes on, unless it begins anew."""
    newest = Strand(reply.call_id, reply.ready_at, reply.model, reply.upstream, reply.prompt_tokens, reply.cached_tokens, prompt.thinned())
    gone = before if before is not None and before.prompt.first == prompt.first else None
    return [newest, *(strand for strand in strands if strand is not gone)][:MOST_STRANDS]


def compare(before: Strand, prompt: Prompt, reply: Reply) -> Finding | None:
    """Return what a prompt missed of what the one before had put into the cache, and why; None where it missed nothing, or nobody can tell.

    Nobody can tell when the one before was still under way, or when nothing of it was cached although it said what should be.
    """
    if reply.began_at < before.ready_at:
        return None
    part, index, shared_bytes = _parting(before.prompt, prompt)
    shared = before.prompt_tokens if part is None else shared_bytes * before.prompt_tokens // max(before.prompt.size_bytes, 1)
    never_marked = not before.cached_tokens and not reply.automatic and not before.prompt.marked
    standing = before.prompt_tokens if never_marked else before.cached_tokens
    if before.prompt.first != prompt.first:  # it begins anew, and could have read no more than the tools and the system prompt
        standing = min(standing, shared)
    reason = CacheMissReason.EXPIRED
    if never_marked:
        if prompt.marked:  # it marks now, and could not have read
            return None
        reason, standing = CacheMissReason.NOT_MARKED, min(standing, shared)
    elif before.model != reply.model:
        reason, standing = CacheMissReason.MODEL_CHANGED, min(standing, shared)
    elif before.upstream != reply.upstream:
        reason, standing = CacheMissReason.UPSTREAM_CHANGED, min(standing, shared)
    elif part is not None and shared < standing:
        reason = CacheMissReason.PREFIX_CHANGED
    elif not reply.automatic and not prompt.marked:
        reason = CacheMissReason.NOT_MARKED
    missed = min(standing - reply.read_tokens, reply.fresh_tokens + reply.written_tokens)
    if standing < LEAST_TOKENS or missed < GRAIN_TOKENS:
        return None
    return Finding(reason, part, index, min(shared, before.prompt_tokens), missed)


def _parting(before: Prompt, now: Prompt) -> tuple[PromptPart | None, int | None, int]:
    """Return where a prompt parts from the one before, which message that is, and how many bytes of the one before stand ahead of it."""
    found = {(mark.part, mark.index): mark.digest for mark in now.marks}
    ahead: Mark | None = None
    for mark in before.marks:
        if found.get((mark.part, mark.index)) != mark.digest:
            break
        ahead = mark
    else:
        return None, None, before.size_bytes
    shared_bytes = ahead.end_bytes if ahead is not None else 0
    if before.tools != now.tools:
        return PromptPart.TOOLS, None, shared_bytes
    if before.system != now.system:
        return PromptPart.SYSTEM, None, shared_bytes
    return PromptPart.MESSAGES, ahead.index + 1 if ahead is not None and ahead.part is PromptPart.MESSAGES else 0, shared_bytes
