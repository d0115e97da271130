"""Group commit by itself: who is answered what, when statements are slow, busy or fail."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from domain.serving.batches import Batch

pytestmark = pytest.mark.anyio


class Statement:
    """A statement of the test's own: doubles each item's `value`, and remembers what it was given."""

    def __init__(self, *, bad: int | None = None, busy: int = 0, error: BaseException | None = None) -> None:
        self.batches: list[tuple[list[int], bool]] = []
        self._bad, self._busy, self._error = bad, busy, error

    async def __call__(self, items: str, wait: bool) -> Sequence[Any]:
        """Answer in order of the items."""
        values = [item["value"] for item in json.loads(items)]
        assert [item["n"] for item in json.loads(items)] == list(range(len(values)))
        self.batches.append((values, wait))
        await asyncio.sleep(0)
        if self._bad in values:
            raise self._error or asyncpg.DataError("bad item")
        rows = []
        for value in values:
            busy = not wait and self._busy > 0 and value % 2 == 1
            self._busy -= busy
            rows.append({"result": "busy" if busy else "done", "value": value * 2})
        return rows


async def submit(batch: Batch, number: int) -> list[Any]:
    """Submit that many items at once; return what each heard."""
    return list(await asyncio.gather(*(batch.submit({"value": value}) for value in range(number)), return_exceptions=True))


async def test_each_gets_its_own_answer_in_few_statements() -> None:
    """Two hundred at once, at most fifty in one statement: four statements, in order of arrival, one at a time."""
    statement = Statement()
    heard = await submit(Batch(statement, most=50), 200)
    assert [row["value"] for row in heard] == [value * 2 for value in range(200)]
    assert [values for values, _ in statement.batches] == [list(range(start, start + 50)) for start in range(0, 200, 50)]


async def test_one_alone_waits_for_its_lock() -> None:
    """A single item is its own statement, and waits, since nobody else would be held up."""
    statement = Statement()
    await submit(Batch(statement, most=50), 1)
    assert statement.batches == [([0], True)]


async def test_one_bad_item_harms_no_other() -> None:
    """A statement that fails is tried item by item: the bad item hears its error, all others their answers."""
    statement = Statement(bad=3)
    heard = await submit(Batch(statement, most=50), 6)
    assert [type(answer) for answer in heard] == [dict, dict, dict, asyncpg.DataError, dict, dict]


async def test_a_busy_item_comes_first_next_time_and_waits() -> None:
    """An item whose account was locked is at the head of the next statement, which waits for it: nobody starves."""
    statement = Statement(busy=2)
    heard = await submit(Batch(statement, most=4), 8)
    assert [row["result"] for row in heard] == ["done"] * 8
    assert statement.batches == [([0, 1, 2, 3], False), ([1, 3, 4, 5], True), ([6, 7], False)]


async def test_an_unreachable_server_is_told_to_all() -> None:
    """When the server is away, everybody in the statement hears so, and is not tried one by one; later ones are tried anew."""
    statement = Statement(bad=0, error=OSError("away"))
    batch = Batch(statement, most=3)
    heard = await submit(batch, 6)
    assert [type(answer) for answer in heard] == [OSError] * 3 + [dict] * 3
    assert [values for values, _ in statement.batches] == [[0, 1, 2], [3, 4, 5]]
    assert (await batch.submit({"value": 21}))["value"] == 42


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError("x"), asyncpg.SerializationError("x"), asyncpg.LockNotAvailableError("x")])
async def test_contention_is_tried_again(error: asyncpg.PostgresError) -> None:
    """A deadlock or a lock's time-out is tried again, a few times and not for ever."""
    statement = Statement(bad=0, error=error)
    heard = await submit(Batch(statement, most=3), 1)
    assert [type(answer) for answer in heard] == [type(error)]
    assert len(statement.batches) == 6


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("a bug"), AssertionError("a bug")])
async def test_no_error_leaves_anybody_waiting(error: Exception) -> None:
    """Whatever a statement raises, a bug of ours too, its items hear it, and those after them are served."""
    statement = Statement(bad=0, error=error)
    batch = Batch(statement, most=2)
    heard = await asyncio.wait_for(submit(batch, 4), 5)
    assert [type(answer) for answer in heard] == [type(error), dict, dict, dict]


async def test_nobody_waits_for_a_batch_that_was_killed() -> None:
    """When a process ends, those in the statement under way and those behind it are cancelled, not left waiting."""
    statement = Statement()
    batch = Batch(statement, most=2)
    tasks = [asyncio.create_task(batch.submit({"value": value})) for value in range(4)]
    while not statement.batches:
        await asyncio.sleep(0)
    assert batch._worker is not None
    batch._worker.cancel()
    assert [type(answer) for answer in await asyncio.gather(*tasks, return_exceptions=True)] == [asyncio.CancelledError] * 4
    assert (await batch.submit({"value": 4}))["value"] == 8


async def test_a_cancelled_submission_harms_no_other() -> None:
    """Those who leave are forgotten; the others of their statement are answered."""
    batch = Batch(Statement(), most=50)
    tasks = [asyncio.create_task(batch.submit({"value": value})) for value in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    heard = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in heard] == [asyncio.CancelledError, dict] * 5
