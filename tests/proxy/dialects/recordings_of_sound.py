"""Short recordings of every kind, made by hand, and forms that carry them."""

import io
import struct
import wave


def wav(seconds: float, rate: int = 8_000, width: int = 1) -> bytes:
    """Write silence as WAV."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(b"\x80" * int(seconds * rate * width))
    return written.getvalue()


def flac(samples: int, rate: int = 44_100) -> bytes:
    """Write the head of a FLAC file."""
    packed = rate << 44 | 0 << 41 | 15 << 36 | samples
    return b"fLaC" + bytes([0x80, 0, 0, 34]) + bytes(10) + packed.to_bytes(8, "big") + bytes(16)


def opus(granule: int) -> bytes:
    """Write two pages of an Ogg file with Opus."""
    return b"OggS\0\2" + bytes(8) + b"OpusHead" + bytes(40) + b"OggS\0\4" + struct.pack("<q", granule) + bytes(40)


def vorbis(granule: int, rate: int) -> bytes:
    """Write two pages of an Ogg file with Vorbis."""
    return b"OggS\0\2" + bytes(22) + b"\x01vorbis" + bytes(4) + b"\1" + struct.pack("<I", rate) + bytes(20) + b"OggS\0\4" + struct.pack("<q", granule) + bytes(9)


def m4a(duration: int, scale: int, *, wide: bool = False) -> bytes:
    """Write the head of an MP4 file."""
    times = struct.pack(">IQQIQ", 1 << 24, 0, 0, scale, duration) if wide else struct.pack(">IIIII", 0, 0, 0, scale, duration)
    return b"\0\0\0\x18ftypM4A " + bytes(12) + b"\0\0\0\x6cmoov\0\0\0\x6cmvhd" + times + bytes(80)


def mp3(size: int, *, frames: int | None = None, tag: bytes = b"") -> bytes:
    """Write an MP3 file of 128 kbit/s and 44.1 kHz, with a Xing head that counts `frames`, or without."""
    head = b"\xff\xfb\x90\x00"
    body = head + bytes(32) + (b"Xing" + struct.pack(">II", 1, frames) if frames is not None else b"")
    return tag + body + bytes(size - len(body))


def form(file: bytes, *, boundary: str = "----b0undary", file_name: str = "a.wav", **texts: str) -> bytes:
    """Write a form as clients do."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in texts.items()]
    head = f'Content-Disposition: form-data; name="file"; filename="{file_name}"\r\nContent-Type: audio/wav\r\n\r\n'
    parts.append(head.encode() + file)
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"
