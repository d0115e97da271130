"""Mail that is owed."""

from uuid import UUID

from domain import duties
from domain.access import members
from domain.duties import Duty
from domain.usage import notices
from runtime import Runtime


async def invitation(runtime: Runtime, duty: Duty) -> None:
    """Send an invitation that is still open; the mail may go out twice if the process dies between the mail and the mark."""
    assert duty.workspace_id is not None
    mail = await members.invitation_mail(duty.workspace_id, UUID(duty.payload["member_id"]), runtime.settings.secret.get_secret_value())
    if mail is not None:
        inviter = mail.inviter_name or "The owner"
        await runtime.mail.send(
            mail.to,
            f"You are invited to {mail.workspace_name}",
            f"{inviter} invites you to the workspace {mail.workspace_name} as {mail.role.value}.\n\n"
            f"To take the invitation, sign in as {mail.to} and send the mutation `invitationAccept` with this token to"
            f" {runtime.settings.public_url.rstrip('/')}/graphql (its page is /graphiql there):\n\n{mail.token}\n\n"
            f"It works until {mail.expires_at:%Y-%m-%d %H:%M} UTC.\n",
            duty_id=duty.id,
        )
    await duties.done(duty)


async def alert(runtime: Runtime, duty: Duty) -> None:
    """Tell an address of an alert; the mail may go out twice if the process dies between the mail and the mark."""
    payload = duty.payload
    await runtime.mail.send(payload["to"], f"Alert: {' '.join(payload['name'].split())}", payload["text"], duty_id=duty.id)
    await duties.done(duty)


async def low_balance(runtime: Runtime, duty: Duty) -> None:
    """Tell the owners that little credit is left."""
    await notices.low_balance(duty, runtime.settings.public_url.rstrip("/"))


async def budget_reached(runtime: Runtime, duty: Duty) -> None:
    """Tell the owners that a budget is nearly spent."""
    await notices.budget_reached(duty, runtime.settings.public_url.rstrip("/"))


async def auto_top_up_failed(runtime: Runtime, duty: Duty) -> None:
    """Tell the owners that their card would not pay, and where to pay by hand."""
    processor = runtime.payments.processor if runtime.payments else None
    await notices.auto_top_up_failed(duty, processor, runtime.settings.public_url.rstrip("/"))


async def notice(runtime: Runtime, duty: Duty) -> None:
    """Send one owner a notice; the mail may go out twice if the process dies between the mail and the mark."""
    payload = duty.payload
    await runtime.mail.send(payload["to"], payload["subject"], payload["text"], duty_id=duty.id)
    await duties.done(duty)
