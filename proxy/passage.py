"""How a stream's bytes go from the provider to the client, and into the meter: the part of a call that runs for every chunk.

A chunk that is nothing but more text, as nearly all are, is read at the least cost and goes out as it came, with the size that the provider wrote before
it. Everything else takes the long way.
"""

import sys
from collections.abc import Callable

from clients.chunks import Taken
from clients.upstream import Response
from proxy.dialects.base import Meter
from proxy.dialects.counting import CHARACTERS_PER_TOKEN
from proxy.progress import Progress
from proxy.replies import Reply
from proxy.requests import Wire

LOOK_BYTES = 8192
"""How many bytes go by, at most, between two looks at whether the hold still covers the output, as it is counted: by characters."""

NOT, GO_ON, STOP = Taken.NOT, Taken.GO_ON, Taken.STOP


def _events(chunk: bytes) -> list[bytes]:
    """Cut a chunk after each blank line, where events end."""
    parts = chunk.split(b"\n\n")
    return [*(part + b"\n\n" for part in parts[:-1]), *([parts[-1]] if parts[-1] else [])]


class Passage:
    """One stream on its way, whose head is `head`; `elapsed_ms` tells how long the call takes by now."""

    def __init__(self, response: Response, meter: Meter, progress: Progress, reply: Reply, head: list[tuple[bytes, bytes]], elapsed_ms: Callable[[], int]) -> None:
        self._response = response
        self._meter = meter
        self._progress = progress
        self._reply = reply
        self._head = head
        self._elapsed_ms = elapsed_ms

    async def run(self) -> bool:
        """Let the stream through to its end; True when it has to be ended early, because nothing covers more of it. Raises one of BROKEN."""
        meter, progress, reply = self._meter, self._progress, self._reply
        feed, skim = meter.feed, meter.skim
        wire: Wire | None = None
        looked, look_after = 0, (0 if meter.events else sys.maxsize)  # what is no events has no tokens that are counted as they come

        def sink(chunk: bytes) -> Taken:
            """Let a piece through at the moment when it arrives."""
            nonlocal looked, skim
            size = looked + len(chunk)
            if wire is None or wire.paused or size > look_after:
                return NOT
            looked = size
            forward = feed(chunk)
            if progress.first_token_ms is None and meter.first_token_seen:
                progress.first_token_ms = self._elapsed_ms()
            if forward and reply.here:
                wire.say(forward)
                reply.said = True
            skim = meter.skim
            return STOP if meter.ended else GO_ON

        def skim_within(event: bytes) -> bool:
            """Read what is nothing but more text, as nearly every chunk is, so that it may go out with its size as it came."""
            nonlocal looked
            size = looked + len(event)
            if skim is None or size > look_after or way.paused or not reply.here or not skim(event):
                return False
            looked = size
            reply.said = True
            return True

        while True:
            wire = reply.wire
            if wire is not None:
                way, skim = wire, meter.skim
                await self._response.flow(sink, (skim_within, wire.write))
                if meter.ended:
                    break
            chunk = await self._response.more()
            if not chunk:
                meter.over()
                break
            going: list[bytes] = []  # leaves together, because it came together
            # where the room is less than what came at once, event by event, so that the end comes after the last event that is covered
            for part in (chunk,) if looked + len(chunk) <= look_after else _events(chunk):
                forward = feed(part)
                if progress.first_token_ms is None and meter.first_token_seen:
                    progress.first_token_ms = self._elapsed_ms()
                looked += len(part)
                if looked >= look_after:
                    output_tokens = meter.usage.output_tokens
                    if going and progress.caught_up(output_tokens):  # what is covered does not wait for what may not be
                        await self._pass(going)
                        going = []
                    left = await progress.room(output_tokens)
                    looked, look_after = 0, min(LOOK_BYTES, left * CHARACTERS_PER_TOKEN)
                    if not left and not meter.ended:
                        await self._pass([*going, forward])
                        return True
                if forward:
                    going.append(forward)
            if going:
                await self._pass(going)
            if meter.ended:
                break
        return False

    async def _pass(self, parts: list[bytes]) -> None:
        if not self._reply.started:
            await self._reply.begin(200, self._head)
        await self._reply.say(parts[0] if len(parts) == 1 else b"".join(parts))
