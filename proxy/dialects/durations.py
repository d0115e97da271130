"""How long a recording is, as its own header says, without decoding it.

Sources: RIFF WAVE; FLAC's STREAMINFO; Ogg pages (RFC 3533); ISO base media `mvhd`; MPEG audio frame headers.
"""

import re

LEAST_BYTES_PER_SECOND = 1_000
"""No speech that a provider takes is packed tighter: a recording of an unknown kind is at most so long."""

_BITRATES_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_FRAME = re.compile(rb"\xff[\xe2-\xff]")
_OPUS_RATE = 48_000


def seconds(recording: bytes) -> int | None:
    """Return a recording's length in seconds begun; None for a kind that is not known here, or a header that says nothing."""
    try:
        length = _seconds(recording)
    except IndexError:  # the head is cut
        return None
    return None if length is None or length[0] <= 0 or length[1] <= 0 else -(-length[0] // length[1])


def at_most(recording: bytes) -> int:
    """Return how many seconds a recording may have at most, at least 1."""
    return seconds(recording) or max(1, -(-len(recording) // LEAST_BYTES_PER_SECOND))


def _seconds(data: bytes) -> tuple[int, int] | None:
    """Return the length as a number of units, and how many of them a second has."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return _wave(data)
    if data[:4] == b"fLaC":
        packed = int.from_bytes(data[18:26], "big")
        return packed & (2**36 - 1), packed >> 44
    if data[:4] == b"OggS":
        return _ogg(data)
    if data[4:8] == b"ftyp":
        return _media(data)
    return _mpeg(data)


def _wave(data: bytes) -> tuple[int, int] | None:
    position, rate = 12, 0
    while position + 8 <= len(data):
        kind, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if kind == b"fmt ":
            samples = int.from_bytes(data[position + 12 : position + 16], "little")
            frame = int.from_bytes(data[position + 20 : position + 22], "little")
            told = int.from_bytes(data[position + 16 : position + 20], "little")
            rate = min(filter(None, (told, samples * frame)), default=0)
        elif kind == b"data":
            return min(size, len(data) - position - 8), rate
        position += 8 + size + size % 2
    return None


def _ogg(data: bytes) -> tuple[int, int] | None:
    vorbis = data.find(b"\x01vorbis", 0, 4096)
    rate = int.from_bytes(data[vorbis + 12 : vorbis + 16], "little") if vorbis >= 0 else _OPUS_RATE
    last = data.rfind(b"OggS")
    granule = int.from_bytes(data[last + 6 : last + 14], "little", signed=True)
    return granule, rate


def _media(data: bytes) -> tuple[int, int] | None:
    header = data.find(b"mvhd")
    if header < 0:
        return None
    wide = data[header + 4] == 1
    place = header + (24 if wide else 16)
    return int.from_bytes(data[place + 4 : place + (12 if wide else 8)], "big"), int.from_bytes(data[place : place + 4], "big")


def _mpeg(data: bytes) -> tuple[int, int] | None:
    start = 0
    if data[:3] == b"ID3":
        size = data[6:10]
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=False))
    found = _FRAME.match(data, start)
    if found is None or len(data) < start + 4:
        return None
    version, layer = data[start + 1] >> 3 & 3, data[start + 1] >> 1 & 3
    kilobits = (_BITRATES_V1 if version == 3 else _BITRATES_V2)[min(data[start + 2] >> 4, 14)]
    rates = _RATES.get(version)
    place = data[start + 2] >> 2 & 3
    if layer != 1 or not kilobits or rates is None or place == 3:
        return None
    for mark in (b"Xing", b"Info"):
        tag = data.find(mark, start, start + 200)
        if tag >= 0 and data[tag + 7] & 1:
            return int.from_bytes(data[tag + 8 : tag + 12], "big") * (1152 if version == 3 else 576), rates[place]
    return (len(data) - start) * 8, kilobits * 1000
