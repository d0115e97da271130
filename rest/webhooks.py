"""Where Stripe tells what happened: believe or refuse, take in once, answer; the work is a worker's."""

import structlog
from starlette.types import Receive, Scope, Send

from domain.errors import Refusal
from domain.money import events
from domain.money.events import NotBelieved
from domain.money.processor import PaymentsDisabled
from models.database import CONTENDED, UNREACHABLE
from models.ids import uuid7
from rest import bodies
from rest.bodies import ClientGone
from rest.callers import header
from runtime import Runtime

LARGEST_EVENT_BYTES = 256 * 1024
TAKEN = b'{"received":true}'

log = structlog.get_logger()


class StripeWebhook:
    """Answers POST /webhooks/stripe: 200 for what is in the inbox, 400 for what is not believed, whatever is wrong with it, 503 without a secret."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one delivery."""
        request_id = scope.get("state", {}).get("request_id") or str(uuid7())
        status, body, more = 200, TAKEN, []
        try:
            if scope["method"] != "POST":
                status, body, more = 405, b'{"error":"Only POST is answered here."}', [(b"allow", b"POST")]
            else:
                await self._take(scope, receive)
        except ClientGone:
            return
        except Refusal as refusal:
            status, body = refusal.status, b'{"error":"%b"}' % refusal.message.encode()
        except (*UNREACHABLE, *CONTENDED) as error:
            log.warning("database away", request=request_id, path=scope["path"], error=type(error).__name__)
            status, body = 503, b'{"error":"The gateway cannot do this right now; try again."}'
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": fields + more})
        await send({"type": "http.response.body", "body": body})

    async def _take(self, scope: Scope, receive: Receive) -> None:
        payments = self._runtime.payments
        if payments is None or not payments.webhook_secrets:
            raise PaymentsDisabled
        body = await bodies.read(scope, receive, LARGEST_EVENT_BYTES)
        signatures = [value for name, value in scope["headers"] if name == b"stripe-signature"]
        if len(signatures) != 1:
            raise NotBelieved
        events.verify(body, header(scope["headers"], b"stripe-signature"), payments.webhook_secrets, at=self._runtime.clock())
        event = events.read(body, live=payments.processor.live)
        if event is not None:
            await events.receive(event)
