"""Idempotent calls: the same key and body get the first answer again, byte for byte, and are charged once."""

import asyncio

import structlog

from domain import errors
from domain.access import callers
from domain.serving import answers
from domain.serving.answers import Claim, Standing
from models.database import CONTENDED, UNREACHABLE
from proxy.admission import Arrival
from proxy.dialects.base import Answer, Refusal, RefusalKind
from proxy.replies import Cut, Reply
from proxy.sealing import Kept, request_hash, seal, unseal

HEADER = b"idempotency-key"
REPLAYED = (b"idempotent-replayed", b"true")
RETRY_SECONDS = 1
PASSED = frozenset({b"content-type", b"cache-control", b"retry-after", b"x-preset", b"x-max-tokens-clamped", b"x-tallygate-model", b"x-tallygate-route"})
"""The header fields of an answer that are kept with it."""

log = structlog.get_logger()


class Keyed:
    """One call with an idempotency key: its claim, and the recording of its answer."""

    def __init__(self, arrival: Arrival, idempotency_key: str) -> None:
        self._arrival = arrival
        self._key = idempotency_key
        self._claim: Claim | None = None

    async def claim(self, reply: Reply) -> Refusal | Kept | None:
        """Claim the key, and let the reply be recorded; or return what an earlier call left: its answer, or why there is none.

        Raises Unauthenticated, or Unavailable when the database is away.
        """
        arrival = self._arrival
        try:
            workspace_id, key_id = await callers.key_of(arrival.head.secret)
            name = answers.named(workspace_id, key_id, self._key)
            road = f"{arrival.head.road.endpoint}\0{arrival.head.preset.name if arrival.head.preset else ''}".encode()
            claim = Claim(workspace_id, name, request_hash(self._key, key_id, road, arrival.body), arrival.call_id)
            earlier = await answers.claim(claim)
        except (*UNREACHABLE, *CONTENDED):
            raise errors.Unavailable from None
        if earlier is None:
            self._claim = claim
            reply.record(answers.LARGEST_ANSWER_BYTES)
            return None
        if earlier.standing is Standing.UNDER_WAY:
            message = "A call with this Idempotency-Key is under way; ask again for its answer."
            return Refusal(RefusalKind.CONFLICT, message, arrival.request_id, retry_after_seconds=RETRY_SECONDS)
        if earlier.standing is Standing.ANOTHER_REQUEST:
            return Refusal(RefusalKind.MISMATCH, "This Idempotency-Key was used before, for another request.", arrival.request_id)
        kept = None
        if earlier.sealed is not None:
            kept = await asyncio.to_thread(unseal, earlier.sealed, arrival.head.secret, self._key, name)
        if kept is None:
            message = f"This Idempotency-Key was used, and its answer is not kept any more. What became of the call: GET /v1/receipts/{earlier.call_id}"
            return Refusal(RefusalKind.ANSWER_GONE, message, arrival.request_id)
        try:
            await answers.given_again(workspace_id, earlier.call_id)
        except (*UNREACHABLE, *CONTENDED) as error:  # the count may lack one; the answer is there
            log.warning("replay not counted", call=str(earlier.call_id), error=type(error).__name__)
        first = str(earlier.call_id).encode()
        reply.own = [(b"x-request-id", first), (b"request-id", first), REPLAYED]
        return kept

    async def end(self, reply: Reply, last: Answer | bytes | Cut, *, answered: bool) -> None:
        """Keep the answer that the client is about to see the end of, or free the key when it is none; never raises.

        What cannot be written is left as it is: the key then stays used, and says so.
        """
        claim = self._claim
        if claim is None:
            return
        self._claim = None
        try:
            if not answered:
                await answers.free(claim)
                return
            status, headers, body = reply.recorded(last)
            if body is None:
                await answers.keep(claim, None)
                return
            kept = Kept(status, tuple(field for field in headers if field[0] in PASSED), body)
            await answers.keep(claim, await asyncio.to_thread(seal, kept, self._arrival.head.secret, self._key, claim.id))
        except (*UNREACHABLE, *CONTENDED) as error:
            log.warning("idempotent answer not kept", call=self._arrival.request_id, error=type(error).__name__)
