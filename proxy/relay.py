"""Every call under way in this process, and the beat that looks after them all."""

import asyncio
import time

from domain.tasks import end
from proxy.admission import Arrival
from proxy.pump import SETTLE_SECONDS, Pump
from proxy.requests import Send, Wire
from runtime import Runtime

PULSE_SECONDS = 2.0
"""How old a call's last sign of life becomes, at most: its admission is the first, and a shorter call needs no other."""
BEAT_SECONDS = 0.25
CLOSE_SECONDS = 20.0


class Relay:
    """Starts calls, keeps their holds alive, and ends them when the process ends."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._pumps: set[Pump] = set()
        self._pulse = asyncio.create_task(self._beat())

    @property
    def under_way(self) -> int:
        """How many calls are under way."""
        return len(self._pumps)

    def start(self, arrival: Arrival, way: Wire | Send) -> Pump:
        """Begin a call; it answers the client on its wire or through `send`, and settles whatever happens. Its task ends when all of it is done."""
        pump = Pump(self.runtime, arrival, way, self._pumps.discard)
        self._pumps.add(pump)
        pump.start()
        return pump

    async def _beat(self) -> None:
        """Look after all calls, and keep the progress of those whose last sign is old in one commit."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            now = time.monotonic()
            old = now + BEAT_SECONDS - PULSE_SECONDS  # by the next beat it would be too old
            pumps = list(self._pumps)
            for pump in pumps:
                pump.attend(now)
            signs = [pump.keep(now) for pump in pumps if pump.open and pump.kept_at < old]
            if signs:
                await asyncio.gather(*signs, return_exceptions=True)

    async def close(self) -> None:
        """Let calls under way finish for CLOSE_SECONDS, then end them with an error and settle what they delivered."""
        if self._pumps:
            await asyncio.wait([pump.task for pump in self._pumps], timeout=CLOSE_SECONDS)
        for pump in list(self._pumps):
            pump.stop()
        if self._pumps:
            await asyncio.wait([pump.task for pump in self._pumps], timeout=SETTLE_SECONDS + 1)
        await end([self._pulse])
