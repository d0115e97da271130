"""One try of a call at one upstream: what it is asked, what its refusals mean, and what is learnt from it."""

import time
from datetime import datetime

import msgspec

from domain.serving.calls import AttemptMade, Consumption
from domain.serving.health import Health, Trouble, limits_left, retry_after_seconds
from domain.serving.routing import Candidate
from models.enums import UsageOutcome
from models.ids import uuid7
from proxy.admission import Head, LetIn, Spoken, most_output
from proxy.dialects.base import Credential, Headers, RefusalKind, StreamError
from proxy.dialects.statuses import refused_as

ACCOUNT_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated", "billing_error"})
"""What providers call an account that cannot pay, inside statuses that otherwise are the client's."""
ACCOUNT_WORDS = "your credit balance is too low"
_BUSY_STATUSES = frozenset({429, 503, 529})
_ACCOUNT_STATUSES = frozenset({401, 402, 403})
_BUSY_TYPES = frozenset({"overloaded_error", "rate_limit_error", "rate_limit_exceeded", "server_overloaded"})
_RETRY_AFTER = (b"retry-after", b"retry-after-ms")
_CLIENTS_TYPES = frozenset({"invalid_request_error"})


class Verdict(msgspec.Struct, frozen=True):
    """What a refusal of an upstream means.

    `trouble` is None when the upstream is well and the request is at fault. `elsewhere` tells whether another upstream may serve it. `shown` is what
    the client is told; None hands the upstream's status and body on, byte for byte.
    """

    trouble: Trouble | None
    elsewhere: bool
    shown: RefusalKind | None


def judge(status: int, body: bytes | None) -> Verdict:
    """Judge an answer that is not 200; `body` is None when it was too large to read.

    What a provider says of the installation's own account (401, 402, 403, a quota used up, an unpaid bill) is never told to the customer as theirs.
    """
    if body is None:
        return Verdict(Trouble.BROKEN, True, RefusalKind.UPSTREAM_FAILED)
    if status in _ACCOUNT_STATUSES or (status in (400, 429) and _of_account(body)):
        return Verdict(Trouble.ACCOUNT, True, RefusalKind.UPSTREAM_FAILED)
    shown = refused_as(status)
    if status in _BUSY_STATUSES:
        return Verdict(Trouble.BUSY, True, shown)
    if shown is not None:
        return Verdict(Trouble.BROKEN, True, shown)
    return Verdict(None, status == 404, None)  # a model that this upstream does not know, another may


def _of_account(body: bytes) -> bool:
    try:
        error = msgspec.json.decode(body).get("error")
        return bool({error.get("code"), error.get("type")} & ACCOUNT_CODES) or str(error.get("message")).lower().startswith(ACCOUNT_WORDS)
    except (msgspec.MsgspecError, ValueError, RecursionError, AttributeError, TypeError):
        return False


def trouble_of(error: StreamError) -> Trouble | None:
    """Return what an error that is told inside a stream says of its upstream; None when the request is at fault."""
    if error.type in _CLIENTS_TYPES:
        return None
    if error.type in ACCOUNT_CODES:
        return Trouble.ACCOUNT
    return Trouble.BUSY if error.type in _BUSY_TYPES else Trouble.BROKEN


class Outcome(msgspec.Struct, frozen=True):
    """How a try, or the whole call, ended, before it is settled; `http_status` is what the client was answered."""

    consumption: Consumption
    outcome: UsageOutcome
    http_status: int | None
    error_code: str | None


class Try:
    """One try under way: its times, and what its upstream's health learns from it, exactly once."""

    def __init__(self, candidate: Candidate, number: int, reason: str, health: Health, *, tokens: int, started_at: datetime) -> None:
        self.candidate = candidate
        self.number = number
        self.reason = reason
        self.started_at = started_at
        self.first_byte_at: datetime | None = None
        self._health = health
        self._begun = time.monotonic()
        self._first_byte_ms: int | None = None
        self._retry_after: float | None = None
        self._told = False
        health.begin(self._begun, tokens)

    def answered(self, fields: Headers, at: datetime) -> None:
        """Take note of the answer's head: how long it took, and what it says of limits."""
        now = time.monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields if b"ratelimit" in name or name in _RETRY_AFTER}
        self.first_byte_at = at
        self._first_byte_ms = int((now - self._begun) * 1000)
        if headers:
            self._health.heard(limits_left(headers, now, at.timestamp()))
            self._retry_after = retry_after_seconds(headers, at.timestamp())

    def well(self) -> None:
        """The upstream did its part."""
        if not self._told:
            self._told = True
            self._health.succeeded(time.monotonic(), self._first_byte_ms)

    def trouble(self, trouble: Trouble, code: str, message: str) -> None:
        """The upstream failed; only where it is busy its own word on when to come back counts."""
        if not self._told:
            self._told = True
            retry_after = self._retry_after if trouble is Trouble.BUSY else None
            self._health.failed(time.monotonic(), trouble, code, message, retry_after_seconds=retry_after, first_byte_ms=self._first_byte_ms)

    def dropped(self) -> None:
        """The try ended without saying anything of its upstream; what was told before counts."""
        if not self._told:
            self._told = True
            self._health.left()

    def sent_again(self, at: datetime) -> AttemptMade:
        """Begin anew at the same upstream, whose kept connection was found closed; return the first sending as the books keep it.

        The upstream may have read it, and bill it, so it is a try of its own.
        """
        first = self.made(Outcome(Consumption(), UsageOutcome.FAILED, None, "stale_connection"), at=at, last=False)
        self.number, self.reason, self.started_at = self.number + 1, "retry", at
        return first

    def made(self, outcome: Outcome, *, at: datetime, upstream_status: int | None = None, last: bool = True) -> AttemptMade:
        """Return the try as the books keep it; `upstream_status` is what the upstream answered, where the client got another status."""
        return AttemptMade(
            id=uuid7(),
            number=self.number,
            upstream=self.candidate.upstream.name,
            model=self.candidate.upstream.named(self.candidate.model.name),
            outcome=outcome.outcome,
            http_status=outcome.http_status if upstream_status is None else upstream_status,
            error_code=outcome.error_code,
            started_at=self.started_at,
            first_byte_at=self.first_byte_at,
            finished_at=at,
            reason=self.reason,
            price=None if last else self.candidate.price,
            consumption=None if last else outcome.consumption,
        )


def request_of(call: LetIn, spoken: Spoken, candidate: Candidate, head: Head) -> tuple[str, list[tuple[bytes, bytes]], bytes]:
    """Return address, header fields and body for a candidate's upstream.

    The model is the upstream's own name of it. The bound of output is what was held, where that is less than the client's; and no more than the
    model can do, where a router and not the client chose the model.
    """
    upstream, ask, choices = candidate.upstream, spoken.ask, max(spoken.ask.choices, 1)
    bounds = []
    if call.admitted.clamped:
        bounds.append(call.admitted.output_tokens // choices)
    if call.plan.routed:
        bounds.append(most_output(candidate.model, call.ask))
    name = upstream.named(candidate.model.name)
    body = spoken.dialect.rewrite(spoken.body, ask, model=name if name != ask.model else None, max_output_tokens=min(bounds) if bounds else None)
    url = f"{upstream.url}{spoken.dialect.upstream_path}"
    fields = head.sent.get(url)
    if fields is None:
        credential = None if upstream.key is None else Credential("x-api-key" if upstream.auth == "x-api-key" else "bearer", upstream.key)
        fields = head.sent[url] = spoken.dialect.request_headers(head.headers, credential)
    return url, fields, body
