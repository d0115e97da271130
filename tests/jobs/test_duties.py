"""Duties: the row is the truth, whatever happens to queue and workers (J1)."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import redis.asyncio

from clients.queue import CLAIM_SECONDS, MARK_SECONDS, QUEUE_NAME, ArqQueue
from domain import duties
from domain.access.members import INVITATION_MAIL
from models import database
from tests.conftest import Suite
from tests.support.calling import until
from tests.support.gateway import ROOT, Gateway
from tests.support.servers import Servers
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

DIES_BEFORE_THE_NUDGE = """
import asyncio, os, signal, sys
from datetime import UTC, datetime
from uuid import UUID
from clients.queue import CLAIM_SECONDS, MARK_SECONDS, QUEUE_NAME, ArqQueue
from domain import duties
from models import database

async def main() -> None:
    await database.open_pool(os.environ["DATABASE_URL"], pool=2)

    async def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async with database.transaction():
        database.after_commit(die)
        job_id = await duties.owe("invitation_mail", {"member_id": sys.argv[2]}, workspace_id=UUID(sys.argv[1]), at=datetime.now(UTC))
        print(job_id, flush=True)

asyncio.run(main())
"""


async def _job(job_id: UUID) -> asyncpg.Record:
    row = await database.fetch_row("SELECT * FROM job WHERE id = $1", job_id)
    assert row is not None
    return row


async def _owe(kind: str, payload: dict[str, Any], workspace_id: UUID | None = None) -> UUID:
    """Write a duty far in the future, so that no sweep of the run's gateways takes it away from the test."""
    async with database.transaction():
        return await duties.owe(kind, payload, workspace_id=workspace_id, at=datetime.now(UTC) + timedelta(days=30))


async def _is(job_id: UUID, status: str) -> bool:
    return bool((await _job(job_id))["status"] == status)


@pytest.fixture
async def invitation(books: Suite) -> tuple[UUID, UUID, str]:
    """An open invitation whose mail nobody owes yet: workspace, member, address."""
    mine = await tenant()
    email = f"invited-{mine.workspace_id.hex[-12:]}@example.com"
    async with database.transaction():
        user_id = await database.fetch_value("INSERT INTO users (id, email, operator, created_at) VALUES (uuidv7(), $1, false, clock_timestamp()) RETURNING id", email)
        member_id = await database.fetch_value(
            "INSERT INTO member (workspace_id, id, user_id, role, invited_by, invited_at, invitation_expires_at, created_at)"
            " VALUES ($1, uuidv7(), $2, 'viewer', $3, clock_timestamp(), clock_timestamp() + interval '7 days', clock_timestamp()) RETURNING id",
            mine.workspace_id,
            user_id,
            mine.owner.user_id,
        )
    return mine.workspace_id, member_id, email


async def test_a_duty_whose_process_died_before_the_nudge_is_done(gateway: Gateway, books: Suite, invitation: tuple[UUID, UUID, str]) -> None:
    """The row is committed, then kill -9: no queue ever heard of it, and a sweep of another process finds it; the mail goes out."""
    workspace_id, member_id, email = invitation
    command = [sys.executable, "-c", DIES_BEFORE_THE_NUDGE, str(workspace_id), str(member_id)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env={**os.environ, **books.environment}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    job_id = UUID(done.stdout.strip())
    await until(lambda: _is(job_id, "succeeded"), "the duty done")
    mail = Path(books.folder / "mail" / f"{job_id}.eml")
    assert f"To: {email}" in await asyncio.to_thread(mail.read_text)
    row = await _job(job_id)
    assert (row["tries"], row["failure"]) == (1, None)
    assert row["finished_at"] is not None


async def test_a_handler_that_raises_is_tried_again_and_then_given_up_visibly(gateway: Gateway, books: Suite) -> None:
    """A payload that its handler cannot read fails again and again at the worker; the last try leaves it failed, with the reason."""
    mine = await tenant()
    job_id = await _owe(INVITATION_MAIL, {}, mine.workspace_id)
    await database.fetch("UPDATE job SET next_at = clock_timestamp() WHERE id = $1", job_id)

    async def tried(count: int) -> bool:
        row = await _job(job_id)
        return bool(row["tries"] >= count and row["status"] == "queued")

    await until(lambda: tried(1), "a first try")
    await database.fetch("UPDATE job SET next_at = clock_timestamp(), tries = $2 WHERE id = $1", job_id, duties.MOST_TRIES - 1)
    await until(lambda: _is(job_id, "failed"), "the duty given up")
    row = await _job(job_id)
    assert (row["tries"], row["failure"], row["leased_until"]) == (duties.MOST_TRIES, "KeyError: 'member_id'", None)
    assert row["finished_at"] is not None


async def test_a_kind_that_nobody_knows_is_kept_for_a_newer_version(gateway: Gateway, books: Suite) -> None:
    """A job that a newer version wrote is put back by an older worker, and not lost."""
    job_id = await _owe("kind_of_tomorrow", {})
    await database.fetch("UPDATE job SET next_at = clock_timestamp() WHERE id = $1", job_id)

    async def put_back() -> bool:
        row = await _job(job_id)
        return bool(row["status"] == "queued" and row["tries"] == 1)

    await until(put_back, "the duty put back")
    assert "no handler for kind_of_tomorrow" in (await _job(job_id))["failure"]
    await database.fetch("UPDATE job SET status = 'failed' WHERE id = $1", job_id)


async def test_the_delay_doubles_up_to_ten_minutes(books: Suite) -> None:
    """The n-th failure puts a job back by 2^n seconds, at most 600; after MOST_TRIES it is failed."""
    job_id = await _owe("test", {})
    for tries in range(1, duties.MOST_TRIES + 1):
        duty = await duties.claim(job_id)
        assert duty is not None
        assert duty.tries == tries
        before = await database.fetch_value("SELECT clock_timestamp()")
        await duties.failed(duty, "x" * 1000)
        after = await database.fetch_value("SELECT clock_timestamp()")
        delay = timedelta(seconds=min(2**tries, 600))
        row = await _job(job_id)
        assert before + delay <= row["next_at"] <= after + delay
        assert row["status"] == ("queued" if tries < duties.MOST_TRIES else "failed")
        assert len(row["failure"]) == 500
    assert await duties.claim(job_id) is None


async def test_a_duty_that_kills_its_workers_is_given_up(gateway: Gateway, books: Suite) -> None:
    """Workers that die over a duty never say that it failed; the claim after the last try does, and does not run it again."""
    mine = await tenant()
    job_id = await _owe(INVITATION_MAIL, {}, mine.workspace_id)
    await database.fetch(
        "UPDATE job SET status = 'running', tries = $2, next_at = clock_timestamp(), leased_until = clock_timestamp() WHERE id = $1", job_id, duties.MOST_TRIES
    )
    await until(lambda: _is(job_id, "failed"), "the duty given up")
    row = await _job(job_id)
    assert (row["tries"], row["failure"]) == (duties.MOST_TRIES + 1, "given up: its workers ended over it without a word")


async def test_of_many_claims_one_has_the_duty(books: Suite) -> None:
    """Sixteen workers claim at once: one gets it; a second claim waits for the first one's lease to end."""
    job_id = await _owe("test", {})
    claims = [claim for claim in await asyncio.gather(*(duties.claim(job_id) for _ in range(16))) if claim is not None]
    assert [claim.tries for claim in claims] == [1]
    assert await duties.claim(job_id) is None
    async with database.transaction():
        assert await duties.done(claims[0])
    assert await duties.claim(job_id) is None


async def test_a_worker_whose_lease_ran_out_changes_nothing_any_more(books: Suite) -> None:
    """Its duty was taken over: neither its success nor its failure counts, and its transaction's effects are its own to roll back."""
    job_id = await _owe("test", {})
    slow = await duties.claim(job_id)
    assert slow is not None
    await database.fetch("UPDATE job SET leased_until = clock_timestamp() WHERE id = $1", job_id)
    fast = await duties.claim(job_id)
    assert fast is not None
    async with database.transaction():
        assert not await duties.done(slow)
    await duties.failed(slow, "too late")
    assert await _is(job_id, "running")
    async with database.transaction():
        assert await duties.done(fast)
    assert await _is(job_id, "succeeded")


async def test_a_queue_that_forgot_a_job_is_told_of_it_again(gateway: Gateway, books: Suite, servers: Servers, invitation: tuple[UUID, UUID, str]) -> None:
    """O2, J1: emptied between a worker's mark and its look, the queue has an id without a job; that leaves nothing that hides the next nudge."""
    workspace_id, member_id, _ = invitation
    job_id = await _owe(INVITATION_MAIL, {"member_id": str(member_id)}, workspace_id)
    async with redis.asyncio.Redis(unix_socket_path=str(servers.valkey.socket_path)) as valkey:
        await valkey.delete(f"arq:job:{job_id}:0")
        await valkey.zadd(QUEUE_NAME, {f"{job_id}:0": 1})

        async def looked_at() -> bool:
            return await valkey.zscore(QUEUE_NAME, f"{job_id}:0") is None

        await until(looked_at, "a worker's look at the id")
        assert await valkey.keys(f"arq:*{job_id}*") == []
    await database.fetch("UPDATE job SET next_at = clock_timestamp() WHERE id = $1", job_id)
    await until(lambda: _is(job_id, "succeeded"), "the duty done")


@pytest.mark.parametrize(("age_seconds", "hidden"), [(CLAIM_SECONDS + 1, False), (0, True)])
async def test_a_worker_that_died_before_its_claim_hides_no_duty(
    gateway: Gateway, books: Suite, servers: Servers, invitation: tuple[UUID, UUID, str], age_seconds: int, hidden: bool
) -> None:
    """J1: killed between its mark in the queue and its claim of the row: an old mark is taken away by the next nudge, and that of a worker that is about to
    claim is left."""
    workspace_id, member_id, _ = invitation
    job_id = await _owe(INVITATION_MAIL, {"member_id": str(member_id)}, workspace_id)
    mark = f"arq:in-progress:{job_id}:0"
    async with redis.asyncio.Redis(unix_socket_path=str(servers.valkey.socket_path)) as valkey:
        assert await valkey.set(mark, b"1", px=(MARK_SECONDS - age_seconds) * 1000)
        queue = ArqQueue(books.environment["REDIS_URL"])
        for _ in range(2):
            await queue.nudge(job_id, 0)
        await queue.close()
        if hidden:
            assert await valkey.exists(mark) == 1
            assert await _is(job_id, "queued")
            await valkey.delete(mark)
    await until(lambda: _is(job_id, "succeeded"), "the duty done")
    row = await _job(job_id)
    assert (row["tries"], row["failure"]) == (1, None)


async def _connections(servers: Servers) -> int:
    async with redis.asyncio.Redis(unix_socket_path=str(servers.valkey.socket_path)) as valkey:
        return len(await valkey.client_list())


def _handles_sigterm(pid: int) -> bool:
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_a_worker_whose_connection_went_silent_takes_another(books: Suite, servers: Servers, invitation: tuple[UUID, UUID, str]) -> None:
    """O2: a queue behind a firewall that forgot the connection answers nothing on it and closes nothing; jobs go on over a new one."""
    workspace_id, member_id, _ = invitation
    job_id = await _owe(INVITATION_MAIL, {"member_id": str(member_id)}, workspace_id)
    silent: list[asyncio.Event] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, muted: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not muted.is_set():
                    writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_queue, to_queue = await asyncio.open_unix_connection(str(servers.valkey.socket_path))
        silent.append(muted := asyncio.Event())
        await asyncio.gather(forward(reader, to_queue, muted), forward(from_queue, writer, muted))

    place = await asyncio.start_server(accept, "127.0.0.1", 0)
    environment = {
        "PATH": os.environ.get("PATH", ""),
        **books.environment,
        "REDIS_URL": f"redis://127.0.0.1:{place.sockets[0].getsockname()[1]}/9",  # a queue of its own: nobody else takes the job
    }
    with (books.folder / "workers.log").open("ab") as log:
        worker = subprocess.Popen([sys.executable, "-m", "manage", "worker"], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        async with redis.asyncio.Redis(unix_socket_path=str(servers.valkey.socket_path), db=9) as valkey:

            async def at_work() -> bool:
                return bool(await valkey.exists(f"{QUEUE_NAME}:health-check"))

            await until(at_work, "the worker at its queue")
            for muted in silent:
                muted.set()
            queue = ArqQueue(f"unix://{servers.valkey.socket_path}?db=9")
            await queue.nudge(job_id, 0)
            await queue.close()
            await until(lambda: _is(job_id, "succeeded"), "the duty done")
            await valkey.flushdb()
    finally:
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait) == 0
        place.close()


async def test_two_workers_do_a_duty_once(gateway: Gateway, books: Suite, servers: Servers, invitation: tuple[UUID, UUID, str]) -> None:
    """The gateway's worker and two of their own are nudged for the same duty many times at once: it is claimed once, and the mail is one."""
    workspace_id, member_id, _ = invitation
    command = [sys.executable, "-m", "manage", "worker"]
    environment = {"PATH": os.environ.get("PATH", ""), **books.environment}
    before = await _connections(servers)
    with (books.folder / "workers.log").open("ab") as log:
        workers = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) for _ in range(2)]

    async def ready() -> bool:
        return await _connections(servers) >= before + len(workers) and all(_handles_sigterm(worker.pid) for worker in workers)

    await until(ready, "both workers at the queue")
    try:
        async with database.transaction():
            jobs = [
                await duties.owe(INVITATION_MAIL, {"member_id": str(member_id)}, workspace_id=workspace_id, at=datetime.now(UTC)) for _ in range(10)
            ]
        queue = ArqQueue(books.environment["REDIS_URL"])
        await asyncio.gather(*(queue.nudge(job_id, number) for job_id in jobs for number in range(5)))
        await queue.close()
        for job_id in jobs:
            await until(lambda job_id=job_id: _is(job_id, "succeeded"), "the duty done")  # type: ignore[misc]  # a default binds the loop's variable
            row = await _job(job_id)
            assert (row["tries"], row["failure"]) == (1, None)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(worker.wait) for worker in workers]
    assert codes == [0, 0]
