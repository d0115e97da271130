"""The translations, and which of them stands between a form of request and an upstream."""

from collections.abc import Mapping
from functools import cache

from proxy.dialects.base import BadRequest, Dialect
from proxy.translation import anthropic_to_openai, openai_to_anthropic, responses_to_openai
from proxy.translation.base import Translation
from proxy.translation.chain import Chain

TRANSLATIONS: Mapping[tuple[str, str], Translation] = {
    ("messages", "openai"): anthropic_to_openai,
    ("chat", "anthropic"): openai_to_anthropic,
    ("responses", "openai"): responses_to_openai,
    ("responses", "anthropic"): Chain(responses_to_openai, openai_to_anthropic),
}
"""By the form of a client's request and the dialect of an upstream that does not speak it."""

_OF_OPENAI = ("chat", "responses", "embeddings", "speech", "transcriptions")
DIALECT_OF: Mapping[str, str] = {"messages": "anthropic"} | dict.fromkeys(_OF_OPENAI, "openai")
"""The dialect that a form of request belongs to."""


@cache
def reaches(form: str) -> tuple[str, ...]:
    """Give the dialects whose upstreams can serve a form of request: its own first."""
    own = DIALECT_OF[form]
    return (own, *(upstream for client, upstream in TRANSLATIONS if client == form and upstream != own))


@cache
def said_as(form: str) -> tuple[str, ...]:
    """Give the forms in which a request can be said to an upstream of OpenAI's dialect: its own first, and chat in translation."""
    return (form, "chat") if (form, "openai") in TRANSLATIONS else (form,)


@cache
def speaks(form: str, upstream_dialect: str, forms: tuple[str, ...] | None) -> bool:
    """Tell whether an upstream of a dialect speaks a form itself; `forms` are those that it is configured to have, None for all."""
    return DIALECT_OF[form] == upstream_dialect and (forms is None or form in forms)


def between(dialect: Dialect, upstream_dialect: str, forms: tuple[str, ...] | None = None) -> Translation | None:
    """Give what stands between a form of request and an upstream: None where the upstream speaks it itself.

    Raises BadRequest where there is nothing: what cannot be served is refused, not guessed at.
    """
    if speaks(dialect.form, upstream_dialect, forms):
        return None
    translation = TRANSLATIONS.get((dialect.form, upstream_dialect))
    if translation is None:
        raise BadRequest(f"This model cannot be called on this path: its provider has no {dialect.form}, and nothing can stand in for them.", "model")
    return translation
