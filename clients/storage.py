"""Where files of apps are kept: a folder of this machine, or any store that speaks S3 (Cloudflare R2 among them)."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from domain.errors import Unavailable
from domain.outside import before_calling

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
RETRIES = 3
RETRY_SECONDS = 20
CHUNK_BYTES = 256 * 1024

log = structlog.get_logger()


class Storage:
    """Fulfils the stores of `domain.usage.exports` and `domain.apps.blobs`. Every write is whole or not there; keys are ours and hold nothing that a client wrote."""

    def __init__(self, store: LocalStore | S3Store, *, reachable: bool) -> None:
        self._store = store
        self._reachable = reachable

    @classmethod
    def in_folder(cls, folder: Path) -> "Storage":
        """Keep files in a folder, which is made when it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(LocalStore(prefix=folder.resolve(), automatic_cleanup=True, mkdir=True), reachable=False)

    @classmethod
    def in_bucket(
        cls, bucket: str, prefix: str | None, *, endpoint: str | None, region: str, key_id: str | None, secret: str | None, reachable: bool
    ) -> "Storage":
        """Keep files in a bucket, which clients can reach or not; the rules of R2 fit every other store as well (docs/apps/storage.md)."""
        return cls(
            S3Store(
                bucket,
                prefix=prefix or None,
                endpoint=endpoint or f"https://s3.{region}.amazonaws.com",
                region=region,
                access_key_id=key_id,
                secret_access_key=secret,
                virtual_hosted_style_request=False,
                client_options={
                    "timeout": timedelta(seconds=ANSWER_SECONDS),
                    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                    "allow_http": bool(endpoint and endpoint.startswith("http://")),
                },
                retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
            ),
            reachable=reachable,
        )

    async def put(self, key: str, content: bytes | AsyncIterable[bytes]) -> None:
        """Write an object whole; an iterable that raises leaves nothing. Raises Unavailable when the store is away or full."""
        before_calling("the store")
        try:
            await obstore.put_async(self._store, key, content)
        except (BaseError, OSError) as error:
            _away("write", error)

    async def put_new(self, key: str, content: bytes) -> bool:
        """Write an object unless its key is taken, in one condition of the store's own; False when it is. Raises Unavailable."""
        before_calling("the store")
        try:
            await obstore.put_async(self._store, key, content, mode="create", use_multipart=False)
        except (AlreadyExistsError, FileExistsError):
            return False
        except (BaseError, OSError) as error:
            _away("write", error)
        return True

    async def get(self, key: str) -> bytes | None:
        """Return an object; None when there is none. Raises Unavailable."""
        before_calling("the store")
        try:
            found = await obstore.get_async(self._store, key)
            return bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            _away("read", error)

    async def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Give the bytes of an object from `start` to before `end`, piece by piece. Raises Unavailable."""
        before_calling("the store")
        try:
            while start < end:
                piece = await obstore.get_range_async(self._store, key, start=start, end=min(end, start + CHUNK_BYTES))
                yield bytes(piece)
                start += len(piece)
        except (BaseError, OSError) as error:
            _away("read", error)

    async def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when there is none. Raises Unavailable."""
        before_calling("the store")
        try:
            return int((await obstore.head_async(self._store, key))["size"])
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            _away("look", error)

    async def delete(self, keys: Sequence[str]) -> None:
        """Take objects away; one that is not there is no error. Raises Unavailable."""
        before_calling("the store")
        for key in keys:
            try:
                await obstore.delete_async(self._store, key)
            except (NotFoundError, FileNotFoundError):
                continue
            except (BaseError, OSError) as error:
                _away("delete", error)

    async def upload_address(self, key: str, *, seconds: int) -> str | None:
        """Return an address that one object can be sent to with PUT; None when the store cannot be reached by clients."""
        if isinstance(self._store, LocalStore) or not self._reachable:
            return None
        return await obstore.sign_async(self._store, "PUT", key, timedelta(seconds=seconds))


def _away(verb: str, error: Exception) -> NoReturn:
    log.warning("store away", verb=verb, error=type(error).__name__, told=next(iter(str(error).splitlines()), "")[:300])
    raise Unavailable("The store of files is away or full; nothing was changed.", retry_after_seconds=10) from None
