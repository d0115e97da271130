"""The translations by the client's dialect and the upstream's."""

from proxy.translation import anthropic_to_openai, openai_to_anthropic
from proxy.translation.base import Translation

TRANSLATIONS: dict[tuple[str, str], Translation] = {
    ("anthropic", "openai"): anthropic_to_openai,
    ("openai", "anthropic"): openai_to_anthropic,
}
