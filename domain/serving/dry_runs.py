"""What admission would say of a call, without a trace of it."""

import msgspec

from domain import errors
from domain.serving.batches import Answer
from domain.serving.calls import Admitted, Calls, Opening, admitted_of
from models import database
from models.database import CONTENDED, UNREACHABLE


class _Weighed(Exception):
    """Takes an admission back: the transaction that made it is rolled back with this."""

    def __init__(self, row: Answer) -> None:
        super().__init__()
        self.row = row


async def weigh(calls: Calls, opening: Opening) -> Admitted:
    """Tell what admission would say of a call now: nothing is held, and no call is recorded. Raises as `Calls.admit` does."""
    text = msgspec.json.encode([{**calls.admission(opening), "n": 0}]).decode()
    try:
        async with database.transaction():
            raise _Weighed((await database.fetch("SELECT * FROM admit_6($1::json, $2)", text, True))[0])
    except _Weighed as weighed:
        return admitted_of(weighed.row, opening)
    except (*UNREACHABLE, *CONTENDED):
        raise errors.Unavailable from None
