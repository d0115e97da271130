"""Webhooks, sent to addresses that customers chose: to public ones only, once resolved, without redirects, and with a bound on every wait."""

import asyncio
import ipaddress
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from domain.outside import before_calling
from domain.webhooks import Message, Taken

SECONDS = 15.0
LOOK_BYTES = 64 * 1024
"""How much of an answer is read, so that the connection can be closed in good order; nothing of it is kept."""


class PrivateAddress(OSError):
    """The name resolves to an address inside a network."""


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only, and the connection is made to what it answered: a name cannot change in between."""

    def __init__(self) -> None:
        self._inner = DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return the public addresses of a name; raises PrivateAddress when it has others only."""
        found = [result for result in await self._inner.resolve(host, port, family) if ipaddress.ip_address(result["host"].partition("%")[0]).is_global]
        if not found:
            raise PrivateAddress(f"{host} has no public address")
        return found

    async def close(self) -> None:
        """Close the resolver below."""
        await self._inner.close()


class Webhooks:
    """Fulfils `domain.webhooks.Sender`. `private_allowed` is for development: addresses inside a network, and plain HTTP."""

    def __init__(self, *, private_allowed: bool) -> None:
        self._private_allowed = private_allowed

    async def send(self, message: Message) -> Taken:
        """Send once over a connection of its own; a success is any 2xx."""
        before_calling("a webhook's receiver")
        resolver = None if self._private_allowed else PublicResolver()
        try:
            if not self._private_allowed and not _public(message.url):
                raise PrivateAddress("not a public address")
            connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
            async with (
                asyncio.timeout(SECONDS),
                aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False) as session,
                session.post(
                    URL(message.url, encoded=True), data=message.body, headers={**message.headers, "user-agent": "Tallygate"}, allow_redirects=False
                ) as response,
            ):
                await response.content.read(LOOK_BYTES)
                if 200 <= response.status < 300:
                    return Taken(response.status)
                return Taken(response.status, "http_status", f"The receiver answered {response.status}.")
        except PrivateAddress:
            return Taken(None, "private_address", "The address is not public.")
        except aiohttp.ClientConnectorCertificateError:
            return Taken(None, "certificate", "The receiver's certificate does not hold.")
        except TimeoutError:
            return Taken(None, "timed_out", f"The receiver did not answer within {SECONDS:.0f} seconds.")
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, PrivateAddress):
                return Taken(None, "private_address", "The address is not public.")
            return Taken(None, "unresolved", "The receiver's name cannot be resolved.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Taken(None, "unreachable", f"The receiver could not be reached ({type(error).__name__}).")


def _public(url: str) -> bool:
    """Tell whether a literal address is public; a name is looked at when it is resolved."""
    try:
        return ipaddress.ip_address(URL(url).host or "").is_global
    except ValueError:
        return True
