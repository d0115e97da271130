"""Webhooks that are owed."""

from uuid import UUID

from domain import duties, webhooks
from domain.duties import Duty
from runtime import Runtime


async def deliver(runtime: Runtime, duty: Duty) -> None:
    """Send a delivery once; it may go out twice if the process dies between the answer and the mark, under the same event id."""
    assert duty.workspace_id is not None
    delivery_id = UUID(duty.payload["delivery_id"])
    message = await webhooks.message(
        duty.workspace_id, delivery_id, installation_secret=runtime.settings.secret.get_secret_value(), at=runtime.clock()
    )
    if message is None:
        await duties.done(duty)
        return
    await webhooks.note(duty, delivery_id, await runtime.webhooks.send(message), at=runtime.clock())
