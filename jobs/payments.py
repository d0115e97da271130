"""Payments: what Stripe told of, and what it never told."""

from domain import duties
from domain.duties import Duty
from domain.money import autotopup, entries, events, payments, renewals
from domain.money.processor import PaymentsDisabled
from runtime import Runtime


async def stripe_event(runtime: Runtime, duty: Duty) -> None:
    """Apply an event of Stripe's, from a fresh look at what it is about."""
    if runtime.payments is None:
        raise PaymentsDisabled
    await events.apply(runtime.payments.processor, duty)


async def auto_top_up(runtime: Runtime, duty: Duty) -> None:
    """Buy credit for a workspace whose settlement left too little, if that is still so."""
    assert duty.workspace_id is not None
    if runtime.payments is not None:
        await autotopup.trigger(runtime.payments.processor, duty.workspace_id)
    await duties.done(duty)


async def sweep(runtime: Runtime) -> None:
    """Buy where auto top-up is due, look at top-ups whose time has come, and ask Stripe for events that its webhook never told, and for what it moved."""
    if runtime.payments is None:
        return
    await autotopup.sweep(runtime.payments.processor)
    await payments.sweep(runtime.payments.processor)
    await renewals.sweep(runtime.payments.processor)
    await events.catch_up(runtime.payments.processor, at=runtime.clock())
    await entries.read_sometimes(runtime.payments.processor, at=runtime.clock())
