"""Reading the credential of a request to a documented path."""

from collections.abc import Sequence

from domain.access.callers import Caller, Whence
from domain.errors import Unauthenticated
from runtime import Runtime

Headers = Sequence[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> str | None:
    """Return the first value of a header field; names are in lower case, as ASGI gives them."""
    return next((value.decode("latin-1") for field, value in headers if field == name), None)


def credentials(headers: Headers, *, api_key_field: bool) -> list[str]:
    """Return the credentials that a request shows, bearer first; `x-api-key` counts where `api_key_field` says so."""
    bearer = [value[7:].strip() for name, value in headers if name == b"authorization" and value[:7].lower() == b"bearer "]
    plain = [value.strip() for name, value in headers if api_key_field and name == b"x-api-key"]
    return list(dict.fromkeys(value.decode("latin-1") for value in (*bearer, *plain) if value))


def whence(headers: Headers, client: tuple[str, int] | None) -> Whence:
    """Return where a request comes from; a link-local address comes with its interface, which is no part of it."""
    return Whence(header(headers, b"origin"), client[0].partition("%")[0] if client else None)


async def known(runtime: Runtime, headers: Headers, client: tuple[str, int] | None, *, api_key_field: bool) -> Caller:
    """Return who calls: of two credentials, the first that is believed, because tools send both with different values.

    Raises Unauthenticated when none is believed, and Forbidden for a workspace (`X-Workspace-Id`) that the caller is no member of, and for a
    key that may not be used from there.
    """
    workspace = header(headers, b"x-workspace-id")
    for credential in credentials(headers, api_key_field=api_key_field):
        try:
            caller = await runtime.identify(credential, workspace, whence(headers, client))
        except Unauthenticated:
            continue
        if caller is not None:
            return caller
    raise Unauthenticated
