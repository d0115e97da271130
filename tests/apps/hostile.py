"""Archives that nobody honest makes, each with the words that its refusal must hold."""

import functools
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from domain.apps import archives

Zip = zipfile.ZipFile


def zipped(fill: Callable[[Zip], object]) -> bytes:
    """Return a zip."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as opened:
        fill(opened)
    return written.getvalue()


def entry(name: str, content: bytes = b"x", mode: int = 0) -> bytes:
    """Return a zip with one entry whose name nothing has mended: the writer would."""
    stand_in = "N" * len(name) if name.isascii() else name  # the writer mends nothing of a name in another script
    info = zipfile.ZipInfo(stand_in)
    info.external_attr = mode << 16
    return zipped(lambda z: z.writestr(info, content)).replace(stand_in.encode(), name.encode())


def tarred(fill: Callable[[tarfile.TarFile], object]) -> bytes:
    """Return a tar.gz."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz", format=tarfile.PAX_FORMAT) as opened:
        fill(opened)
    return written.getvalue()


def member(name: str, content: bytes = b"x", **about: object) -> Callable[[tarfile.TarFile], None]:
    """Return what adds a member."""

    def add(opened: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in about.items():
            setattr(info, field, value)
        opened.addfile(info, io.BytesIO(content) if info.size else None)

    return add


def _twice(one: str, other: str) -> bytes:
    stand_in = "N" * len(other) if other.isascii() else other
    info = zipfile.ZipInfo(stand_in)

    def fill(opened: Zip) -> None:
        opened.writestr(one, "1")
        opened.writestr(info, "2")

    return zipped(fill).replace(stand_in.encode(), other.encode())


def _patched(data: bytes, at: int, form: str, value: int) -> bytes:
    """Change a field of the first entry of the directory."""
    patched = bytearray(data)
    struct.pack_into(form, patched, patched.rfind(b"PK\x01\x02") + at, value)
    return bytes(patched)


def _encrypted() -> bytes:
    data = bytearray(_patched(zipped(lambda z: z.writestr("secret.txt", "x")), 8, "<H", 1))
    struct.pack_into("<H", data, 6, 1)
    return bytes(data)


def _overlapping() -> bytes:
    """Two entries of the directory that name the same bytes."""
    data = _twice("a", "b")
    return _patched(data, 42, "<I", 0)


def _empty_files(count: int) -> bytes:
    def fill(opened: Zip) -> None:
        for number in range(count):
            opened.writestr(f"{number}", b"", zipfile.ZIP_STORED)

    return zipped(fill)


def _many() -> bytes:
    return _empty_files(archives.MOST_ENTRIES + 1)


def _lying_count() -> bytes:
    """An end that names few entries before a directory that has many."""
    data = bytearray(_many())
    end = data.rfind(b"PK\x05\x06")
    struct.pack_into("<HH", data, end + 8, 1, 1)
    return bytes(data)


def _tar_bomb() -> bytes:
    size = archives.LARGEST_FILE_BYTES + 1
    header = tarfile.TarInfo("bomb.bin")
    header.size = size
    squeezed = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [squeezed.compress(header.tobuf())]
    block = bytes(1 << 20)
    parts += [squeezed.compress(block) for _ in range(size // len(block) + 1)]
    parts.append(squeezed.flush())
    return b"".join(parts)


def _nameless() -> bytes:
    """An entry without a name."""
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, zlib.crc32(b"x"), 1, 1, 0, 0) + b"x"
    central = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, zlib.crc32(b"x"), 1, 1, 0, 0, 0, 0, 0, 0, 0)
    return local + central + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)


def _sparse() -> bytes:
    """A file of GNU tar that claims a gigabyte of holes."""
    header = tarfile.TarInfo("holes.bin")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"10000000000\0"
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(block) + bytes(1024))


def _flipped() -> bytes:
    """A tar.gz of one plain file, of which a letter was lost on the way: only the checksum at the end of the gzip knows."""
    told = gzip.compress(gzip.decompress(tarred(member("a.html", b"good"))), compresslevel=0)
    return told.replace(b"good", b"gold", 1)


def _padded() -> bytes:
    """Nothing but zeros behind the end of the tar, more than any honest archive has."""
    return gzip.compress(gzip.decompress(tarred(member("a.html"))) + bytes(20 << 20), compresslevel=9)


def _many_in_tar() -> bytes:
    """Nothing but folders, one after the other."""
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    return gzip.compress(folder.tobuf(tarfile.USTAR_FORMAT) * (archives.MOST_ENTRIES + 1) + bytes(1024), 1)


ZIPS: dict[str, tuple[bytes | Callable[[], bytes], tuple[str, ...]]] = {
    "traversal": (entry("../../evil.html"), ("../../evil.html", "leads out")),
    "traversal inside": (entry("a/../../evil.html"), ("a/../../evil.html", "leads out")),
    "absolute": (entry("/etc/evil"), ("/etc/evil", "absolute")),
    "drive": (entry("C:/evil"), ("C:/evil", "drive")),
    "backslash": (entry("..\\evil"), ("evil", "backslash")),
    "nul": (entry("a\x00.html"), ("a", "NUL")),
    "control": (entry("a\nb.html"), ("b.html", "control")),
    "delete": (entry("a\x7fb.html"), ("b.html", "control")),
    "bidi": (entry("a\u202egnp.html"), ("\\u202e", "direction")),
    "dot": (entry("./a"), ("./a", "dot")),
    "dots inside": (entry("a/./b"), ("a/./b", "dot")),
    "traversal at the end": (entry("a/.."), ("a/..", "leads out")),
    "no name": (_nameless(), ("empty path",)),
    "carriage return": (entry("a\rb.html"), ("b.html", "control")),
    "share of a network": (entry("\\\\host\\share"), ("host", "backslash")),
    "drive alone": (entry("c:evil"), ("c:evil", "drive")),
    "isolate": (entry("a\u2067b.js"), ("\\u2067", "direction")),
    "socket": (entry("sock", b"", stat.S_IFSOCK | 0o666), ("sock", "link or a device")),
    "block device": (entry("disk", b"", stat.S_IFBLK | 0o666), ("disk", "link or a device")),
    "folder with content": (entry("folder/", b"x"), ("folder/", "folder with content")),
    "folder that leads out": (entry("../folder/", b""), ("../folder", "leads out")),
    "empty part": (entry("a//b"), ("a//b", "empty")),
    "symlink": (entry("link", b"/etc/passwd", stat.S_IFLNK | 0o777), ("link", "link or a device")),
    "device": (entry("dev", b"", stat.S_IFCHR | 0o666), ("dev", "link or a device")),
    "fifo": (entry("pipe", b"", stat.S_IFIFO | 0o666), ("pipe", "link or a device")),
    "duplicate": (_twice("a.js", "a.js"), ("a.js", "twice")),
    "duplicate by case": (_twice("a.js", "A.JS"), ("A.JS", "twice")),
    "duplicate by composition": (_twice("\u00e9.js", "e\u0301.js"), ("twice",)),
    "duplicate by compatibility": (_twice("fi.js", "\ufb01.js"), ("twice",)),
    "duplicate by folding": (_twice("ss.js", "\u00df.js"), ("twice",)),
    "duplicate folder by case": (_twice("a/x.js", "A/X.js"), ("A/X.js", "twice")),
    "file and folder": (_twice("a", "a/b"), ("a/b", "file")),
    "folder and file": (_twice("a/b", "a"), ("'a'", "folder")),
    "encrypted": (_encrypted(), ("secret.txt", "encrypted")),
    "bomb": (lambda: zipped(lambda z: z.writestr("bomb.html", bytes(20 << 20))), ("bomb.html", "times its size")),
    "too large": (lambda: zipped(lambda z: z.writestr("big.bin", bytes(1 << 20) * 51)), ("big.bin",)),
    "lying size": (_patched(zipped(lambda z: z.writestr("liar.html", "x" * 4000)), 24, "<I", 10), ("liar.html",)),
    "lying checksum": (_patched(zipped(lambda z: z.writestr("liar.html", "x" * 4000)), 16, "<I", 10), ("liar.html", "broken")),
    "too many": (_many, ("entries",)),
    "too many, and says few": (_lying_count, ("entries",)),
    "too many files": (lambda: _empty_files(archives.MOST_FILES + 1), ("one file too many",)),
    "too deep": (entry("/".join("a" * (archives.DEEPEST + 1))), ("folders deep",)),
    "long part": (entry("a" * 256), ("255 bytes",)),
    "long path": (entry("/".join(["a" * 200] * 6)), ("1024 bytes",)),
    "overlap": (_overlapping(), ("overlaps",)),
    "other compression": (_patched(zipped(lambda z: z.writestr("a", "x" * 99)), 10, "<H", 12), ("'a'", "compressed")),
    "two names": (zipped(lambda z: z.writestr("inner.html", "x")).replace(b"inner.html", b"other.html", 1), ("inner.html", "broken")),
    "cut": (zipped(lambda z: z.writestr("a", "x" * 999))[:-30], ("broken",)),
    "empty": (zipped(lambda z: None), ("empty",)),
    "folders only": (entry("folder/", b""), ("no files",)),
    "garbage": (b"<html>not an archive</html>", ("neither",)),
    "garbage before": (b"#!/bin/sh\n" + zipped(lambda z: z.writestr("a", "x")), ("neither",)),
}
TARS: dict[str, tuple[bytes | Callable[[], bytes], tuple[str, ...]]] = {
    "traversal": (tarred(member("../evil")), ("../evil", "leads out")),
    "absolute": (tarred(member("/etc/evil")), ("/etc/evil", "absolute")),
    "backslash": (tarred(member("a\\b")), ("backslash",)),
    "drive": (tarred(member("C:/evil")), ("C:/evil", "drive")),
    "dot inside": (tarred(member("a/./b")), ("a/./b", "dot")),
    "control": (tarred(member("a\tb")), ("control",)),
    "file and folder": (tarred(lambda t: (member("a")(t), member("a/b")(t))), ("a/b", "file")),
    "long part": (tarred(member("a" * 256)), ("255 bytes",)),
    "long path": (tarred(member("/".join(["a" * 200] * 6))), ("1024 bytes",)),
    "holes": (_sparse(), ("holes",)),
    "too many": (_many_in_tar, ("'folder'", "one entry too many")),
    "bidi": (tarred(member("a\u2066b")), ("direction",)),
    "symlink": (tarred(member("link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")), ("link", "plain file")),
    "hard link": (tarred(member("hard", b"", type=tarfile.LNKTYPE, linkname="a")), ("hard", "plain file")),
    "device": (tarred(member("dev", b"", type=tarfile.CHRTYPE)), ("dev", "plain file")),
    "fifo": (tarred(member("pipe", b"", type=tarfile.FIFOTYPE)), ("pipe", "plain file")),
    "duplicate": (tarred(lambda t: (member("a")(t), member("A")(t))), ("'A'", "twice")),
    "leading dot twice": (tarred(member("././a")), ("dot",)),
    "too deep": (tarred(member("/".join("a" * 33))), ("folders deep",)),
    "bomb": (_tar_bomb, ("bomb.bin", "inflates")),
    "not a tar": (gzip.compress(b"hello" * 500), ("broken",)),
    "cut": (tarred(member("a", bytes(range(256)) * 4000))[:-2000], ("'a'", "broken")),
    "lying checksum": (_flipped(), ("'a.html'", "broken", "CRC")),
    "no checksum": (tarred(member("a.html"))[:-8], ("'a.html'", "broken")),
    "garbage behind": (tarred(member("a.html")) + b"#!/bin/sh", ("'a.html'", "broken")),
    "zeros behind": (_padded, ("'a.html'", "inflates")),
    "bad name": (tarred(member("a\udcff")), ("UTF-8",)),
    "empty": (tarred(lambda t: None), ("no files",)),
}
CASES = {**{f"zip: {name}": case for name, case in ZIPS.items()}, **{f"tar: {name}": case for name, case in TARS.items()}}


@functools.cache
def hostile(case: str) -> tuple[bytes, tuple[str, ...]]:
    """Return an archive and the words that its refusal must hold; large ones are made when a test asks, not when it is collected."""
    archive, words = CASES[case]
    return (archive if isinstance(archive, bytes) else archive()), words
