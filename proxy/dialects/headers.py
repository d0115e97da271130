"""Which header fields pass between client and upstream, and which credentials a client shows."""

from collections.abc import Callable

from proxy.dialects.base import Credential, Headers, Refusal, RefusalKind

# Measured: without x-should-retry: false, tools repeat these for minutes and lose the message.
_HOPELESS = frozenset(
    {
        RefusalKind.UNAUTHENTICATED,
        RefusalKind.INSUFFICIENT_CREDIT,
        RefusalKind.FORBIDDEN,
        RefusalKind.QUOTA_EXHAUSTED,
        RefusalKind.NOT_SUPPORTED,
        RefusalKind.ANSWER_GONE,
        RefusalKind.MISMATCH,
    }
)


def credentials(headers: Headers) -> list[str]:
    """Give the keys that a client shows, bearer first, without repeats; both `authorization` and `x-api-key` are taken on every route.

    Tools send both with different values; the caller is known if either one is.
    """
    bearer = [value[7:].strip() for name, value in headers if name == b"authorization" and value[:7].lower() == b"bearer "]
    plain = [value.strip() for name, value in headers if name == b"x-api-key"]
    return list(dict.fromkeys(value.decode("latin-1") for value in bearer + plain if value))


def chosen(headers: Headers, passes: Callable[[bytes], bool]) -> list[tuple[bytes, bytes]]:
    """Choose the fields whose lower-case name passes, that `connection` does not name, and whose value is one line."""
    fields = [(name.lower(), value) for name, value in headers]
    connection = [value for name, value in fields if name == b"connection"]
    hops = {token.strip().lower() for value in connection for token in value.split(b",")} if connection else ()
    return [
        (name, value) for name, value in fields if passes(name) and name not in hops and b"\n" not in value and b"\r" not in value and b"\0" not in value
    ]


def of_request(chosen_fields: list[tuple[bytes, bytes]], credential: Credential | None) -> list[tuple[bytes, bytes]]:
    """Complete the fields chosen for an upstream: our credential, and the type of the body where the client named none, for it was read as JSON."""
    written = list(chosen_fields)
    if all(name != b"content-type" for name, _ in written):
        written.append((b"content-type", b"application/json"))
    if credential is not None:
        written.append(authorization(credential))
    return written


def authorization(credential: Credential) -> tuple[bytes, bytes]:
    """Write the field that tells an upstream who calls."""
    secret = credential.secret.encode("latin-1")
    return (b"x-api-key", secret) if credential.scheme == "x-api-key" else (b"authorization", b"Bearer " + secret)


def of_refusal(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """Write the header fields of a refusal: what it is, its id, when to come back and whether coming back at once can help."""
    written = [(b"content-type", b"application/json"), (b"request-id", refusal.request_id.encode("latin-1", "replace"))]
    if refusal.kind is RefusalKind.NOT_ALLOWED:
        written.append((b"allow", b"POST"))
    if refusal.kind in _HOPELESS:
        written.append((b"x-should-retry", b"false"))
    if refusal.retry_after_seconds is not None:
        written.append((b"retry-after", str(refusal.retry_after_seconds).encode()))
    return written
