"""Whose Host is answered, and whose word on a client's address is believed: pure rules."""

import ipaddress

import pytest

from connections import Hosts, Proxies
from settings import Settings, listed

REQUIRED = {"DATABASE_URL": "postgresql://a@b/c", "REDIS_URL": "redis://x", "TALLYGATE_SECRET": "s" * 40}


@pytest.mark.parametrize(
    ("names", "host", "admitted"),
    [
        ((), b"localhost:8000", True),
        ((), b"127.0.0.1", True),
        ((), b"[::1]:8000", True),
        ((), b"gateway", False),
        (("gateway",), b"Gateway:8000", True),
        (("Gateway.Example.",), b"gateway.example", True),
        (("*.apps.example",), b"one.apps.example", True),
        (("*.apps.example",), b"one.two.apps.example:443", True),
        (("*.apps.example",), b"apps.example", False),
        (("*.apps.example",), b"evilapps.example", False),
        (("*",), b"whatever.example", True),
        (("*",), b"what ever", False),
        (("*",), b"a\xe9.example", False),
        (("gateway",), b"gateway:999999", False),
        (("gateway",), b"gateway:", False),
        ((), b"1.2.3.4.evil.example", False),
        ((), b"0x7f000001", False),
    ],
)
def test_hosts(names: tuple[str, ...], host: bytes, admitted: bool) -> None:
    """Listed names, those below a wildcard, localhost and addresses, with or without a port; nothing that only looks like one."""
    assert Hosts(names).admits(host) is admitted


TRUSTED = Proxies([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:f::/48")])


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        ("10.0.0.1", {}, "10.0.0.1"),
        ("10.0.0.1", {"x-forwarded-for": "203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"x-forwarded-for": "198.51.100.1, 203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"x-forwarded-for": "198.51.100.1, 203.0.113.9, 10.2.3.4"}, "203.0.113.9"),
        ("10.0.0.1", {"x-forwarded-for": "10.9.9.9, 10.2.3.4"}, "10.9.9.9"),
        ("10.0.0.1", {"x-forwarded-for": "203.0.113.9:4711"}, "203.0.113.9"),
        ("10.0.0.1", {"x-forwarded-for": "[2001:db8::7]:4711"}, "2001:db8::7"),
        ("10.0.0.1", {"x-forwarded-for": "::ffff:203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"x-forwarded-for": "203.0.113.9, unknown"}, "10.0.0.1"),
        ("10.0.0.1", {"x-forwarded-for": "nonsense, 203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"x-forwarded-for": ""}, "10.0.0.1"),
        ("10.0.0.1", {"forwarded": 'for=203.0.113.9;proto=https, For="[2001:db8:f::1]:80"'}, "203.0.113.9"),
        ("10.0.0.1", {"forwarded": "for=_hidden"}, "10.0.0.1"),
        ("10.0.0.1", {"forwarded": "for=203.0.113.9", "x-forwarded-for": "203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"forwarded": "for=198.51.100.1", "x-forwarded-for": "203.0.113.9"}, "10.0.0.1"),
    ],
)
def test_the_client_behind_proxies(peer: str, fields: dict[str, str], client: str) -> None:
    """The list is read from its end, through proxies of ours, to the first that is none; what they cannot have written is not believed."""
    assert TRUSTED.client(peer, [(name.encode(), value.encode()) for name, value in fields.items()]) == client


def test_who_is_a_proxy() -> None:
    """Only what lies in a network that the operator named."""
    assert TRUSTED.trusts("10.255.0.1")
    assert TRUSTED.trusts("2001:db8:f:1::2")
    assert not TRUSTED.trusts("11.0.0.1")
    assert not TRUSTED.trusts("nonsense")
    assert not Proxies([]).trusts("127.0.0.1")


def test_settings_name_them() -> None:
    """Lists are comma-separated; the public URL's host is one of ours; a network that is none stops the start and is named."""
    settings = Settings.model_validate(
        {**REQUIRED, "TALLYGATE_PUBLIC_URL": "https://Gate.example:8443/x", "TALLYGATE_HOSTS": "a.example, b.example", "TALLYGATE_TRUSTED_PROXIES": "10.0.0.0/8,::1"}
    )
    assert settings.answered_hosts == ("a.example", "b.example", "gate.example")
    assert settings.trusted_networks == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    assert listed(" , ") == ()
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        Settings.model_validate({**REQUIRED, "TALLYGATE_TRUSTED_PROXIES": "10.0.0.0/99"})
