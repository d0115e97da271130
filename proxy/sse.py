"""Server-sent events as bytes: whole lines out of chunks cut anywhere."""

LINE_LIMIT_BYTES = 4 * 1024 * 1024
KEEP_ALIVE = b": keep-alive\n"


class LineBuffer:
    """Turns chunks cut anywhere into runs of whole lines, keeping at most one unfinished line of `LINE_LIMIT_BYTES`.

    A line ends with LF or CRLF; a lone CR, which the standard allows, is sent by no provider and ends nothing here.
    """

    __slots__ = ("_overlong", "_unfinished")

    def __init__(self) -> None:
        self._unfinished = bytearray()
        self._overlong = False

    @property
    def within_line(self) -> bool:
        """Whether a line has begun and not ended."""
        return self._overlong or bool(self._unfinished)

    @property
    def overlong(self) -> bool:
        """Whether the line that has begun is too long to be read."""
        return self._overlong

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Take a chunk; give what belongs to an overlong line, to be passed on unread, and then the whole lines that are now there.

        A chunk of whole lines that finds nothing unfinished is given back as the same object.
        """
        if not self._unfinished and not self._overlong and chunk.endswith(b"\n"):
            return b"", chunk
        overlong = b""
        if self._overlong:
            end = chunk.find(b"\n") + 1
            if not end:
                return chunk, b""
            self._overlong = False
            overlong, chunk = chunk[:end], chunk[end:]
        end = chunk.rfind(b"\n") + 1
        if not end:
            self._unfinished += chunk
            if len(self._unfinished) > LINE_LIMIT_BYTES:
                self._overlong = True
                return overlong + self.rest(), b""
            return overlong, b""
        lines = self.rest() + chunk[:end]
        self._unfinished += chunk[end:]
        return overlong, lines

    def rest(self) -> bytes:
        """Take the line that is not finished; afterwards there is none."""
        rest = bytes(self._unfinished)
        self._unfinished.clear()
        return rest


def data_of(line: bytes) -> bytes | None:
    """Give the value of a `data` line without its line end and surrounding space, or None for any other line."""
    return line[5:].strip() if line.startswith(b"data:") else None


def event(data: bytes, name: str | None = None) -> bytes:
    """Write one event; `data` has no line end inside."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + data + b"\n\n"
