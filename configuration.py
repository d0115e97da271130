"""The file that TALLYGATE_CONFIG names: upstreams, and issuers of sessions. Keys are never in it; it names the variables that hold them."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from settings import SettingsError

ECHO = "echo"


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("is an http or https URL without credentials, query or fragment")
    return url


class UpstreamEntry(BaseModel):
    """A provider: its dialect, its base address without `/v1`, and the environment variable that holds its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dialect: Literal["anthropic", "openai"]
    url: str
    key_env: str | None = None
    auth: Literal["x-api-key", "bearer"] | None = None
    models: Annotated[tuple[str, ...] | None, Field(description="What it serves; every model of its vendor when absent.")] = None
    rename: dict[str, str] = {}

    @field_validator("url")
    @classmethod
    def check_url(cls, url: str) -> str:
        """Refuse what is no base address."""
        return _checked(url).rstrip("/")

    def key(self) -> SecretStr | None:
        """Return the key from the environment; None for an upstream that wants none. Raises SettingsError when the variable is not set."""
        if self.key_env is None:
            return None
        value = os.environ.get(self.key_env)
        if not value:
            raise SettingsError(f"{self.key_env} is not set; an upstream of the configuration file needs it")
        return SecretStr(value)


class IssuerEntry(BaseModel):
    """An OIDC issuer whose session tokens are believed: one algorithm, one audience."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    audience: str | None = None
    algorithm: Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"] = "RS256"
    jwks_url: str | None = None

    @field_validator("url", "jwks_url")
    @classmethod
    def check_url(cls, url: str | None) -> str | None:
        """Refuse what is no address; a slash at the end stays, because tokens name their issuer to the letter."""
        return None if url is None else _checked(url)


class Configuration(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upstreams: dict[str, UpstreamEntry] = {}
    issuers: tuple[IssuerEntry, ...] = ()

    @field_validator("upstreams")
    @classmethod
    def keep_echo(cls, upstreams: dict[str, UpstreamEntry]) -> dict[str, UpstreamEntry]:
        """Refuse an upstream that takes the name of the built-in one."""
        if ECHO in upstreams:
            raise ValueError("`echo` is the built-in upstream's name")
        return upstreams


def load_configuration(path: Path | None) -> Configuration:
    """Read the file, or return an empty configuration for None; raises SettingsError in one line for each fault."""
    if path is None:
        return Configuration()
    try:
        document = tomllib.loads(path.read_text())
        return Configuration.model_validate(document)
    except OSError as error:
        raise SettingsError(f"TALLYGATE_CONFIG, {path}, cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"TALLYGATE_CONFIG is no TOML: {error}") from None
    except ValidationError as error:
        lines = [f"TALLYGATE_CONFIG, {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise SettingsError("\n".join(lines)) from None
