"""What every field of one request shares."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from strawberry.types import Info as StrawberryInfo

from domain.access.callers import NOWHERE, Caller, Whence
from resolvers.asking import Asking
from schema.throttle import MEMBERS, STRANGERS, Allowance, Taken


@dataclass
class Context(Asking):
    """One request, or one WebSocket connection.

    `connection_params` is what a WebSocket client sends first; strawberry looks for it by name. `renew` identifies a WebSocket's caller
    again before each operation: the credential may have ended since. `cost` and `taken` tell what the operation under way costs and what it
    has left of the rate limit.
    """

    request_id: str
    address: str
    whence: Whence = NOWHERE
    connection_params: dict[str, object] | None = None
    renew: Callable[[], Awaitable[Caller | None]] | None = field(default=None, repr=False)
    cost: int = 0
    taken: Taken | None = None

    @property
    def spender(self) -> str:
        """Whose rate limit pays: the key's, the person's, or a stranger's address."""
        if self.caller is None:
            return f"address {self.address}"
        return f"key {self.caller.key_id}" if self.caller.key_id else f"user {self.caller.user_id}"

    @property
    def allowance(self) -> Allowance:
        """The rate limit of that spender."""
        return STRANGERS if self.caller is None else MEMBERS


Info = StrawberryInfo[Context, Any]
