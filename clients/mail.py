"""Mail: sent over SMTP, or written to a folder where no server is configured."""

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

from domain.outside import before_calling

SMTP_SECONDS = 20.0


class Mail:
    """Fulfils `jobs.mail.Mailer`: one message at a time, and the duty's id as Message-ID, so that a repeat is recognised."""

    def __init__(self, smtp_url: str | None, sender: str, folder: Path) -> None:
        self._smtp_url = smtp_url
        self._sender = sender
        self._folder = folder

    async def send(self, to: str, subject: str, text: str, *, duty_id: UUID) -> None:
        """Send a plain text; raises OSError or smtplib.SMTPException when it did not leave.

        A server that wants a password gets it over TLS with a certificate that holds, or not at all.
        """
        before_calling("the mail server")
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, to, subject
        message["Message-ID"] = f"<{duty_id}@tallygate>"
        # a file is read as it is, so no line of it may be broken or encoded; a mail program undoes what SMTP asks for
        message.set_content(text, cte=None if self._smtp_url else "8bit")
        await asyncio.to_thread(self._deliver if self._smtp_url else self._write, message, duty_id)

    def _write(self, message: EmailMessage, duty_id: UUID) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{duty_id}.eml"
        path.touch(mode=0o600)
        path.write_bytes(message.as_bytes())

    async def check(self) -> None:
        """Log in at the server and send nothing; without a server there is nothing to check. Raises as `send`."""
        before_calling("the mail server")
        if self._smtp_url:
            await asyncio.to_thread(self._deliver, None, None)

    def _deliver(self, message: EmailMessage | None, _: UUID | None) -> None:
        assert self._smtp_url is not None
        parts = urlsplit(self._smtp_url)
        host, secure = parts.hostname or "localhost", parts.scheme == "smtps"
        tls = ssl.create_default_context()
        if not parts.username:  # nothing to steal: any encryption is better than none, as between mail servers
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        connection = (
            smtplib.SMTP_SSL(host, parts.port or 465, timeout=SMTP_SECONDS, context=tls) if secure else smtplib.SMTP(host, parts.port or 25, timeout=SMTP_SECONDS)
        )
        with connection as server:
            server.ehlo()  # what a server can do is known only after this
            if not secure and server.has_extn("starttls"):
                server.starttls(context=tls)
            elif not secure and parts.username:
                raise smtplib.SMTPNotSupportedError("the mail server offers no STARTTLS, and a password does not travel in clear")
            if parts.username:
                server.login(unquote(parts.username), unquote(parts.password or ""))
            if message is not None:
                server.send_message(message)
