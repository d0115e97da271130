"""The file that TALLYGATE_CONFIG names: upstreams, routers, and issuers of sessions. Keys are never in it; it names the variables that hold them."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from settings import SettingsError

ECHO = "echo"
AUTO = "auto"


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
    bill_key_env: Annotated[str | None, Field(description="The variable of an admin key that reads what the provider billed.")] = None
    auth: Literal["x-api-key", "bearer"] | None = None
    models: Annotated[tuple[str, ...] | None, Field(description="What it serves; every model of its vendor when absent.")] = None
    rename: dict[str, str] = {}
    forms: Annotated[
        tuple[Literal["chat", "responses", "embeddings", "speech", "transcriptions"], ...] | None,
        Field(description="Which of OpenAI's APIs it has; all when absent."),
    ] = None
    enabled: bool = True
    priority: Annotated[int, Field(ge=0, le=1000, description="Of a model's upstreams, those of the lowest number come first.")] = 0
    weight: Annotated[int, Field(ge=0, le=1_000_000, description="Its share among upstreams of the same priority; 0: only when the others fail.")] = 1
    requests_per_minute: Annotated[int | None, Field(ge=1, le=10**9)] = None
    tokens_per_minute: Annotated[int | None, Field(ge=1, le=10**12)] = None
    connect_seconds: Annotated[float | None, Field(gt=0, le=3600)] = None
    first_byte_seconds: Annotated[float | None, Field(gt=0, le=3600)] = None
    idle_seconds: Annotated[float | None, Field(gt=0, le=3600)] = None

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

    def bill_key(self) -> SecretStr | None:
        """Return the admin key from the environment; None where it is not there: a process that asks for no bills needs none."""
        value = os.environ.get(self.bill_key_env) if self.bill_key_env else None
        return SecretStr(value) if value else None


class RoutingEntry(BaseModel):
    """What holds for every call: how many upstreams are tried, and how long each may take where it does not say so itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tries: Annotated[int, Field(ge=1, le=10)] = 3
    connect_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    first_byte_seconds: Annotated[float, Field(gt=0, le=3600)] = 600.0
    idle_seconds: Annotated[float, Field(gt=0, le=3600)] = 300.0


class RuleEntry(BaseModel):
    """A model that a router may choose, and the conditions under which it may."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    above_input_tokens: Annotated[int | None, Field(ge=0)] = None
    up_to_input_tokens: Annotated[int | None, Field(ge=1)] = None
    tools: bool | None = None
    images: bool | None = None
    up_to_usd: Annotated[str | None, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$", description="As text, at most 6 decimals.")] = None


class RouterEntry(BaseModel):
    """A logical model: a name that stands for several, of which each call gets one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
    display_name: str | None = None
    choose: Literal["cheapest", "listed", "weighted"] = "listed"
    targets: Annotated[tuple[RuleEntry, ...], Field(min_length=1, max_length=100)]


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
    routing: RoutingEntry = RoutingEntry()
    routers: tuple[RouterEntry, ...] = ()
    issuers: tuple[IssuerEntry, ...] = ()

    @field_validator("routers")
    @classmethod
    def name_once(cls, routers: tuple[RouterEntry, ...]) -> tuple[RouterEntry, ...]:
        """Refuse two routers of one name, one named as the built-in model, and one that chooses another: a router chooses models."""
        names = [router.name for router in routers]
        if len(set(names)) < len(names):
            raise ValueError("two routers have the same name")
        if ECHO in names:
            raise ValueError("`echo` is the built-in model's name")
        for router in routers:
            for rule in router.targets:
                if rule.model in names or rule.model == AUTO:
                    raise ValueError(f"`{router.name}` names the router `{rule.model}`; a router chooses models")
        return routers

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
