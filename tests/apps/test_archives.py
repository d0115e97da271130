"""Archives of strangers: every hostile one is refused by name, in a process with limits, and nothing of it is left (F39)."""

import hashlib
import os
import struct
import zlib
from pathlib import Path

import pytest

from clients.unpacker import Unpacker
from domain.apps import archives
from domain.errors import InvalidInput
from tests.apps.hostile import CASES, hostile, member, tarred, zipped

pytestmark = pytest.mark.anyio
WHOLE = {"index.html": b"<h1>hi</h1>", "assets/app.js": b"let a = 1\n" * 500, "é/🙂.txt": b"", "empty": b""}


def _fill_zip() -> bytes:
    def fill(opened: object) -> None:
        opened.mkdir("assets")  # type: ignore[attr-defined]  # a ZipFile
        for name, content in WHOLE.items():
            opened.writestr(name, content)  # type: ignore[attr-defined]  # as above

    return zipped(fill)


def _fill_tar(lead: str) -> bytes:
    return tarred(lambda opened: [member(f"{lead}{name}", content)(opened) for name, content in WHOLE.items()])


@pytest.mark.parametrize("archive", [_fill_zip(), _fill_tar(""), _fill_tar("./")], ids=["zip", "tar.gz", "tar.gz of a folder"])
async def test_an_honest_archive(archive: bytes, tmp_path: Path) -> None:
    """Files come out as they went in, whatever their names' script, with their digests."""
    given = tmp_path / "given"
    given.write_bytes(archive)
    found = await Unpacker().unpack(given, tmp_path)
    assert {each.path: (tmp_path / str(each.number)).read_bytes() for each in found} == WHOLE
    assert {each.path: (each.bytes, each.sha256) for each in found} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in WHOLE.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_archive(case: str, tmp_path: Path) -> None:
    """It is refused with a message that names what is wrong, and writes nothing outside of its folder; `tests/rest/test_deploys.py` sends each as a client."""
    archive, told = hostile(case)
    inner = tmp_path / "inner"
    inner.mkdir()
    given = inner / "given"
    given.write_bytes(archive)
    with pytest.raises(archives.Refused) as refused:
        archives.unpack(given, inner)
    for words in told:
        assert words in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert all(path.name == "given" or path.name.isdigit() for path in inner.iterdir())


async def test_too_much_in_all(tmp_path: Path) -> None:
    """Files that are each small enough, and together too much, are refused at the one that goes over; the archive itself is mostly a hole of the disk."""
    given = tmp_path / "given"
    size = archives.LARGEST_FILE_BYTES
    crc = zlib.crc32(bytes(size))
    count = archives.LARGEST_TOTAL_BYTES // size + 1
    with given.open("wb") as target:
        central = b""
        for number in range(count):
            at, name = target.tell(), b"%d.bin" % number
            target.write(struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, crc, size, size, len(name), 0) + name)
            target.seek(size, 1)
            central += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, crc, size, size, len(name), 0, 0, 0, 0, 0, at) + name
        at = target.tell()
        target.write(central + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(central), at, 0))
    with pytest.raises(InvalidInput) as refused:
        await Unpacker().unpack(given, tmp_path)
    assert refused.value.message == f"'{count - 1}.bin' takes the archive over 250 MiB in all"


async def test_an_archive_that_takes_too_long(tmp_path: Path) -> None:
    """What opens an archive is a process that can be spared: a file that never ends is given up, and nobody waits for it."""
    pipe = tmp_path / "given"
    os.mkfifo(pipe)
    with pytest.raises(InvalidInput) as refused:
        await Unpacker(seconds=0.5).unpack(pipe, tmp_path)
    assert refused.value.message == "The archive takes too long to read."


def test_names_in_a_message_cannot_confuse() -> None:
    """What could turn a terminal's text around, or be taken for another line, is written out."""
    told = str(archives.refused("a\u202e\nb" + "c" * 500, "is odd"))
    assert told.startswith("'a\\\\u202e\\\\u000ab")
    assert len(told) < 250
