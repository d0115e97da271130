"""How many tokens a text may have, without a tokenizer.

The rule: one token for every four bytes of the JSON that the model is shown, as the client wrote it: keys, punctuation and escapes stand
for the tokens that a provider spends on structure. What is no text has a size of its own in place of its length: an image
`IMAGE_TOKENS`, a file that is only named `FILE_TOKENS`, base64 of a file a token for `FILE_BASE64_BYTES_PER_TOKEN` bytes, of sound for
`AUDIO_BASE64_BYTES_PER_TOKEN`. Signatures and encrypted reasoning, which are not the prompt, count nothing. It errs on the high side
for English and code, by some tenths; text is never free, and more text is never fewer tokens.
"""

from collections.abc import Iterable

import msgspec

BYTES_PER_TOKEN = 4
CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 1_600
FILE_TOKENS = 3_000
FILE_BASE64_BYTES_PER_TOKEN = 20
AUDIO_BASE64_BYTES_PER_TOKEN = 1_000
MOST_COMMAS = 200_000
"""Up to how many commas an array is taken apart whose messages are not all of a known shape; what has more is counted as text altogether."""

_IMAGES = frozenset({"image", "image_url", "input_image"})
_NOTHING = msgspec.Raw()


class _Sized(msgspec.Struct):
    """An object that holds something with a size of its own: the source of an image or document, a file, a sound."""

    type: str = ""
    data: msgspec.Raw = _NOTHING
    url: msgspec.Raw = _NOTHING
    file_data: msgspec.Raw = _NOTHING
    file_id: msgspec.Raw = _NOTHING


class _Block(msgspec.Struct):
    """A piece of a message; its text is not decoded, for its length is known already."""

    type: str = ""
    data: msgspec.Raw = _NOTHING
    signature: msgspec.Raw = _NOTHING
    encrypted_content: msgspec.Raw = _NOTHING
    encrypted_index: msgspec.Raw = _NOTHING
    source: _Sized | None = None
    image_url: msgspec.Raw = _NOTHING
    file: _Sized | None = None
    file_data: msgspec.Raw = _NOTHING
    file_id: msgspec.Raw = _NOTHING
    file_url: msgspec.Raw = _NOTHING
    input_audio: _Sized | None = None
    content: "str | list[_Block] | _Block | None" = None


class _Message(msgspec.Struct):
    """A message; or an item of the Responses API, which may be a tool's output or encrypted reasoning as well."""

    content: str | list[_Block] | None = None
    output: str | list[_Block] | None = None
    encrypted_content: msgspec.Raw = _NOTHING


_MESSAGES = msgspec.json.Decoder(list[_Message])
_MESSAGE = msgspec.json.Decoder(_Message)
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])


def input_tokens(messages: bytes, others: Iterable[bytes]) -> int:
    """Estimate the tokens of a JSON array of messages and of other JSON that is shown to a model; at least 1, linear in the input."""
    shown_bytes = len(messages) + sum(map(len, others)) + sum(map(_message_correction_bytes, _decoded(messages)))
    return max(1, -(-shown_bytes // BYTES_PER_TOKEN))


def output_tokens(characters: int) -> int:
    """Estimate the tokens of delivered text: one for every four code points begun, as Anthropic's own gateway bills a broken stream."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def _decoded(messages: bytes) -> Iterable[_Message]:
    try:
        return _MESSAGES.decode(messages)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return filter(None, map(_decoded_alone, _ELEMENTS.decode(messages))) if messages.count(b",") <= MOST_COMMAS else ()


def _decoded_alone(message: msgspec.Raw) -> _Message | None:
    """Decode a message, or give None for one of an unknown shape: then every byte of it counts as text."""
    try:
        return _MESSAGE.decode(message)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _message_correction_bytes(message: _Message) -> int:
    """Give what the parts of a message that are no text count beyond their length, or below it: their sizes replace their lengths."""
    total = -_length(message.encrypted_content) if message.encrypted_content is not _NOTHING else 0
    if not isinstance(message.content, list) and not isinstance(message.output, list):
        return total
    waiting = [block for blocks in (message.content, message.output) if isinstance(blocks, list) for block in blocks]
    while waiting:
        block = waiting.pop()
        if block.type == "text":
            continue
        total -= _length(block.data) + _length(block.signature) + _length(block.encrypted_content) + _length(block.encrypted_index)
        if block.type in _IMAGES:
            total += IMAGE_TOKENS * BYTES_PER_TOKEN - _length(block.image_url)
            if block.source is not None:
                total -= _length(block.source.data) + _length(block.source.url)
        else:
            total += _sized_bytes(block.source) + _sized_bytes(block.file) + _encoded_bytes(block.file_data, FILE_BASE64_BYTES_PER_TOKEN)
            if _length(block.file_id) or _length(block.file_url):
                total += FILE_TOKENS * BYTES_PER_TOKEN
            if block.input_audio is not None:
                total += _encoded_bytes(block.input_audio.data, AUDIO_BASE64_BYTES_PER_TOKEN)
        if isinstance(block.content, list):
            waiting.extend(block.content)
        elif isinstance(block.content, _Block):
            waiting.append(block.content)
    return total


def _sized_bytes(sized: _Sized | None) -> int:
    if sized is None:
        return 0
    total = _encoded_bytes(sized.file_data, FILE_BASE64_BYTES_PER_TOKEN)
    if sized.type == "base64":
        total += _encoded_bytes(sized.data, FILE_BASE64_BYTES_PER_TOKEN)
    if _length(sized.file_id) or sized.type == "url":
        total += FILE_TOKENS * BYTES_PER_TOKEN
    return total


def _encoded_bytes(data: msgspec.Raw, bytes_per_token: int) -> int:
    length = _length(data)
    return -(-length * BYTES_PER_TOKEN // bytes_per_token) - length


def _length(value: msgspec.Raw) -> int:
    return memoryview(value).nbytes
