"""What every field of one request shares."""

from dataclasses import dataclass, field
from typing import Any

from strawberry.types import Info as StrawberryInfo

from domain.access.callers import Caller
from schema.throttle import STRANGERS, Allowance, MEMBERS, Taken


@dataclass
class Context:
    """One request, or one WebSocket connection.

    `caller` is None without a credential. `connection_params` is what a WebSocket client sends first; strawberry looks for it by name.
    """

    caller: Caller | None
    request_id: str
    address: str
    connection_params: dict[str, object] | None = None
    cost: int = 0
    taken: Taken | None = field(default=None)

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
