"""Reading archives of strangers: an entry that could escape, exhaust or confuse is refused by its name, never repaired.

Only the standard library is imported here, because a process of its own with limits runs it; see `domain/apps/unpacking.py`.
"""

import gzip
import hashlib
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MOST_FILES = 5_000
MOST_ENTRIES = 10_000
LARGEST_FILE_BYTES = 50 * 1024 * 1024
LARGEST_TOTAL_BYTES = 250 * 1024 * 1024
LARGEST_RATIO = 200
"""How many times its stored size an entry may inflate to, beyond RATIO_FREE_BYTES."""
RATIO_FREE_BYTES = 1024 * 1024
LONGEST_SEGMENT_BYTES = 255
LONGEST_PATH_BYTES = 1_024
DEEPEST = 32
LARGEST_DIRECTORY_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 1 << 16

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_DRIVE = re.compile(r"[A-Za-z]:")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END = b"PK\x05\x06"
_END64_LOCATOR = b"PK\x06\x07"
_END64 = b"PK\x06\x06"


class Refused(Exception):
    """An archive, or an entry of it, that is not taken; the message is for whoever sent it."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A file of an archive, written out under its `number`."""

    number: int
    path: str
    bytes: int
    sha256: str


def refused(path: str, reason: str) -> Refused:
    """Return the refusal of an entry; its name is shown without what could confuse a terminal, and cut."""
    shown = "".join(character if character.isprintable() and character not in _BIDI else f"\\u{ord(character):04x}" for character in path[:200])
    return Refused(f"{shown!r} {reason}")


def check_path(path: str) -> str:
    """Return a path below an app's root in NFC; raises Refused, naming it, for one that could mean something else somewhere."""
    if any("\ud800" <= character <= "\udfff" for character in path):
        raise refused(path, "is not named in UTF-8")
    if not path:
        raise refused(path, "is an empty path")
    if "\x00" in path:
        raise refused(path, "has a NUL in its name")
    if any(unicodedata.category(character) == "Cc" for character in path):
        raise refused(path, "has a control character in its name")
    if not _BIDI.isdisjoint(path):
        raise refused(path, "has a character in its name that changes the direction of writing")
    if "\\" in path:
        raise refused(path, "has a backslash in its name")
    if path.startswith("/"):
        raise refused(path, "is an absolute path")
    if _DRIVE.match(path):
        raise refused(path, "begins with the letter of a drive")
    segments = path.split("/")
    if ".." in segments:
        raise refused(path, "leads out of the app's folder")
    if "" in segments or "." in segments:
        raise refused(path, "has an empty part, or a part that is a dot")
    if len(segments) > DEEPEST:
        raise refused(path, f"is more than {DEEPEST} folders deep")
    if any(len(segment.encode()) > LONGEST_SEGMENT_BYTES for segment in segments):
        raise refused(path, f"has a part of more than {LONGEST_SEGMENT_BYTES} bytes")
    if len(path.encode()) > LONGEST_PATH_BYTES:
        raise refused(path, f"is longer than {LONGEST_PATH_BYTES} bytes")
    return unicodedata.normalize("NFC", path)


class Names:
    """The paths seen so far: each once, however it is written, and none both a file and a folder."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, path: str) -> str:
        """Take a file's path and return it in NFC; raises Refused."""
        path = check_path(path)
        if len(self._files) >= MOST_FILES:
            raise refused(path, f"is one file too many: an app has at most {MOST_FILES}")
        folded = _folded(path)
        if folded in self._files:
            raise refused(path, "is there twice, or differs from another only in case or in how its letters are composed")
        if folded in self._folders:
            raise refused(path, "is a file and a folder at once")
        self._add_folders(path, folded)
        self._files.add(folded)
        return path

    def add_folder(self, path: str) -> None:
        """Take the path of a folder; raises Refused."""
        folded = _folded(check_path(path))
        if folded in self._files:
            raise refused(path, "is a file and a folder at once")
        self._add_folders(path, f"{folded}/")

    def _add_folders(self, path: str, folded: str) -> None:
        parts = folded.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            folder = "/".join(parts[:end])
            if folder in self._files:
                raise refused(path, "is below something that is a file")
            self._folders.add(folder)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", path).casefold())


class _Writer:
    """Writes entries out under numbers, counting what they really hold."""

    def __init__(self, into: Path) -> None:
        self._into = into
        self._names = Names()
        self._total = 0
        self.reading: str | None = None
        """The entry that is looked at, to be named when the archive breaks off there."""
        self.written: list[Unpacked] = []

    def folder(self, path: str) -> None:
        self._names.add_folder(path)

    def file(self, path: str, source: IO[bytes], *, stored_bytes: int | None, told_bytes: int) -> None:
        self.reading = path
        path = self._names.add(path)
        number, digest, size = len(self.written), hashlib.sha256(), 0
        with (self._into / str(number)).open("wb") as target:
            while chunk := source.read(CHUNK_BYTES):
                size += len(chunk)
                self._total += len(chunk)
                if size > LARGEST_FILE_BYTES:
                    raise refused(path, f"is larger than {LARGEST_FILE_BYTES // 1024**2} MiB")
                if self._total > LARGEST_TOTAL_BYTES:
                    raise refused(path, f"takes the archive over {LARGEST_TOTAL_BYTES // 1024**2} MiB in all")
                if stored_bytes is not None and size > RATIO_FREE_BYTES and size > LARGEST_RATIO * max(stored_bytes, 1):
                    raise refused(path, f"inflates to more than {LARGEST_RATIO} times its size")
                digest.update(chunk)
                target.write(chunk)
        if size != told_bytes:
            raise refused(path, f"holds {size} bytes, and the archive says {told_bytes}")
        self.written.append(Unpacked(number, path, size, digest.hexdigest()))


_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, struct.error, UnicodeDecodeError),
    NotImplementedError,  # is what zipfile raises for a compression, or a version of the format, that it cannot read: the archive's fault
)


def unpack(archive: Path, into: Path) -> list[Unpacked]:
    """Write the files of a zip or tar.gz into a folder, as `0`, `1`..., and say what they are; raises Refused for the whole at the first fault."""
    with archive.open("rb") as source:
        magic = source.read(4)
    writer = _Writer(into)
    try:
        if magic == b"PK\x03\x04":
            _unzip(archive, writer)
        elif magic[:2] == b"\x1f\x8b":
            _untar(archive, writer)
        elif magic == _END:
            raise Refused("The archive is empty.")
        else:
            raise Refused("The upload is neither a zip nor a tar.gz archive.")
    except _BROKEN as error:
        if writer.reading is not None:
            raise refused(writer.reading, f"or what follows it is broken: {str(error)[:200] or type(error).__name__}") from None
        raise Refused(f"The archive is broken: {str(error)[:200] or type(error).__name__}") from None
    if not writer.written:
        raise Refused("The archive holds no files.")
    return writer.written


def _unzip(archive: Path, writer: _Writer) -> None:
    _refuse_directory(archive)
    with archive.open("rb") as source, zipfile.ZipFile(source) as opened:
        infos = opened.infolist()
        if len(infos) > MOST_ENTRIES:
            raise Refused(f"The archive has {len(infos)} entries, and at most {MOST_ENTRIES} are taken.")
        files = [info.orig_filename for info in infos if not info.orig_filename.endswith("/")]
        if len(files) > MOST_FILES:  # before any of them is written
            raise refused(files[MOST_FILES], f"is one file too many: an app has at most {MOST_FILES}")
        _refuse_overlaps(source, infos, opened.start_dir)
        for info in infos:
            name = info.orig_filename  # as it stands in the archive: `filename` is mended already
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 0x1:
                raise refused(name, "is encrypted")
            if info.compress_type not in _METHODS:
                raise refused(name, "is compressed in a way that is not taken: store or deflate it")
            if name.endswith("/"):
                if info.file_size or kind not in (0, stat.S_IFDIR):
                    raise refused(name, "is a folder with content")
                writer.folder(name[:-1])
                continue
            if kind not in (0, stat.S_IFREG):
                raise refused(name, "is a link or a device, not a file")
            check_path(name)
            writer.reading = name
            with opened.open(info) as content:
                writer.file(name, content, stored_bytes=info.compress_size, told_bytes=info.file_size)


def _refuse_directory(archive: Path) -> None:
    """Refuse a directory that is too large before anything reads it whole."""
    size = archive.stat().st_size
    with archive.open("rb") as source:
        source.seek(max(0, size - 65_557))
        tail = source.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + 22:
            raise Refused("The archive is broken: it has no end.")
        count, length = struct.unpack_from("<HI", tail, at + 10)
        locator = tail.rfind(_END64_LOCATOR, 0, at)
        if locator >= 0 and 0xFFFF in (count, length & 0xFFFF):
            (offset,) = struct.unpack_from("<Q", tail, locator + 8)
            if offset + 56 > size:
                raise Refused("The archive is broken: its end lies outside of it.")
            source.seek(offset)
            end = source.read(56)
            if end[:4] != _END64:
                raise Refused("The archive is broken: it has no end.")
            count, length = struct.unpack_from("<QQ", end, 32)
    if count > MOST_ENTRIES or length > LARGEST_DIRECTORY_BYTES:
        raise Refused(f"The archive says it has {count} entries, and at most {MOST_ENTRIES} are taken.")


def _refuse_overlaps(source: IO[bytes], infos: list[zipfile.ZipInfo], directory_at: int) -> None:
    """Refuse entries that share bytes: a few kilobytes would otherwise inflate to anything."""
    reached, before = 0, ""
    for info in sorted(infos, key=lambda each: each.header_offset):
        source.seek(info.header_offset)
        header = source.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise refused(info.orig_filename, "does not begin where the archive says")
        name, extra = struct.unpack_from("<HH", header, 26)
        if info.header_offset < reached:
            raise refused(info.orig_filename, f"overlaps {before!r}")
        reached, before = info.header_offset + 30 + name + extra + info.compress_size, info.orig_filename[:200]
        if reached > directory_at:
            raise refused(info.orig_filename, "reaches beyond the end of the archive")


class _Inflated:
    """What a gzip file holds, read once and no further than an honest archive goes."""

    def __init__(self, source: gzip.GzipFile, stored_bytes: int, writer: _Writer) -> None:
        self._source = source
        self._writer = writer
        self._read = 0
        overhead = MOST_ENTRIES * 1024
        self._most = min(LARGEST_TOTAL_BYTES + overhead, max(stored_bytes * LARGEST_RATIO, RATIO_FREE_BYTES * 4))

    def read(self, size: int) -> bytes:
        chunk = self._source.read(size)
        self._read += len(chunk)
        if self._read > self._most:
            reason = f"inflates to more than {LARGEST_RATIO} times the archive's size, or takes it over {LARGEST_TOTAL_BYTES // 1024**2} MiB in all"
            raise refused(self._writer.reading or "the archive", reason)
        return chunk


def _untar(archive: Path, writer: _Writer) -> None:
    with gzip.open(archive, "rb") as source:
        inflated = _Inflated(source, archive.stat().st_size, writer)
        with tarfile.open(fileobj=inflated, mode="r|", errorlevel=2, encoding="utf-8", errors="surrogateescape") as opened:  # type: ignore[call-overload]  # reads only
            for count, member in enumerate(_members(opened), start=1):
                if count > MOST_ENTRIES:
                    raise refused(member.name, f"is one entry too many: at most {MOST_ENTRIES} are taken")
                name = member.name.removeprefix("./")  # how tar itself writes the members of a folder
                if member.isdir():
                    if name not in (".", ""):
                        writer.folder(name)
                    continue
                writer.reading = member.name
                if not member.isreg() or member.issparse():
                    raise refused(member.name, "is a link, a device or a file with holes, not a plain file")
                check_path(name)
                content = opened.extractfile(member)
                assert content is not None, "a regular member has content"
                writer.file(name, content, stored_bytes=None, told_bytes=member.size)
        while inflated.read(CHUNK_BYTES):  # gzip proves what it held at its very end only, behind that of the tar
            pass


def _members(opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := opened.next()) is not None:
        yield member
