"""The store of files: the same promises of a folder and of an S3-speaking server."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from clients import storage
from clients.storage import Storage
from domain.errors import Unavailable
from tests.support import s3
from tests.support.s3 import FrontDoor

pytestmark = pytest.mark.anyio

BIG = bytes(range(256)) * 4096 * 11 + b"!"
"""11 MiB and a byte: two parts of an upload, and a third that is smaller."""


@pytest.fixture(params=["folder", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, bucket: FrontDoor) -> Storage:
    """A store of each kind, empty."""
    if request.param == "folder":
        return Storage.in_folder(tmp_path)
    return in_bucket(bucket, prefix=f"{s3.PREFIX}/{tmp_path.name}")


def in_bucket(bucket: FrontDoor, prefix: str | None = s3.PREFIX, secret: str = s3.SECRET, *, reachable: bool = True) -> Storage:
    """The bucket as a process opens it."""
    return Storage.in_bucket(s3.BUCKET, prefix, endpoint=bucket.url, region="auto", key_id=s3.KEY_ID, secret=secret, reachable=reachable)


async def pieces(content: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    """Content as a client sends it."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("content", [b"", b"x", b"hello" * 1000], ids=["empty", "one byte", "some"])
async def test_what_is_put_is_got(store: Storage, content: bytes) -> None:
    """An object comes back as it was put, whole, in parts and with its size; put again, it is the new one."""
    await store.put("blobs/a/b", b"before")
    await store.put("blobs/a/b", content)
    assert await store.get("blobs/a/b") == content
    assert await store.size("blobs/a/b") == len(content)
    assert b"".join([piece async for piece in store.stream("blobs/a/b", 0, len(content))]) == content
    assert b"".join([piece async for piece in store.stream("blobs/a/b", 1, min(4, len(content)))]) == content[1:4]


async def test_an_object_that_comes_in_pieces(store: Storage) -> None:
    """A large object is taken piece by piece, in several parts where the store wants parts, and given piece by piece."""
    await store.put("uploads/big", pieces(BIG))
    assert await store.size("uploads/big") == len(BIG)
    seen = hashlib.sha256()
    async for piece in store.stream("uploads/big", 0, len(BIG)):
        assert len(piece) <= storage.CHUNK_BYTES
        seen.update(piece)
    assert seen.hexdigest() == hashlib.sha256(BIG).hexdigest()
    assert b"".join([piece async for piece in store.stream("uploads/big", 6_000_001, 6_000_009)]) == BIG[6_000_001:6_000_009]


@pytest.mark.parametrize("length", [10, len(BIG)], ids=["small", "in parts"])
async def test_an_object_that_breaks_off_is_not_there(store: Storage, bucket: FrontDoor, tmp_path: Path, length: int) -> None:
    """A source that fails half-way leaves nothing behind, nor changes what was there; parts that a bucket has taken are given up."""

    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(BIG[:length]):
            yield piece
        raise RuntimeError("the client is gone")

    await store.put("there", b"before")
    for key in ("there", "new"):
        with pytest.raises(Exception):  # noqa: B017, PT011  # a store written in another language hands back an exception of its own
            await store.put(key, broken())
    assert await store.get("there") == b"before"
    assert await store.get("new") is None
    assert await store.size("new") is None
    begun = [name for name in bucket.requests if name.startswith("POST") and f"/{tmp_path.name}/" in name]
    given_up = [name for name in bucket.requests if name.startswith("DELETE") and f"/{tmp_path.name}/" in name]
    assert len(begun) == len(given_up)


async def test_what_is_not_there(store: Storage) -> None:
    """A missing object is None; deleting it again is no error, and takes nothing else away."""
    assert await store.get("a/b") is None
    assert await store.size("a/b") is None
    await store.put("a/b", b"1")
    await store.put("a/c", b"2")
    await store.delete(["a/b", "a/missing"])
    await store.delete(["a/b"])
    assert (await store.get("a/b"), await store.get("a/c")) == (None, b"2")


async def test_of_many_writers_at_once_one_wins_whole(store: Storage) -> None:
    """Writers of one key never mix: what is there at the end is what one of them wrote."""
    contents = [bytes([number]) * 100_000 for number in range(8)]
    await asyncio.gather(*(store.put("one", content) for content in contents))
    assert await store.get("one") in contents


async def test_only_the_first_writer_of_a_key(store: Storage) -> None:
    """`put_new` writes what is not there, and leaves what is there alone: of many at once exactly one writes."""
    wrote = await asyncio.gather(*(store.put_new("once", bytes([number])) for number in range(8)))
    assert wrote.count(True) == 1
    assert await store.get("once") == bytes([wrote.index(True)])
    assert await store.put_new("once", b"late") is False
    assert await store.get("once") == bytes([wrote.index(True)])


async def test_a_key_that_leads_elsewhere(store: Storage) -> None:
    """A key with `..` reaches nothing outside of the store."""
    with pytest.raises((ValueError, Unavailable)):
        await store.put("a/../../evil", b"x")


async def test_an_address_to_send_to(bucket: FrontDoor) -> None:
    """A signed address takes one object with PUT, until its time: no other key, no other method, no other signature."""
    mine = in_bucket(bucket)
    address = await mine.upload_address("uploads/1/a b", seconds=60)
    assert address is not None
    other = address.replace("uploads/1", "uploads/2")
    over = await mine.upload_address("uploads/1/late", seconds=0)
    forged = await in_bucket(bucket, secret="guessed").upload_address("uploads/1/a b", seconds=60)
    assert over is not None
    assert forged is not None
    async with httpx2.AsyncClient(timeout=60) as client:
        for method, url in (("PUT", other), ("PUT", forged), ("PUT", over), ("GET", address), ("DELETE", address), ("PUT", address.partition("?")[0])):
            assert (await client.request(method, url, content=b"x")).status_code == 403, (method, url)
        assert (await client.put(address, content=b"content")).status_code == 200
    assert await mine.get("uploads/1/a b") == b"content"
    assert await mine.get("uploads/2/a b") is None


async def test_a_store_that_clients_cannot_reach_has_no_address_of_its_own(bucket: FrontDoor, tmp_path: Path) -> None:
    """Clients cannot reach a folder, nor the bucket of a private network; the gateway then gives an address of its own."""
    assert await Storage.in_folder(tmp_path).upload_address("uploads/a", seconds=60) is None
    assert await in_bucket(bucket, reachable=False).upload_address("uploads/a", seconds=60) is None


async def test_a_body_whose_digest_is_wrong(bucket: FrontDoor) -> None:
    """What arrives changed on the way is refused by the store, because our requests are signed with the digest of their body."""
    await in_bucket(bucket).put("proved", b"whole")
    assert [name for name in bucket.requests if name.endswith("/proved")] == ["PUT /proved"]
    with pytest.raises(Unavailable):
        await in_bucket(bucket, secret="wrong").put("proved", b"other")
    assert await in_bucket(bucket).get("proved") == b"whole"


@pytest.mark.parametrize(("status", "verb"), [(507, "write"), (503, "read"), (0, "look"), (403, "delete")])
async def test_a_store_that_is_away_or_full(bucket: FrontDoor, status: int, verb: str) -> None:
    """Whatever the store says, or when it is gone, the refusal is the same: away, try later, nothing told of the inside."""
    mine = in_bucket(bucket)
    await mine.put("kept", b"1")
    bucket.refusals[r"/kept$|^POST $"] = status  # objects are deleted with a list of keys
    attempts = {"write": mine.put("kept", b"2"), "read": mine.get("kept"), "look": mine.size("kept"), "delete": mine.delete(["kept"])}
    try:
        with pytest.raises(Unavailable) as refused:
            await attempts.pop(verb)
        assert refused.value.message == "The store of files is away or full; nothing was changed."
    finally:
        bucket.refusals.clear()
        for other in attempts.values():
            other.close()
    assert await mine.get("kept") == b"1"
