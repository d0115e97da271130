"""Telling the webhook endpoint what happened, signed as Stripe signs, again and again until it answers."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from embedded.stripe.account import Account, Json

RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
ANSWER_SECONDS = 20.0


def header(body: bytes, *secrets: str, at: int | None = None) -> str:
    """The `Stripe-Signature` of a body: a time and one signature for each secret."""
    at = int(time.time()) if at is None else at
    signatures = (hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest() for secret in secrets)
    return ",".join([f"t={at}", *(f"v1={signature}" for signature in signatures)])


class Deliveries:
    """Delivers events to one endpoint, each in a task of its own: in no order, as Stripe does. `url` None keeps them."""

    def __init__(self, account: Account, url: str | None, secret: str) -> None:
        self.account = account
        self.url = url
        self.secret = secret
        self._tasks: set[asyncio.Task[None]] = set()
        account.heard = self._hear

    def _hear(self, event: Json) -> None:
        if self.url is not None:
            self._start(lambda: self._until_answered(event))

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def send(self, event: Json, *, url: str | None = None) -> int:
        """Deliver an event once, and return the status of the answer; raises what the client raises."""
        body = json.dumps(event).encode()
        headers = {"stripe-signature": header(body, self.secret), "content-type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url or self.url or "", data=body, headers=headers) as answer:
            return answer.status

    async def _until_answered(self, event: Json) -> None:
        for pause in (*RETRY_SECONDS, 0.0):
            try:
                if await self.send(event) < 300:
                    event["pending_webhooks"] = 0
                    return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Stop delivering."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
