"""How many tokens a text may have, without a tokenizer.

The rule: one token for every four bytes of UTF-8, over every key and every string that the model is shown, so that the keys stand for the
tokens that a provider spends on structure. What cannot be read as text has a size of its own: an image `IMAGE_TOKENS`, a file that is
only named `FILE_TOKENS`, base64 of a file a token for `FILE_BASE64_BYTES_PER_TOKEN` bytes, of sound for
`AUDIO_BASE64_BYTES_PER_TOKEN`. Signatures and encrypted reasoning, which are not the prompt, count nothing. It errs on the high side for
English and code, by some tenths; text is never free.
"""

BYTES_PER_TOKEN = 4
CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 1_600
FILE_TOKENS = 3_000
FILE_BASE64_BYTES_PER_TOKEN = 20
AUDIO_BASE64_BYTES_PER_TOKEN = 1_000

_SCALAR_BYTES = 4
_IMAGES = frozenset({"image", "image_url", "input_image"})
_OPAQUE = frozenset({"signature", "encrypted_content", "encrypted_index"})


def input_tokens(shown: object, raw_bytes: int = 0) -> int:
    """Estimate the tokens of decoded JSON and of `raw_bytes` bytes of JSON shown as it is; at least 1, linear in the input."""
    return max(1, -(-(_shown_bytes(shown) + raw_bytes) // BYTES_PER_TOKEN))


def output_tokens(characters: int) -> int:
    """Estimate the tokens of delivered text: one for every four code points begun, as Anthropic's own gateway bills a broken stream."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def _shown_bytes(shown: object) -> int:
    total = 0
    waiting = [shown]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            total += len(value) if value.isascii() else len(value.encode())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            total += _object_bytes(value, waiting)
        else:
            total += _SCALAR_BYTES
    return total


def _object_bytes(value: dict[str, object], waiting: list[object]) -> int:
    kind = value.get("type")
    if isinstance(kind, str):
        if kind in _IMAGES:
            return IMAGE_TOKENS * BYTES_PER_TOKEN
        if kind == "base64":
            return _encoded_bytes(value.get("data"), FILE_BASE64_BYTES_PER_TOKEN)
        if kind == "redacted_thinking":
            return _SCALAR_BYTES
        if kind == "url":
            return FILE_TOKENS * BYTES_PER_TOKEN
    total = 0
    for key, inner in value.items():
        total += len(key)
        if key in _OPAQUE:
            continue
        if key == "file_data":
            total += _encoded_bytes(inner, FILE_BASE64_BYTES_PER_TOKEN)
        elif key == "file_id":
            total += FILE_TOKENS * BYTES_PER_TOKEN
        elif key == "input_audio" and isinstance(inner, dict):
            total += _encoded_bytes(inner.get("data"), AUDIO_BASE64_BYTES_PER_TOKEN)
        elif isinstance(inner, str):
            total += len(inner) if inner.isascii() else len(inner.encode())
        else:
            waiting.append(inner)
    return total


def _encoded_bytes(data: object, bytes_per_token: int) -> int:
    length = len(data) if isinstance(data, str) else 0
    return -(-length * BYTES_PER_TOKEN // bytes_per_token)
