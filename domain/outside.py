"""The rule for every call to the outside: never while a database transaction is open."""

from models.database import transaction_is_open


class CalledInsideTransaction(AssertionError):
    """A bug: an outside system was called while locks were held, so that its slowness would have become everybody's."""


def before_calling(system: str) -> None:
    """Raise CalledInsideTransaction when this task holds a transaction open; every client calls this first, in production too."""
    if transaction_is_open():
        raise CalledInsideTransaction(f"{system} was called inside a database transaction")
