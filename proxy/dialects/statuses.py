"""Which answers of an upstream are the client's to read, and what the others become."""

from proxy.dialects.base import RefusalKind

_CLIENTS_OWN = frozenset({400, 404, 409, 413, 422, 429})


def refused_as(upstream_status: int) -> RefusalKind | None:
    """Tell what an upstream's status that is not 2xx becomes; None where status and body go to the client byte for byte.

    Coding tools match the wording of model errors to recover. What concerns the operator's account (401, 402, 403) is never the
    customer's 401 or 402, which would ask a person to log in or to pay.
    """
    if upstream_status in _CLIENTS_OWN:
        return None
    if upstream_status in (503, 529):
        return RefusalKind.OVERLOADED
    if upstream_status in (408, 504):
        return RefusalKind.TIMED_OUT
    return RefusalKind.UPSTREAM_FAILED
