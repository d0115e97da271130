"""Group commit: requests that arrive together share one database call, and each gets its own answer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec

from models import database
from models.database import CONTENDED, UNREACHABLE

Item = dict[str, Any]
Answer = asyncpg.Record
_ENCODER = msgspec.json.Encoder()

Run = Callable[[str, bool], Awaitable[Sequence[Answer]]]


@dataclass(slots=True)
class Waiting:
    """An item that waits for its answer."""

    item: Item
    future: "asyncio.Future[Answer]"
    passed_over: int = 0
    outcome: Answer | BaseException | None = None

    def again(self) -> "asyncio.Future[Answer]":
        """Return where the answer will be, or is, when whoever waited for it was cancelled, and their future with them."""
        if self.future.cancelled():
            self.future = asyncio.get_running_loop().create_future()
            if self.outcome is not None:
                self.answer(self.outcome)
        return self.future

    def answer(self, outcome: Answer | BaseException) -> None:
        """Give the answer to who waits, and keep it where nobody does."""
        if self.future.done():
            self.outcome = outcome
        elif isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Batch:
    """One queue of like requests, of which at most `most` are in one statement, and one statement is under way at a time.

    `run` takes the items as a JSON array, each with its place `n`, and whether to wait for locks, and answers a row for each. In its column `says`,
    'busy' means that its account was locked by another batch: it goes to the head of the next one, which waits. A statement that fails
    is tried again item by item, so that one bad item harms no other. A batch decides nothing that single calls would decide otherwise.
    """

    def __init__(self, run: Run, *, most: int, says: str = "result") -> None:
        self._run = run
        self._says = says
        self._most = most
        self._waiting: deque[Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """Return the item's answer; raises what its statement raised.

        A cancelled submission may have been carried out: whoever cancels must look.
        """
        return await self.enqueue(item).future

    def enqueue(self, item: Item) -> Waiting:
        """Return the item as it waits, for who waits in a way of their own."""
        waiting = Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._drain())
        return waiting

    async def _drain(self) -> None:
        batch: list[Waiting] = []
        try:
            while self._waiting:
                await asyncio.sleep(0)  # what is ready in this turn of the loop comes along
                batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                try:
                    await self._commit(batch, wait=any(entry.passed_over for entry in batch) or len(batch) == 1)
                except Exception as error:  # whatever it was, nobody may wait for an answer that never comes
                    self._fail(batch, error)
        finally:
            self._worker = None
            for entry in (*batch, *self._waiting):  # unanswered only when this task itself is killed
                entry.future.cancel()

    async def _commit(self, batch: list[Waiting], *, wait: bool) -> None:
        try:
            for place, entry in enumerate(batch):
                entry.item["n"] = place
            text = _ENCODER.encode([entry.item for entry in batch]).decode()
            rows = await self._run(text, wait)
        except UNREACHABLE as error:
            self._fail(batch, error)
        except Exception as error:  # a bug too: nobody may be left waiting for an answer that never comes
            if len(batch) == 1:
                entry = batch[0]
                if isinstance(error, CONTENDED) and entry.passed_over < 5:
                    entry.passed_over += 1
                    self._waiting.appendleft(entry)
                else:
                    self._fail(batch, error)
            else:
                for entry in batch:
                    await self._commit([entry], wait=True)
        else:
            busy = []
            for entry, row in zip(batch, rows, strict=True):
                if row[self._says] == "busy":
                    entry.passed_over += 1
                    busy.append(entry)
                else:
                    entry.answer(row)
            self._waiting.extendleft(reversed(busy))

    @staticmethod
    def _fail(batch: list[Waiting], error: BaseException) -> None:
        for entry in batch:
            entry.answer(error)


def statement(sql: str) -> Run:
    """Return a `run` for a function of (calls, wait)."""

    async def run(items: str, wait: bool) -> Sequence[Answer]:
        return await database.fetch(sql, items, wait)

    return run
