"""Reading a multipart body into files of a folder as it comes: nothing of it is kept in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from domain.apps.archives import MOST_FILES
from domain.errors import InvalidInput

LARGEST_TEXT_BYTES = 4096
MOST_TEXTS = 50
LARGEST_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the body, as its sender names it, and where it is now."""

    name: str
    path: Path


class Parts:
    """Takes a multipart body piece by piece; `files` and `texts` are whole when `finish` has returned. Raises InvalidInput."""

    def __init__(self, content_type: str, folder: Path) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary or len(boundary) > 200:
            raise InvalidInput("A multipart body names its boundary.")
        self.files: list[Part] = []
        self.texts: dict[str, str] = {}
        self._folder = folder
        self._ended = False
        self._header: list[bytearray] = [bytearray(), bytearray()]
        self._size = 0
        self._disposition = b""
        self._target: IO[bytes] | None = None
        self._text: tuple[str, bytearray] | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._over,
            },
        )

    def write(self, data: bytes) -> None:
        """Take a piece."""
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise InvalidInput("The multipart body is broken.") from None

    def finish(self) -> None:
        """Tell that there is no more; raises InvalidInput when the body was cut."""
        self.close()
        if not self._ended:
            raise InvalidInput("The multipart body is cut short.")

    def close(self) -> None:
        """Close what is open."""
        if self._target is not None:
            self._target.close()
            self._target = None

    def _begin(self) -> None:
        self._header, self._size, self._disposition = [bytearray(), bytearray()], 0, b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._add(0, data[start:end])

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._add(1, data[start:end])

    def _add(self, place: int, data: bytes) -> None:
        self._size += len(data)
        if self._size > LARGEST_HEADER_BYTES:
            raise InvalidInput("A part of the multipart body has too much before its content.")
        self._header[place] += data

    def _header_end(self) -> None:
        if bytes(self._header[0]).lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header = [bytearray(), bytearray()]

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        filename = options.get(b"filename")
        if filename is not None:
            if len(self.files) > MOST_FILES:
                raise InvalidInput(f"An app has at most {MOST_FILES} files.")
            path = self._folder / f"part-{len(self.files)}"
            self.files.append(Part(filename.decode("utf-8", "surrogateescape"), path))
            self._target = path.open("wb")
        else:
            self._text = options.get(b"name", b"").decode("utf-8", "replace"), bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._target is not None:
            self._target.write(data[start:end])
        elif self._text is not None:
            self._text[1].extend(data[start:end])
            if len(self._text[1]) > LARGEST_TEXT_BYTES or len(self.texts) > MOST_TEXTS:
                raise InvalidInput("A text of the multipart body is too long: files carry a filename.")

    def _end(self) -> None:
        self.close()
        if self._text is not None:
            self.texts[self._text[0]] = self._text[1].decode("utf-8", "replace")
            self._text = None

    def _over(self) -> None:
        self._ended = True
