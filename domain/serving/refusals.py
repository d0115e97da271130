"""What admission says to a call that it does not let in."""

from collections.abc import Mapping
from datetime import datetime

from domain import errors
from domain.money.amounts import usd
from domain.serving.batches import Answer
from models.enums import Measure

_REFUSALS: Mapping[str, str] = {
    "scope": "This key may not call models: it lacks scope INFERENCE.",
    "suspended": "The app of this client token is switched off by its owner.",
    "blocked": "The end user that this call names is blocked.",
    "test_key": "A test key reaches only the built-in model `echo`.",
    "preset": "The subscription of this workspace does not open this tool's route.",
    "model": "This key may not use this model.",
    "origin": "This key may not be used from this origin.",
    "address": "This key may not be used from this address.",
    "stopped": "All calls of this workspace are stopped by its owner.",
}
_MEASURES: Mapping[str, str] = {
    "money": "The budget",
    "calls": "The limit on calls",
    "tokens": "The limit on tokens",
    "list": "The limit on credits",
    "conversations": "The limit on conversations",
}
_SPANS: Mapping[str, str] = {"day": "a day", "week": "a week", "month": "a month", "billing_period": "a billing period"}


def _bound_reached(bound: str, quota: bool, passes: bool, resets_at: datetime | None) -> errors.BoundReached:
    """Say which bound a call does not fit into; `bound` is a measure and a window, as `money in 24h`."""
    measure, _, span = bound.partition(" in ")
    if measure == Measure.CONCURRENT:
        return errors.BoundReached("As many calls are under way as may be at once; try again when one has ended.", bound=bound, resets_at=None, passes=True)
    whose = f"{_MEASURES[measure]} of the subscription" if quota else _MEASURES[measure]
    of = " for good" if span == "lifetime" else f" for {_SPANS.get(span, span)}"
    if passes:
        return errors.BoundReached(f"{whose}{of} is held by calls under way; try again when one has ended.", bound=bound, resets_at=resets_at, passes=True)
    when = f"; it begins anew at {resets_at:%Y-%m-%d %H:%M:%S} UTC" if resets_at else ""
    return errors.BoundReached(f"{whose}{of} does not cover this call{when}.", bound=bound, resets_at=resets_at)


def refusal_of(row: Answer) -> errors.Refusal:
    """Return why a call was not let in, as the statement that admits answered it."""
    verdict = row["verdict"]
    if verdict in ("unknown_key", "revoked_key", "expired_key"):
        return errors.Unauthenticated("This API key is unknown, revoked or expired.")
    if verdict == "unknown_token":
        return errors.Unauthenticated("This client token is unknown, revoked or expired.")
    if verdict == "kind":
        return errors.NotOnThisRoute("A subscription key works on the tool routes only; this route takes pay-per-token keys.")
    if verdict == "no_subscription":
        message = "This is a subscription key, and its workspace has no subscription. Subscribe, or use a pay-per-token key."
        return errors.BoundReached(message, bound="subscription", resets_at=None)
    if verdict == "frozen":
        message = "All spending of this workspace is stopped while a payment is disputed at the bank. Add credit, or ask the operator."
        return errors.InsufficientCredit(message, available_microusd=0, required_microusd=0)
    if verdict == "held":
        message = "Calls under way hold what is left of the balance; try again when one has ended."
        return errors.BoundReached(message, bound="balance", resets_at=None, passes=True)
    if verdict == "insufficient" and row["required_microusd"] is None:
        return errors.InsufficientCredit("The owner of this app has too little credit for this call.", available_microusd=0, required_microusd=0)
    if verdict == "insufficient":
        available, required = row["available_microusd"] or 0, row["required_microusd"]
        return errors.InsufficientCredit(
            f"The balance is used up: ${usd(available)} can be spent, and this call needs at least ${usd(required)}. Add credit, then try again.",
            available_microusd=available,
            required_microusd=required,
        )
    if verdict == "bound":
        return _bound_reached(row["bound"], row["quota"], row["passes"], row["resets_at"])
    return errors.Forbidden(_REFUSALS[verdict])
