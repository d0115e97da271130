"""The relay: sends a call upstream, lets its bytes through, meters beside them, and settles before the client sees the end.

Each call is pumped by a task of its own, which outlives the client: a response generator's `finally` does not finish after a disconnect.
The relay knows no dialect; a `Meter` reads the stream, and the dialect's own words end it.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from clients.upstream import BROKEN, Response
from domain.serving.calls import AttemptMade, Consumption, Ending, Part, Settled, Sign, counted
from models.database import CONTENDED, UNREACHABLE
from models.enums import Bucket, UsageOutcome
from models.ids import uuid7
from proxy.admission import LetIn
from proxy.dialects.base import Answer, Credential, Dialect, Headers, Meter, Reading, Refusal, RefusalKind, Usage
from proxy.dialects.registry import DIALECTS
from proxy.dialects.statuses import refused_as
from proxy.dialects.stream import OPERATOR_ERROR_MESSAGE
from proxy.presets.registry import ANSWER_HEADER
from proxy.requests import Send
from proxy.translation.base import Untranslatable
from proxy.translation.meter import TranslatedMeter
from runtime import Runtime

PULSE_SECONDS = 2.0
SETTLE_SECONDS = 10.0
"""How long a client waits for its last event while the database is away; the settlement goes on without it."""
SEND_SECONDS = 120.0
"""How long a client may read nothing before it counts as gone."""
KEEP_ALIVE_SECONDS = 15.0
LONGEST_SECONDS = 3600.0
"""How long a call may take in all: a provider that only ever says that it lives is not read for ever."""
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
CLOSE_SECONDS = 20.0
LOOK_BYTES = 4096
"""How many bytes go by, at most, between two looks at whether the hold still covers the output; a token has at least one."""
RUNAWAY_TOKENS = 64
"""How far beyond twice its bound a provider may go, by our count, before it is taken not to know the bound."""
SSE = b"text/event-stream"

log = structlog.get_logger()


def quantities(usage: Usage) -> dict[str, int]:
    """Return what an answer used as the books count it."""
    return counted(
        (
            (Bucket.UNCACHED_INPUT, usage.input_tokens),
            (Bucket.CACHE_READ, usage.cache_read_tokens),
            (Bucket.CACHE_WRITE_5M, usage.cache_write_5m_tokens),
            (Bucket.CACHE_WRITE_1H, usage.cache_write_1h_tokens),
            (Bucket.OUTPUT, usage.output_tokens),
            (Bucket.REASONING, usage.reasoning_tokens),
            (Bucket.AUDIO_INPUT, usage.audio_input_tokens),
            (Bucket.AUDIO_OUTPUT, usage.audio_output_tokens),
            (Bucket.WEB_SEARCHES, usage.web_searches),
        )
    )


def _events(chunk: bytes) -> list[bytes]:
    """Cut a chunk after each blank line, where events end."""
    parts = chunk.split(b"\n\n")
    return [*(part + b"\n\n" for part in parts[:-1]), *([parts[-1]] if parts[-1] else [])]


class Relay:
    """Every call under way in this process, and the pulse that keeps their holds alive."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._pumps: dict[UUID, Pump] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pulse = asyncio.create_task(self._beat())

    @property
    def under_way(self) -> int:
        """How many calls are under way."""
        return len(self._pumps)

    def start(self, let_in: LetIn, dialect: Dialect, headers: Headers, send: Send, request_id: str) -> "Pump":
        """Send an admitted call upstream; the pump answers the client through `send`, and settles whatever happens."""
        pump = Pump(self.runtime, let_in, dialect, headers, send, request_id)
        self._pumps[let_in.opening.id] = pump
        task = asyncio.create_task(pump.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._pumps.pop(let_in.opening.id, None))
        return pump

    async def _beat(self) -> None:
        """Every PULSE_SECONDS, keep the progress of all calls in one commit."""
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now = time.monotonic()
            open_pumps = [pump for pump in self._pumps.values() if pump.open]
            for pump in open_pumps:
                pump.attend(now)
            await asyncio.gather(*(pump.keep() for pump in open_pumps), return_exceptions=True)

    async def close(self) -> None:
        """Let calls under way finish for CLOSE_SECONDS, then end them with an error and settle what they delivered."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for pump in list(self._pumps.values()):
            pump.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SETTLE_SECONDS + 1)
        self._pulse.cancel()
        await asyncio.gather(self._pulse, return_exceptions=True)


@dataclass(slots=True)
class _Result:
    """How the upstream's part ended, before it is settled."""

    consumption: Consumption
    outcome: UsageOutcome
    http_status: int | None
    error_code: str | None


class Pump:
    """One call on its way: from the first upstream byte to its settlement."""

    def __init__(self, runtime: Runtime, let_in: LetIn, dialect: Dialect, headers: Headers, send: Send, request_id: str) -> None:
        self._runtime = runtime
        self._let_in = let_in
        self._dialect = dialect
        self._spoken = dialect if let_in.translation is None else DIALECTS[let_in.translation.upstream]
        self._headers = headers
        self._send = send
        self._request_id = request_id
        self._meter: Meter | None = None
        self._covered = let_in.admitted.output_tokens
        self._extension: asyncio.Task[None] | None = None
        self._refused_extension = False
        self._left = 0
        self._client_here = True
        self._sending_since: float | None = None
        self._sent_at = time.monotonic()
        self._whisper: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._started = False
        self._received_at = runtime.clock()
        self._clock = time.monotonic()
        self._first_byte_at: datetime | None = None
        self._first_token_ms: int | None = None
        self.open = True
        self.answered = asyncio.Event()

    def client_left(self) -> None:
        """Take note that nobody reads any more; what happens to the upstream is a matter of policy."""
        self._client_here = False
        if self._runtime.settings.on_client_loss == "cancel":
            self._stopped.set()

    def stop(self) -> None:
        """End the call soon, because the process ends."""
        self._stopped.set()

    # What the books hear while the call is under way.

    def _consumption(self) -> Consumption:
        meter = self._meter
        if meter is None or self._first_byte_at is None:
            return Consumption()
        return self._of_usage(meter.usage, meter.characters, meter.lines)

    def _of_usage(self, usage: Usage, characters: int, lines: int) -> Consumption:
        return Consumption(
            model=usage.model,
            quantities=quantities(usage),
            service_tier=usage.service_tier,
            geography=usage.geography,
            reported=usage.reported,
            characters=characters,
            lines=lines,
            first_token_ms=self._first_token_ms,
            others=tuple(self._part(other) for other in usage.others),
        )

    def _part(self, usage: Usage) -> Part:
        """Price what another model did as that model was priced when the call was admitted."""
        book = self._runtime.book
        model = book.find(usage.model or "")
        price = None if model is None else book.price(model.name, self._let_in.opening.created_at)
        return Part((price or self._let_in.price).id, quantities(usage), unpriced=price is None)

    async def keep(self, output_tokens: int | None = None) -> None:
        """Keep a sign of life, and ask for the hold to cover `output_tokens`; one that is lost is made up for by the next."""
        opening = self._let_in.opening
        sign = Sign(
            workspace_id=self._let_in.admitted.workspace_id,
            call_id=opening.id,
            consumption=self._consumption(),
            output_tokens=output_tokens,
            input_tokens=opening.input_tokens,
            input_picousd=opening.input_picousd,
            output_picousd=opening.output_picousd,
        )
        try:
            covered = await self._runtime.calls.keep(sign)
        except (*UNREACHABLE, *CONTENDED) as error:
            log.warning("sign of life lost", call=str(opening.id), error=type(error).__name__)
            return
        if covered is not None:
            self._covered = max(self._covered, covered)
            if output_tokens is not None and covered < output_tokens:
                self._refused_extension = True

    async def _room(self, output_tokens: int) -> int:
        """Return how many tokens may still come, 0 when the stream has to end.

        Grows the hold ahead of the stream, and waits for that only when the stream has caught up.
        """
        whole = self._let_in.opening.max_output_tokens
        if self._let_in.admitted.clamped or self._covered >= whole:
            # the provider was told this bound and ends there by itself; our count of its tokens is rough, so only one that runs away is ended
            return max(2 * min(self._covered, whole) + RUNAWAY_TOKENS - output_tokens, 0)
        if not self._refused_extension:
            instalment = self._runtime.settings.instalment_tokens
            if output_tokens >= self._covered - instalment // 2 and self._extension is None:
                self._extension = asyncio.create_task(self.keep(min(whole, max(self._covered, output_tokens) + instalment)))
            if self._extension is not None and (self._extension.done() or output_tokens >= self._covered):
                await self._extension
                self._extension = None
        return max(self._covered - output_tokens, 0)

    # The call itself.

    async def run(self) -> None:
        """Relay and settle; never raises."""
        try:
            await self._relay()
        except Exception as error:  # a bug must not leave a hold open, nor a client waiting
            log.exception("relay failed", call=str(self._let_in.opening.id), error=type(error).__name__)
            if self.open:  # otherwise the client has its end, and the sweep will close the hold
                refusal = self._refusal(RefusalKind.INTERNAL, "The gateway failed; nothing more will come.")
                await self._finish(_Result(self._consumption(), UsageOutcome.FAILED, 500, "internal"), refusal)
        finally:
            self.open = False
            self.answered.set()

    async def _relay(self) -> None:
        let_in, dialect, upstream = self._let_in, self._spoken, self._let_in.route.upstream
        ask, clamped = let_in.sent_ask, let_in.admitted.clamped
        model = upstream.named(let_in.route.model.name)
        body = dialect.rewrite(
            let_in.body,
            ask,
            model=model if model != ask.model else None,
            max_output_tokens=let_in.admitted.output_tokens // max(ask.choices, 1) if clamped else None,
        )
        credential = None if upstream.key is None else Credential("x-api-key" if upstream.auth == "x-api-key" else "bearer", upstream.key)
        headers = dialect.request_headers(self._headers, credential)
        stopping = asyncio.ensure_future(self._stopped.wait())
        exchange = asyncio.ensure_future(self._exchange(f"{upstream.url}{dialect.upstream_path}", headers, body))
        try:
            await asyncio.wait({stopping, exchange}, timeout=LONGEST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done() and self.open:  # one that is settling already is let finish
                exchange.cancel()
                await asyncio.gather(exchange, return_exceptions=True)
                outcome, code = (UsageOutcome.FAILED, "shutdown") if self._client_here else (UsageOutcome.CANCELLED, "client_gone")
                refusal = self._refusal(RefusalKind.OVERLOADED, "The gateway is restarting; try again.", retry_after=2)
                if not self._stopped.is_set():
                    outcome, code = UsageOutcome.FAILED, "upstream_timeout"
                    refusal = self._refusal(RefusalKind.TIMED_OUT, "The provider did not come to an end in time.")
                await self._finish(_Result(self._consumption(), outcome, None, code), refusal)
            else:
                await exchange
        finally:
            stopping.cancel()

    async def _exchange(self, url: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        try:
            async with self._runtime.upstreams.post(url, headers, body) as response:
                self._first_byte_at = self._runtime.clock()
                if response.status != 200:
                    await self._upstream_refused(response)
                elif self._let_in.ask.streamed:
                    await self._stream(response)
                else:
                    await self._whole(response)
        except BROKEN as error:
            slow = isinstance(error, TimeoutError)
            kind = RefusalKind.TIMED_OUT if slow else RefusalKind.UPSTREAM_FAILED
            message = "The provider did not answer in time." if slow else "The provider broke off."
            log.warning("upstream broke", call=str(self._let_in.opening.id), upstream=self._let_in.route.upstream.name, error=type(error).__name__)
            result = _Result(self._consumption(), UsageOutcome.FAILED, 504 if slow else 502, "upstream_timeout" if slow else "upstream_broken")
            await self._finish(result, self._refusal(kind, message))

    async def _upstream_refused(self, response: Response) -> None:
        body = await response.read(LARGEST_ANSWER_BYTES)
        status = response.status
        kind = RefusalKind.UPSTREAM_FAILED if body is None else refused_as(status)
        if kind is not None or body is None:
            log.warning("upstream refused", call=str(self._let_in.opening.id), upstream=self._let_in.route.upstream.name, status=status)
            refusal = self._refusal(kind or RefusalKind.UPSTREAM_FAILED, OPERATOR_ERROR_MESSAGE)
            answered = self._dialect.refuse(refusal).status
            await self._finish(_Result(Consumption(), UsageOutcome.FAILED, answered, f"upstream_{status}"), refusal, upstream_status=status)
            return
        result = _Result(Consumption(), UsageOutcome.FAILED, status, f"upstream_{status}")
        headers = self._dialect.response_headers(response.headers)
        if self._let_in.translation is not None:
            body = self._let_in.translation.error(status, body, self._request_id)
        await self._finish(result, Answer(status, headers, body))

    async def _whole(self, response: Response) -> None:
        body = await response.read(LARGEST_ANSWER_BYTES)
        reading: Reading | None = None if body is None else self._spoken.read(body, self._let_in.sent_ask)
        if body is not None and reading is not None and reading.complete and self._let_in.translation is not None:
            try:
                body = self._let_in.translation.answer(body, self._let_in.ask, created_seconds=int(self._received_at.timestamp()))
            except Untranslatable:
                body = None
        if body is None or reading is None or not reading.complete:
            result = _Result(Consumption(), UsageOutcome.FAILED, 502, "upstream_garbage")
            await self._finish(result, self._refusal(RefusalKind.UPSTREAM_FAILED, "The provider's answer could not be read."))
            return
        result = _Result(self._of_usage(reading.usage, reading.characters, reading.lines), UsageOutcome.SUCCEEDED, 200, None)
        headers = self._dialect.response_headers(response.headers)
        await self._finish(result, Answer(200, headers, body))

    async def _stream(self, response: Response) -> None:
        if not response.header(b"content-type").lower().startswith(SSE):
            result = _Result(Consumption(), UsageOutcome.FAILED, 502, "upstream_garbage")
            await self._finish(result, self._refusal(RefusalKind.UPSTREAM_FAILED, "The provider did not stream its answer."))
            return
        meter = self._spoken.meter(self._let_in.sent_ask)
        if self._let_in.translation is not None:
            meter = TranslatedMeter(meter, self._let_in.translation.stream(self._let_in.ask, created_seconds=int(self._received_at.timestamp())))
        self._meter = meter
        headers = [field for field in self._dialect.response_headers(response.headers) if field[0] != b"content-type"]
        await self._begin(200, [(b"content-type", SSE + b"; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"), *headers])
        looked = look_after = 0
        try:
            async for chunk in response:
                # where the room is less than what came at once, event by event, so that the end comes after the last event that is covered
                for part in (chunk,) if looked + len(chunk) <= look_after else _events(chunk):
                    forward = meter.feed(part)
                    if self._first_token_ms is None and meter.first_token_seen:
                        self._first_token_ms = self._elapsed_ms()
                    looked += len(part)
                    if looked >= look_after:
                        self._left = await self._room(meter.usage.output_tokens)
                        looked, look_after = 0, min(LOOK_BYTES, self._left)
                        if not self._left and not meter.ended:
                            await self._send_body(forward)
                            result = _Result(self._consumption(), UsageOutcome.SUCCEEDED, 200, "credit_exhausted")
                            await self._finish(result, meter.conclude())
                            return
                    if forward:
                        await self._send_body(forward)
                if meter.ended:
                    break
        except BROKEN as error:
            if not meter.ended and not meter.complete:
                slow = isinstance(error, TimeoutError)
                message = "The provider fell silent." if slow else "The provider broke off in the middle of its answer."
                result = _Result(self._consumption(), UsageOutcome.FAILED, 200, "upstream_timeout" if slow else "upstream_cut")
                await self._finish(result, meter.fail(self._refusal(RefusalKind.TIMED_OUT if slow else RefusalKind.UPSTREAM_FAILED, message)))
                return
        if meter.error is not None:
            await self._finish(_Result(self._consumption(), UsageOutcome.FAILED, 200, "upstream_error"), meter.tail())
        elif meter.complete:
            await self._finish(_Result(self._consumption(), UsageOutcome.SUCCEEDED, 200, None), meter.tail())
        else:
            refusal = self._refusal(RefusalKind.UPSTREAM_FAILED, "The provider broke off in the middle of its answer.")
            await self._finish(_Result(self._consumption(), UsageOutcome.FAILED, 200, "upstream_cut"), meter.fail(refusal))

    # What the client hears.

    def _refusal(self, kind: RefusalKind, message: str, *, retry_after: int | None = None) -> Refusal:
        return Refusal(kind, message, self._request_id, retry_after_seconds=retry_after)

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._clock) * 1000)

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        own = [(b"x-request-id", self._request_id.encode()), (b"request-id", self._request_id.encode())]
        if self._let_in.preset is not None:
            own.append((ANSWER_HEADER, self._let_in.preset.name.encode()))
        if self._let_in.admitted.clamped:
            own.append((b"x-max-tokens-clamped", str(self._let_in.admitted.output_tokens // max(self._let_in.ask.choices, 1)).encode()))
        given = [field for field in headers if field[0] not in (b"request-id", b"x-request-id")]
        await self._put({"type": "http.response.start", "status": status, "headers": [*given, *own]})

    async def _send_body(self, body: bytes, *, last: bool = False) -> None:
        await self._put({"type": "http.response.body", "body": body, "more_body": not last})

    async def _put(self, message: dict[str, object]) -> None:
        if not self._client_here:
            return
        self._sending_since = time.monotonic()
        try:
            await self._send(message)
        except OSError:
            self.client_left()
        finally:
            self._sending_since = None
            self._sent_at = time.monotonic()

    def attend(self, now: float) -> None:
        """Look after the client, at every beat: tell it that a silent stream lives, and give it up when it reads nothing.

        One look every PULSE_SECONDS for all calls costs less than a timer for every chunk.
        """
        if self._sending_since is not None:
            if now - self._sending_since >= SEND_SECONDS:
                self._client_here = False
                self._stopped.set()
        elif self._meter is not None and self._started and now - self._sent_at >= KEEP_ALIVE_SECONDS:
            self._whisper = asyncio.create_task(self._send_body(self._meter.keep_alive()))  # aside: a client that reads nothing must not stop the beat

    async def _finish(self, result: _Result, last: Answer | Refusal | bytes, *, upstream_status: int | None = None) -> None:
        """Settle, then let the client see the end: a whole answer, a refusal, or the last bytes of a stream.

        `upstream_status` is what the upstream answered, where the client gets another status.
        """
        self.open = False
        finished_at = self._runtime.clock()
        opening = self._let_in.opening
        attempt = AttemptMade(
            id=uuid7(),
            number=1,
            upstream=self._let_in.route.upstream.name,
            model=self._let_in.route.upstream.named(opening.model),
            outcome=result.outcome,
            http_status=result.http_status if upstream_status is None else upstream_status,
            error_code=result.error_code,
            started_at=self._received_at,
            first_byte_at=self._first_byte_at,
            finished_at=finished_at,
        )
        ending = Ending(
            workspace_id=self._let_in.admitted.workspace_id,
            call_id=opening.id,
            model=opening.model,
            provider=self._let_in.route.upstream.name,
            price=self._let_in.price,
            consumption=result.consumption,
            outcome=result.outcome,
            http_status=result.http_status,
            error_code=result.error_code,
            latency_ms=self._elapsed_ms(),
            attempts=(attempt,),
        )
        settlement: asyncio.Task[Settled] = asyncio.create_task(self._runtime.calls.settle(ending))
        await asyncio.wait({settlement}, timeout=SETTLE_SECONDS)
        if isinstance(last, bytes):
            await self._send_body(last, last=True)
        else:
            answer = self._dialect.refuse(last) if isinstance(last, Refusal) else last
            if self._started:  # a stream that began cannot be answered otherwise
                frame = self._meter.fail(last) if isinstance(last, Refusal) and self._meter is not None else b""
                await self._send_body(frame, last=True)
            else:
                length = (b"content-length", str(len(answer.body)).encode())
                await self._begin(answer.status, [*(field for field in answer.headers if field[0] != b"content-length"), length])
                await self._send_body(answer.body, last=True)
        self.answered.set()
        await settlement

