"""Mail over SMTP, spoken to a real socket that writes down what it hears."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clients.mail import Mail
from models.ids import uuid7

pytestmark = pytest.mark.anyio

ANSWERS = {"EHLO": "250 SMTPUTF8", "STARTTLS": "454 not now", "AUTH": "235 in", "MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go on", "QUIT": "221 bye"}


@asynccontextmanager
async def server(*extensions: str) -> AsyncIterator[tuple[int, list[str]]]:
    """Serve SMTP that offers these extensions; gives its port and the lines that clients sent."""
    heard: list[str] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        text = False
        while read := await reader.readline():
            line = read.decode().rstrip("\r\n")
            heard.append(line)
            word = line.split(" ", 1)[0].upper()
            if text:
                text = line != "."
                answer = "" if text else "250 taken\r\n"
            else:
                text = word == "DATA"
                offered = "".join(f"250-{extension}\r\n" for extension in ("here", *extensions)) if word == "EHLO" else ""
                answer = f"{offered}{ANSWERS.get(word, '250 ok')}\r\n"
            writer.write(answer.encode())
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heard


@pytest.mark.parametrize("extensions", [("STARTTLS", "AUTH PLAIN LOGIN"), ("AUTH PLAIN LOGIN",)])
async def test_a_password_never_travels_in_clear(extensions: tuple[str, ...]) -> None:
    """Where TLS is offered it is begun first; where it fails or is not offered, nothing is sent, least of all the password."""
    async with server(*extensions) as (port, heard):
        mail = Mail(f"smtp://someone:canary@127.0.0.1:{port}", "us@example.com", Path())
        with pytest.raises(smtplib.SMTPException):
            await mail.send("you@example.com", "Hello", "text", duty_id=uuid7())
    words = [line.split(" ", 1)[0].upper() for line in heard]
    assert "AUTH" not in words
    assert "MAIL" not in words
    assert ("STARTTLS" in words) == ("STARTTLS" in extensions)


async def test_a_server_without_a_password_takes_the_mail() -> None:
    """A relay that asks for nothing gets the message with its own id, and a subject that cannot forge another field."""
    duty_id = uuid7()
    async with server() as (port, heard):
        mail = Mail(f"smtp://127.0.0.1:{port}", "us@example.com", Path())
        await mail.send("you@example.com", "Hällo", "text", duty_id=duty_id)
        with pytest.raises(ValueError, match="linefeed"):
            await mail.send("you@example.com", "Hello\r\nBcc: all@example.com", "text", duty_id=duty_id)
    assert f"Message-ID: <{duty_id}@tallygate>" in heard
    assert [line.lower() for line in heard if line.upper().startswith("RCPT")] == ["rcpt to:<you@example.com>"]
