"""How far a call is: what it has used by now, as the books count it, and whether its hold still covers what comes."""

import asyncio

import structlog

from domain.serving.calls import AttemptMade, Consumption, Part, Sign, counted
from domain.serving.routing import Candidate
from models.database import CONTENDED, UNREACHABLE
from proxy.admission import LetIn
from proxy.dialects.base import Meter, Usage
from runtime import Runtime

RUNAWAY_TOKENS = 64
"""How far beyond twice its bound a provider may go, by our count, before it is taken not to know the bound."""

log = structlog.get_logger()


class Progress:
    """One call's usage and hold while it is under way. `candidate` is the one that is tried now, after those that `failed`; `meter` reads its stream, if it streams."""

    def __init__(self, runtime: Runtime, call: LetIn) -> None:
        self._runtime = runtime
        self._call = call
        self.candidate: Candidate = call.plan.candidates[0]
        self.meter: Meter | None = None
        self.first_token_ms: int | None = None
        self.failed: tuple[AttemptMade, ...] = ()
        self._covered = call.admitted.output_tokens
        self._extension: asyncio.Task[None] | None = None
        self._refused_extension = False

    def consumption(self) -> Consumption:
        """Return what the stream has used so far."""
        meter = self.meter
        return Consumption() if meter is None else self.of(meter.usage, meter.characters, meter.lines)

    def of(self, usage: Usage, characters: int, lines: int) -> Consumption:
        """Return a usage as the books keep it."""
        return Consumption(
            model=usage.model,
            quantities=counted(usage.buckets()),
            service_tier=usage.service_tier,
            geography=usage.geography,
            reported=usage.reported,
            characters=characters,
            lines=lines,
            first_token_ms=self.first_token_ms,
            others=tuple(self._part(other) for other in usage.others),
            doubtful=usage.doubtful,
            kept=usage.kept,
            cost_picousd=usage.cost_picousd,
        )

    def _part(self, usage: Usage) -> Part:
        """Price what another model did as that model was priced when the call was admitted."""
        book = self._runtime.book
        model = book.find(usage.model or "")
        price = None if model is None else book.price(model.name, self._call.opening.created_at)
        return Part((price or self.candidate.price).id, counted(usage.buckets()), unpriced=price is None)

    async def keep(self, output_tokens: int | None = None) -> None:
        """Keep a sign of life, and ask for the hold to cover `output_tokens`; one that is lost is made up for by the next."""
        opening = self._call.opening
        sign = Sign(
            workspace_id=self._call.admitted.workspace_id,
            call_id=opening.id,
            model=self.candidate.model.name,
            upstream=self.candidate.upstream.name,
            price=self.candidate.price,
            failed=self.failed,
            consumption=self.consumption(),
            output_tokens=output_tokens,
            input_tokens=opening.input_tokens,
            input_picousd=opening.input_picousd,
            output_picousd=opening.output_picousd,
            standing=opening.standing,
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

    def caught_up(self, output_tokens: int) -> bool:
        """Tell whether `room` may have to wait for the hold to grow."""
        return output_tokens >= self._covered and not self._refused_extension and not self._call.admitted.clamped

    async def room(self, output_tokens: int) -> int:
        """Return how many tokens may still come, 0 when the stream has to end.

        Grows the hold ahead of the stream, and waits for that only when the stream has caught up.
        """
        whole = self._call.opening.max_output_tokens
        if self._call.admitted.clamped or self._covered >= whole:
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
