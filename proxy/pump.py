"""One call on its way, in a task of its own that outlives its client: admitted, sent upstream, metered, settled, and only then ended.

It knows no dialect: a `Meter` reads the stream, and the dialect's own words end it. A try that fails before its first byte is followed by the next
candidate's; after the first byte there is no other try.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from clients.upstream import BROKEN, Response
from domain import errors
from domain.serving import kept_answers
from domain.serving.calls import AttemptMade, Consumption, Ending, Settled
from domain.serving.health import Trouble
from models.enums import UsageOutcome
from proxy.admission import Arrival, LetIn, Spoken, let_in, top_up_url, translated
from proxy.attempts import Outcome, Try, judge, request_of, trouble_of
from proxy.dialects.base import Answer, BadRequest, Meter, Reading, Refusal, RefusalKind
from proxy.dialects.stream import OPERATOR_ERROR_MESSAGE
from proxy.idempotency import Keyed
from proxy.passage import Passage
from proxy.presets.registry import ANSWER_HEADER
from proxy.progress import Progress
from proxy.prompts import turn_of
from proxy.replies import CUT, Cut, Reply
from proxy.requests import Send, Wire
from proxy.smoothing import count
from proxy.translation.base import Untranslatable
from proxy.translation.meter import TranslatedMeter
from runtime import Runtime

SETTLE_SECONDS = 8.0
"""How long a client waits for its last event while the database is away, with a beat more at most; the settlement goes on without it."""
SEND_SECONDS = 120.0
"""How long a client may read nothing before it counts as gone."""
KEEP_ALIVE_SECONDS = 15.0
LONGEST_SECONDS = 3600.0
"""How long a call may take in all: a provider that only ever says that it lives is not read for ever."""
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
MODEL_HEADER = b"x-tallygate-model"
ROUTE_HEADER = b"x-tallygate-route"
CHARGE_HEADER = b"x-tallygate-charge-microusd"
BALANCE_HEADER = b"x-tallygate-balance-microusd"

log = structlog.get_logger()


class _Elsewhere(Exception):
    """A try failed before its first byte in a way that another upstream may not; `made` is its record."""

    def __init__(self, made: AttemptMade) -> None:
        super().__init__()
        self.made = made


class Pump:
    """One call, from its request to its settlement."""

    def __init__(self, runtime: Runtime, arrival: Arrival, way: Wire | Send, over: "Callable[[Pump], None]") -> None:
        head = arrival.head
        self._runtime = runtime
        self._arrival = arrival
        self._over = over
        self._dialect = head.road.dialect
        self._reply = Reply(way, arrival.request_id, self.client_left)
        self._counted = callable(way)  # by the door, before it read the body
        self._call: LetIn | None = None
        self._progress: Progress | None = None
        self._try: Try | None = None
        self._attempts: list[AttemptMade] = []
        self._keyed = None if head.idempotency_key is None else Keyed(arrival, head.idempotency_key)
        self._last: Answer | bytes | Cut | None = None
        self._whisper: asyncio.Task[None] | None = None
        self._closing: tuple[float, Answer | Refusal | bytes] | None = None
        self._late: asyncio.Task[None] | None = None
        self._received_at = runtime.clock()
        self._clock = self.kept_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._why: str | None = None
        self._ending = False

    def start(self) -> None:
        """Begin, in a task of its own; `over` is called at its end, and whoever calls this keeps the pump until then."""
        self._task = asyncio.create_task(self._run())

    @property
    def task(self) -> "asyncio.Task[None]":
        """The task, once begun, until its end."""
        assert self._task is not None
        return self._task

    @property
    def open(self) -> bool:
        """Whether the call is admitted and not settled: whether its hold wants signs of life."""
        return self._progress is not None and not self._ending

    @property
    def broken(self) -> bool:
        """Whether the answer ended in the middle, where the client must not take it for whole."""
        return self._reply.broken

    # What ends it from outside.

    def client_left(self) -> None:
        """Take note that nobody reads any more; what happens to a stream is a matter of policy. After the answer it means nothing.

        A whole answer is always read to its end: the provider makes and bills it all the same, and only its end says what it used. So is that of a
        call with an idempotency key: its client will come back for it.
        """
        if self._reply.ended:
            return
        self._reply.here = False
        if self._keyed is None and (self._call is None or (self._call.ask.streamed and self._runtime.settings.on_client_loss == "cancel")):
            self._interrupt("client_gone")

    def stop(self) -> None:
        """End the call soon, because the process ends."""
        self._interrupt("shutdown")

    def _interrupt(self, why: str) -> None:
        """Stop what is awaited now, once; what is being settled already is let finish."""
        if self._why is None and not self._ending and self._task is not None:
            self._why = why
            self._task.cancel()

    async def keep(self, now: float) -> None:
        """Keep a sign of life."""
        self.kept_at = now
        if self._progress is not None:
            await self._progress.keep()

    def attend(self, now: float) -> None:
        """Look after the call, at every beat: tell the client that a silent stream lives, give up one that reads nothing, end what takes too long.

        One look at all calls now and then costs less than a timer for every chunk.
        """
        reply, closing = self._reply, self._closing
        if closing is not None and self._late is None and now - closing[0] >= SETTLE_SECONDS:
            self._late = asyncio.create_task(self._say_last(self._end(closing[1])))
        elif now - self._clock >= LONGEST_SECONDS:
            self._interrupt("upstream_timeout")
        elif reply.sending_since is not None:
            if now - reply.sending_since >= SEND_SECONDS:
                reply.here = False
                self._interrupt("client_gone")
        elif reply.started and self._progress is not None and self._progress.meter is not None and now - reply.silent_since(now) >= KEEP_ALIVE_SECONDS:
            # aside: a client that reads nothing must not stop the beat
            self._whisper = asyncio.create_task(reply.say(self._progress.meter.keep_alive()))

    # The call itself.

    async def _run(self) -> None:
        """Admit, relay and settle; never raises, and never leaves a client without an end."""
        try:
            call = await self._admit()
            if call is not None:
                self._call = call
                self.kept_at = time.monotonic()
                self._progress = Progress(self._runtime, call)
                await self._relay(call)
        except Exception as error:  # a bug must not leave a hold open, nor a client waiting
            log.exception("relay failed", call=self._arrival.request_id, error=type(error).__name__)
            await self._give_up()
        finally:
            # nothing refers to itself any more: what the call held is free at once, and not when a collection comes round to it
            self._over(self)
            self._task = None
            self._reply.over()

    async def _give_up(self) -> None:
        refusal = self._refusal(RefusalKind.INTERNAL, "The gateway failed. Its operator finds this request's id in the log.")
        if self._call is None:
            await self._refuse(refusal)
        elif not self._ending:  # otherwise the client has its end, or the sweep will close the hold
            await self._finish(Outcome(self._consumption(), UsageOutcome.FAILED, 500, "internal"), refusal)
        elif not self._reply.ended:
            await self._say_last(self._last or self._composed(refusal, None))

    async def _admit(self) -> LetIn | None:
        try:
            if self._keyed is not None:
                earlier = await self._keyed.claim(self._reply)
                if isinstance(earlier, Refusal):
                    await self._refuse(earlier)
                    return None
                if earlier is not None:
                    self._ending = True
                    await self._reply.whole(earlier.status, list(earlier.headers), earlier.body)
                    return None
            if not self._counted:
                await count(self._runtime.smoothing, self._arrival.head.fingerprint, self._reply.own)
            return await let_in(self._runtime, self._arrival)
        except BadRequest as bad:
            refusal = Refusal(RefusalKind.BAD_REQUEST, bad.message, self._arrival.request_id, param=bad.param)
        except errors.Refusal as refused:
            where = top_up_url(self._runtime, self._arrival.head)
            refusal = translated(refused, self._arrival.request_id, now_seconds=time.time(), top_up_url=where)
        except asyncio.CancelledError:
            if not self._ours():
                raise
            refusal = self._refusal(RefusalKind.OVERLOADED, "The gateway is restarting; try again.", retry_after=2)
        await self._refuse(refusal)
        return None

    def _ours(self) -> bool:
        """Tell whether a cancellation is our own, and take it back then."""
        if self._why is None or self._task is None:
            return False
        self._task.uncancel()
        return True

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer a call that was never admitted."""
        self._ending = True
        answer = self._dialect.refuse(refusal)
        if self._keyed is not None:
            await self._keyed.end(self._reply, answer, answered=False)
        await self._reply.whole(answer.status, answer.headers, answer.body)

    async def _relay(self, call: LetIn) -> None:
        self._introduce(call)
        try:
            await self._try_all(call)
        except asyncio.CancelledError:
            if not self._ours():
                raise
            await self._interrupted()
        finally:
            if self._try is not None:
                self._try.dropped()

    def _introduce(self, call: LetIn) -> None:
        """Set the header fields of ours that the answer carries, whoever gives it."""
        if call.preset is not None:
            self._reply.own.append((ANSWER_HEADER, call.preset.name.encode()))
        if call.admitted.clamped:
            self._reply.own.append((b"x-max-tokens-clamped", str(call.admitted.output_tokens // max(call.ask.choices, 1)).encode()))

    async def _interrupted(self) -> None:
        outcome, code = UsageOutcome.FAILED, self._why
        if self._why == "client_gone" or not self._reply.here:
            outcome, code = UsageOutcome.CANCELLED, "client_gone"
        refusal = self._refusal(RefusalKind.OVERLOADED, "The gateway is restarting; try again.", retry_after=2)
        if self._why == "upstream_timeout":
            refusal = self._refusal(RefusalKind.TIMED_OUT, "The provider did not come to an end in time.")
        await self._finish(Outcome(self._consumption(), outcome, None, code), refusal)

    async def _try_all(self, call: LetIn) -> None:
        """Try one candidate after the other, until one has answered or none is left."""
        candidates = call.plan.candidates
        for place, candidate in enumerate(candidates):
            try:
                spoken = await call.spoken_to(candidate) if place else call.first
            except BadRequest:
                continue  # another dialect cannot say it: no candidate for this request, and only ever one of the fallbacks
            upstream = candidate.upstream
            assert self._progress is not None
            self._progress.candidate, self._progress.meter, self._progress.failed = candidate, None, tuple(self._attempts)
            number = len(self._attempts) + 1
            self._try = Try(
                candidate,
                number,
                candidate.reason if number == 1 else "fallback",
                self._runtime.routes.health[upstream.name],
                tokens=call.opening.input_tokens,
                started_at=self._runtime.clock(),
            )
            why = call.plan.reason if number == 1 else f"{call.plan.reason}, fallback"
            self._reply.told = [(MODEL_HEADER, candidate.model.name.encode("ascii", "replace")), (ROUTE_HEADER, why.encode("ascii", "replace"))]
            try:
                # nobody pays for an answer that nobody waits for
                await self._exchange(call, spoken, self._try, last=place == len(candidates) - 1 or not (self._reply.here or self._keyed))
            except _Elsewhere as failed:
                self._attempts.append(failed.made)
            else:
                return
        assert self._try is not None, "the first candidate is always tried"
        before = self._attempts.pop()
        outcome = Outcome(before.consumption or Consumption(), UsageOutcome.FAILED, 502, before.error_code)
        await self._finish(outcome, self._refusal(RefusalKind.UPSTREAM_FAILED, OPERATOR_ERROR_MESSAGE), upstream_status=before.http_status)

    async def _exchange(self, call: LetIn, spoken: Spoken, made: Try, *, last: bool) -> None:
        """Send the call to one upstream, and relay what it answers; raises _Elsewhere when the next candidate should be asked."""
        upstream = made.candidate.upstream
        url, headers, body = request_of(call, spoken, made.candidate, self._arrival.head)
        try:
            async with self._runtime.upstreams.post(url, headers, body, upstream.waits, stale=lambda: self._sent_again(made)) as response:
                made.answered(response.headers, self._runtime.clock())
                if response.status != 200:
                    await self._upstream_refused(response, spoken, made, last=last)
                elif call.ask.streamed:
                    await self._stream(response, call, spoken, made, last=last)
                else:
                    await self._whole(response, call, spoken, made, last=last)
        except BROKEN as error:
            if self._ending:
                raise
            slow = isinstance(error, TimeoutError)
            message = "The provider did not answer in time." if slow else "The provider broke off."
            outcome = Outcome(self._consumption(), UsageOutcome.FAILED, 504 if slow else 502, "upstream_timeout" if slow else "upstream_broken")
            await self._broken(made, outcome, message, RefusalKind.TIMED_OUT if slow else RefusalKind.UPSTREAM_FAILED, last=last, cause=type(error).__name__)

    def _sent_again(self, made: Try) -> None:
        assert self._progress is not None
        log.info("upstream's kept connection was closed", call=self._arrival.request_id, upstream=made.candidate.upstream.name)
        self._attempts.append(made.sent_again(self._runtime.clock()))
        self._progress.failed = tuple(self._attempts)

    async def _broken(self, made: Try, outcome: Outcome, message: str, kind: RefusalKind, *, last: bool, cause: str = "") -> None:
        """End a try whose upstream failed before its first byte: elsewhere goes on, or the client is told."""
        assert outcome.error_code is not None
        log.warning("upstream failed", call=self._arrival.request_id, upstream=made.candidate.upstream.name, code=outcome.error_code, error=cause)
        made.trouble(Trouble.BROKEN, outcome.error_code, message)
        if not last:
            raise _Elsewhere(made.made(outcome, at=self._runtime.clock(), last=False))
        await self._finish(outcome, self._refusal(kind, message))

    async def _upstream_refused(self, response: Response, spoken: Spoken, made: Try, *, last: bool) -> None:
        body, status = await response.read(LARGEST_ANSWER_BYTES), response.status
        verdict = judge(status, body)
        code = f"upstream_{status}"
        if verdict.trouble is None:
            made.well()
        else:
            log.warning("upstream refused", call=self._arrival.request_id, upstream=made.candidate.upstream.name, status=status, trouble=verdict.trouble.value)
            made.trouble(verdict.trouble, code, f"The provider answered {status}.")
        if verdict.elsewhere and not last:
            outcome = Outcome(Consumption(), UsageOutcome.FAILED, status, code)
            raise _Elsewhere(made.made(outcome, at=self._runtime.clock(), last=False))
        if verdict.shown is not None or body is None:
            refusal = self._refusal(verdict.shown or RefusalKind.UPSTREAM_FAILED, OPERATOR_ERROR_MESSAGE)
            answered = self._dialect.refuse(refusal).status
            await self._finish(Outcome(Consumption(), UsageOutcome.FAILED, answered, code), refusal, upstream_status=status)
            return
        if spoken.translation is not None:
            body = spoken.translation.error(status, body, self._arrival.request_id)
        await self._finish(Outcome(Consumption(), UsageOutcome.FAILED, status, code), Answer(status, self._passed(response), body))

    def _passed(self, response: Response) -> list[tuple[bytes, bytes]]:
        return self._dialect.response_headers(response.headers)

    async def _whole(self, response: Response, call: LetIn, spoken: Spoken, made: Try, *, last: bool) -> None:
        body = await response.read(LARGEST_ANSWER_BYTES)
        reading: Reading | None = None if body is None else spoken.dialect.read(body, spoken.ask)
        if body is not None and reading is not None and reading.complete and spoken.translation is not None:
            try:
                body = spoken.translation.answer(body, call.ask, created_seconds=int(self._received_at.timestamp()))
            except Untranslatable:
                body = None
        if body is None or reading is None or not reading.complete:
            outcome = Outcome(Consumption(), UsageOutcome.FAILED, 502, "upstream_garbage")
            await self._broken(made, outcome, "The provider's answer could not be read.", RefusalKind.UPSTREAM_FAILED, last=last)
            return
        made.well()
        assert self._progress is not None
        used = self._progress.of(reading.usage, reading.characters, reading.lines)
        await self._finish(Outcome(used, UsageOutcome.SUCCEEDED, 200, None), Answer(200, self._passed(response), body))

    async def _stream(self, response: Response, call: LetIn, spoken: Spoken, made: Try, *, last: bool) -> None:
        meter: Meter = spoken.dialect.meter(spoken.ask)
        told = meter.content_type(response.header(b"content-type"))
        if told is None:
            outcome = Outcome(Consumption(), UsageOutcome.FAILED, 502, "upstream_garbage")
            await self._broken(made, outcome, "The provider did not stream its answer.", RefusalKind.UPSTREAM_FAILED, last=last)
            return
        if spoken.translation is not None:
            meter = TranslatedMeter(meter, spoken.translation.stream(call.ask, created_seconds=int(self._received_at.timestamp())))
        assert self._progress is not None
        self._progress.meter = meter
        passed = [field for field in self._passed(response) if field[0] != b"content-type"]
        head = [(b"content-type", told), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"), *passed]
        if last and meter.events:  # otherwise the head waits for the first byte: until then another upstream may answer, or a refusal
            await self._reply.begin(200, head)
        try:
            if await Passage(response, meter, self._progress, self._reply, head, self._elapsed_ms).run():
                made.well()
                await self._finish(Outcome(self._consumption(), UsageOutcome.SUCCEEDED, 200, "credit_exhausted"), meter.conclude())
                return
        except BROKEN as error:
            if self._ending or not self._reply.started:
                raise
            if not meter.ended and not meter.complete:
                slow = isinstance(error, TimeoutError)
                message = "The provider fell silent." if slow else "The provider broke off in the middle of its answer."
                code, kind = ("upstream_timeout", RefusalKind.TIMED_OUT) if slow else ("upstream_cut", RefusalKind.UPSTREAM_FAILED)
                made.trouble(Trouble.BROKEN, code, message)
                await self._finish(Outcome(self._consumption(), UsageOutcome.FAILED, 200, code), self._refusal(kind, message))
                return
        await self._stream_ended(meter, made, head, last=last)

    async def _stream_ended(self, meter: Meter, made: Try, head: list[tuple[bytes, bytes]], *, last: bool) -> None:
        """End a stream whose upstream has said its last word."""
        used = self._consumption()
        if meter.error is None and meter.complete:
            made.well()
            if not self._reply.started:
                await self._reply.begin(200, head)
            await self._finish(Outcome(used, UsageOutcome.SUCCEEDED, 200, None), meter.tail())
            return
        told, code = "The provider broke off in the middle of its answer.", "upstream_cut"
        trouble: Trouble | None = Trouble.BROKEN
        if meter.error is not None:
            told, code, trouble = f"The provider told `{meter.error.type[:60]}` inside its stream.", "upstream_error", trouble_of(meter.error)
        if trouble is None:
            made.well()
        else:
            made.trouble(trouble, code, told)
        outcome = Outcome(used, UsageOutcome.FAILED, 200, code)
        if not self._reply.started and not last and trouble is not None:
            raise _Elsewhere(made.made(outcome, at=self._runtime.clock(), last=False))
        refusal = self._refusal(RefusalKind.UPSTREAM_FAILED, told)
        if not self._reply.started and not meter.events:
            await self._finish(Outcome(used, UsageOutcome.FAILED, 502, code), refusal)
            return
        if not self._reply.started:
            await self._reply.begin(200, head)
        await self._finish(outcome, meter.tail() if meter.error is not None and meter.events else refusal)

    # How it ends.

    def _consumption(self) -> Consumption:
        return Consumption() if self._progress is None else self._progress.consumption()

    def _refusal(self, kind: RefusalKind, message: str, *, retry_after: int | None = None) -> Refusal:
        return Refusal(kind, message, self._arrival.request_id, retry_after_seconds=retry_after)

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._clock) * 1000)

    async def _finish(self, outcome: Outcome, last: Answer | Refusal | bytes, *, upstream_status: int | None = None) -> None:
        """Settle, then let the client see the end: a whole answer, a refusal, or the last bytes of a stream.

        `upstream_status` is what the upstream answered, where the client gets another status.
        """
        self._ending = True
        call, made = self._call, self._try
        assert call is not None
        candidate = call.plan.candidates[0] if made is None else made.candidate
        now = self._runtime.clock()
        if made is not None and made.number > len(self._attempts):
            self._attempts.append(made.made(outcome, at=now, upstream_status=upstream_status))
        ending = Ending(
            workspace_id=call.admitted.workspace_id,
            call_id=call.opening.id,
            model=candidate.model.name,
            provider=candidate.upstream.name,
            price=candidate.price,
            consumption=outcome.consumption,
            outcome=outcome.outcome,
            http_status=outcome.http_status,
            error_code=outcome.error_code,
            latency_ms=self._elapsed_ms(),
            attempts=tuple(self._attempts),
            standing=call.opening.standing,
        )
        self._closing = (time.monotonic(), last)
        bug: Exception | None = None
        try:
            await self._close(ending, last)
        except Exception as error:  # the client has its answer all the same, and the sweep closes the hold
            bug = error
        self._closing = None
        await (self._say_last(self._end(last)) if self._late is None else self._late)
        if bug is not None:
            raise bug
        turn = turn_of(call, ending)
        if turn is not None:  # beside the calls, when the client has its answer
            self._runtime.doctor.see(turn)

    def _end(self, last: Answer | Refusal | bytes, settled: Settled | None = None) -> Answer | bytes | Cut:
        """Return the end as the client sees it, composed once."""
        if self._last is None:
            self._last = self._composed(last, settled)
        return self._last

    async def _close(self, ending: Ending, last: Answer | Refusal | bytes) -> None:
        """Settle the call, then keep its answer where its client named it; both before the client sees the end, unless that takes too long."""
        settled = await self._runtime.calls.settle(ending)
        if ending.consumption.kept:
            await kept_answers.keep(ending.workspace_id, ending.consumption.kept, ending.provider)
        shown = self._end(last, settled)
        if self._keyed is not None:
            delivered = ending.outcome is UsageOutcome.SUCCEEDED or bool(ending.consumption.quantities)
            answered = delivered and (self._reply.started or (isinstance(shown, Answer) and shown.status == 200))
            await self._keyed.end(self._reply, shown, answered=answered)

    def _composed(self, last: Answer | Refusal | bytes, settled: Settled | None) -> Answer | bytes | Cut:
        """Return the end as the client sees it, with what the call cost, where that is known."""
        if isinstance(last, Refusal):
            if not self._reply.started:
                return self._composed(self._dialect.refuse(last), settled)
            meter = self._progress.meter if self._progress is not None else None
            if meter is not None and not meter.events:
                return CUT
            last = meter.fail(last) if meter is not None else b""
        if isinstance(last, bytes):
            return last if settled is None else self._remark(settled) + last
        if settled is None:
            return last
        cost = [(CHARGE_HEADER, str(settled.charge_microusd).encode())]
        if settled.available_microusd is not None:
            cost.append((BALANCE_HEADER, str(settled.available_microusd).encode()))
        return Answer(last.status, [*last.headers, *cost], last.body)

    def _remark(self, settled: Settled) -> bytes:
        """Return what a stream cost as a comment, which clients ignore, before its last event; nothing where no comment can stand."""
        meter = self._progress.meter if self._progress is not None else None
        alive = meter.keep_alive() if meter is not None else b""
        if not alive.startswith(b":") or self._try is None:
            return b""
        told = {
            "call": self._arrival.request_id,
            "model": self._try.candidate.model.name,
            "charge_microusd": settled.charge_microusd,
            "balance_microusd": settled.available_microusd,
        }
        return b": tallygate " + msgspec.json.encode(told) + (b"\n\n" if alive.endswith(b"\n\n") else b"\n")

    async def _say_last(self, last: Answer | bytes | Cut) -> None:
        if isinstance(last, Cut):
            self._reply.cut()
        elif isinstance(last, bytes):
            await self._reply.say(last, last=True)
        else:
            await self._reply.whole(last.status, last.headers, last.body)
